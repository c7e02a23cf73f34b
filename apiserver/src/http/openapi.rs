//! `/openapi/v3`: the index and the documents, each made once and kept until the kinds of its group change.
//!
//! A document's address carries its hash, so that a client asks once and keeps the answer for as long as the hash is the same.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use parking_lot::Mutex;
use serde_json::json;

use super::answer::{self, Body};
use crate::{
    failure::Failure,
    kinds::{Kind, Registry},
    openapi::{self, CrdDoc, KindDoc},
    path::Query,
};

/// The documents made so far.
#[derive(Debug, Default)]
pub(crate) struct Documents(Mutex<Made>);

#[derive(Debug, Default)]
struct Made {
    of: Option<Arc<Registry>>,
    documents: BTreeMap<(String, String), Document>,
}

#[derive(Debug, Clone)]
struct Document {
    json: Bytes,
    hash: String,
    custom: bool,
}

impl Documents {
    /// Answers a path under `/openapi`, given by its parts after that.
    pub(super) fn answer(
        &self,
        kinds: &Arc<Registry>,
        parts: &[&str],
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Failure> {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let (group, version) =
            match parts {
                ["v2"] if accept.contains("spec.v2") => return Ok(answer::typed(200, VERSION_2_PROTOBUF, VERSION_2)),
                ["v2"] => return Ok(answer::json(
                    200,
                    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "unversioned"}, "paths": {}, "definitions": {}})
                        .to_string(),
                )),
                ["v3"] | ["v3", ..] if !accept.is_empty() && !["json", "*/*", "application/*"].iter().any(|form| accept.contains(form)) => {
                    return Err(Failure::new(406, "NotAcceptable", "only application/json is served here"));
                }
                ["v3"] => return Ok(answer::json(200, self.index(kinds))),
                ["v3", "api", version] => ("", *version),
                ["v3", "apis", group, version] => (*group, *version),
                _ => return Err(Failure::no_such_path()),
            };
        let served = kinds.groups().iter().any(|(name, versions)| name == group && versions.iter().any(|each| each == version));
        if !served {
            return Err(Failure::no_such_path());
        }
        let document = self.document(kinds, group, version);
        let (asked, tag) = (query.get("hash"), format!("\"{}\"", document.hash));
        let value = |text: &str| HeaderValue::from_str(text).map_err(Failure::internal);
        if !asked.is_empty() && asked != document.hash {
            let mut moved = answer::json(301, Bytes::new());
            let location = format!("/openapi/{}?hash={}", parts.join("/"), document.hash);
            moved.headers_mut().insert(header::LOCATION, value(&location)?);
            return Ok(moved);
        }
        let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let mut response = if known { answer::json(304, Bytes::new()) } else { answer::json(200, document.json) };
        response.headers_mut().insert(header::ETAG, value(&tag)?);
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        if !asked.is_empty() {
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
        }
        Ok(response)
    }

    fn index(&self, kinds: &Arc<Registry>) -> String {
        let pairs = |(group, versions): (String, Vec<String>)| versions.into_iter().map(move |version| (group.clone(), version));
        let pairs = kinds.groups().into_iter().flat_map(pairs).collect::<Vec<_>>();
        openapi::index(&pairs, &|group, version| self.document(kinds, group, version).hash).to_string()
    }

    fn document(&self, kinds: &Arc<Registry>, group: &str, version: &str) -> Document {
        let mut made = self.0.lock();
        if !made.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, kinds)) {
            made.of = Some(Arc::clone(kinds));
            let custom = |group: &str| kinds.iter().any(|kind| kind.group == group && kind.custom.is_some());
            made.documents.retain(|(group, _), document| !document.custom && !custom(group));
        }
        let key = (group.to_owned(), version.to_owned());
        made.documents.entry(key).or_insert_with(|| make(kinds, group, version)).clone()
    }
}

fn make(kinds: &Registry, group: &str, version: &str) -> Document {
    let here = kinds.iter().filter(|kind| kind.group == group && kind.version == version).map(AsRef::as_ref).collect::<Vec<&Kind>>();
    let words = here.iter().map(|kind| kind.subresources.iter().map(String::as_str).collect::<Vec<_>>()).collect::<Vec<_>>();
    let builtin = here.iter().zip(&words).filter(|(kind, _)| kind.custom.is_none()).map(|(kind, subresources)| KindDoc {
        kind: &kind.kind,
        plural: &kind.plural,
        namespaced: kind.namespaced,
        subresources,
    });
    let builtin = builtin.collect::<Vec<_>>();
    let custom = here.iter().filter_map(|kind| Some((kind, kind.custom.as_ref()?))).map(|(kind, custom)| CrdDoc {
        group,
        version,
        kind: &kind.kind,
        plural: &kind.plural,
        namespaced: kind.namespaced,
        schema: &custom.open_api,
        has_status: kind.has("status"),
        has_scale: kind.has("scale"),
    });
    let custom = custom.collect::<Vec<_>>();
    let json = Bytes::from(openapi::document(group, version, &builtin, &custom).to_string());
    let hash = digest(&SHA256, &json).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    Document { json, hash, custom: !custom.is_empty() }
}

/// Version 2 knows no kinds. `kubectl` asks for it before a `List`, and takes a kind that is not there for one that it need not check.
const VERSION_2: &[u8] = b"\x0a\x032.0\x12\x19\x0a\x0aKubernetes\x12\x0bunversioned";
const VERSION_2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
