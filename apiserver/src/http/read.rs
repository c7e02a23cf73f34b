//! Reading: one object, a list in pages, a watch.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};

use super::answer::{self, Body, Form};
use crate::{
    failure::Failure,
    kinds::Kind,
    path::Query,
    select::{Fields, Labels},
    store::{Event, Since, Store, Stored, Watch},
};

/// Which objects of a kind are asked for, and as what.
#[derive(Debug)]
pub(crate) struct Selection {
    /// The kind, whose version objects are shown in.
    pub kind: Arc<Kind>,
    /// The namespace; empty for all.
    pub namespace: String,
    labels: Labels,
    fields: Fields,
    form: Form,
}

impl Selection {
    /// Reads the selectors of a query.
    pub(crate) fn of(kind: Arc<Kind>, namespace: &str, query: &Query, accept: &str) -> Result<Self, Failure> {
        let labels = Labels::parse(query.get("labelSelector")).map_err(Failure::bad_request)?;
        let fields = Fields::parse(query.get("fieldSelector"), &kind.group, &kind.kind).map_err(Failure::bad_request)?;
        Ok(Self { kind, namespace: namespace.to_owned(), labels, fields, form: Form::of(accept, query) })
    }

    /// Whether an object is one of them.
    pub(crate) fn matches(&self, stored: &Stored) -> bool {
        (self.namespace.is_empty() || *self.namespace == *stored.key.namespace)
            && self.labels.matches(&stored.value)
            && self.fields.matches(&stored.value)
    }

    /// An object as this caller sees it.
    pub(crate) fn show(&self, stored: &Stored) -> Bytes {
        if self.form == Form::Object && stored.value.get("apiVersion").and_then(Value::as_str) == Some(&self.kind.api_version()) {
            return stored.json.clone();
        }
        Bytes::from(self.form.show(&self.kind, &in_version(&self.kind, &stored.value)).to_string())
    }

    /// A list of these objects.
    fn list_of(&self, shown: &[&Arc<Stored>], metadata: &Value) -> Bytes {
        let (kind, version) = match self.form {
            Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
            Form::Object | Form::Table(_) => (format!("{}List", self.kind.kind), self.kind.api_version()),
        };
        let head = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        if matches!(self.form, Form::Table(_)) {
            let mut list = head;
            list["items"] = shown.iter().map(|stored| in_version(&self.kind, &stored.value)).collect();
            return Bytes::from(self.form.show(&self.kind, &list).to_string());
        }
        let mut body = head.to_string().into_bytes();
        body.pop();
        body.extend_from_slice(b",\"items\":[");
        for (at, stored) in shown.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&self.show(stored));
        }
        body.extend_from_slice(b"]}");
        Bytes::from(body)
    }
}

/// The object under the version that the request names: conversion `None` changes nothing else.
pub(crate) fn in_version(kind: &Kind, object: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(kind.api_version());
    object
}

/// A list, or a page of it.
pub(crate) fn list(store: &Store, selection: &Selection, query: &Query) -> Result<Response<Body>, Failure> {
    let kind = &selection.kind;
    let limit = query.get("limit").parse::<usize>().ok().filter(|limit| *limit > 0);
    let page = Page::parse(query.get("continue"))?;
    if page.as_ref().is_some_and(|page| !store.remembers(page.version)) {
        return Err(Failure::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
        ));
    }
    let (now, objects) = store.list(&kind.resource(), &selection.namespace);
    let version = page.as_ref().map_or(now, |page| page.version);
    let after = |stored: &&Arc<Stored>| {
        page.as_ref().is_none_or(|page| (&*stored.key.namespace, &*stored.key.name) > (&*page.namespace, &*page.name))
    };
    let mut matching = objects.iter().filter(after).filter(|stored| selection.matches(stored)).peekable();
    let shown = matching.by_ref().take(limit.unwrap_or(usize::MAX)).collect::<Vec<_>>();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    let left = matching.count();
    if left > 0
        && let Some(last) = shown.last()
    {
        metadata["continue"] = json!(Page { version, namespace: last.key.namespace.to_string(), name: last.key.name.to_string() }.token());
        if query.get("labelSelector").is_empty() && query.get("fieldSelector").is_empty() {
            metadata["remainingItemCount"] = json!(left);
        }
    }
    Ok(answer::json(200, selection.list_of(&shown, &metadata)))
}

/// Where the next page begins. All pages carry the first one's version, so that a watch from there misses nothing.
struct Page {
    version: u64,
    namespace: String,
    name: String,
}

impl Page {
    fn parse(token: &str) -> Result<Option<Self>, Failure> {
        if token.is_empty() {
            return Ok(None);
        }
        let read = || {
            let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
            let text = |at: usize| value.get(at).and_then(Value::as_str).map(str::to_owned);
            Some(Self { version: value.get(0)?.as_u64()?, namespace: text(1)?, name: text(2)? })
        };
        read().map(Some).ok_or_else(|| Failure::bad_request("continue key is not valid"))
    }

    fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!([self.version, self.namespace, self.name]).to_string())
    }
}

/// A watch, as a stream of JSON lines.
pub(crate) fn watch(store: &Arc<Store>, selection: Selection, query: &Query) -> Result<Response<Body>, Failure> {
    let asked = query.get("resourceVersion");
    let initial = query.is("sendInitialEvents");
    let since = match asked {
        "" | "0" => Since::Now,
        _ if initial => Since::Now,
        text => Since::Version(text.parse().map_err(|_| Failure::bad_request(format!("invalid resource version {text:?}")))?),
    };
    let timeout = Duration::from_secs(query.get("timeoutSeconds").parse().unwrap_or(WATCH_SECONDS));
    let mut first = Vec::new();
    let started = match store.watch(&selection.kind.resource(), &selection.namespace, since) {
        Ok(watch) => watch,
        Err(failure) => return Ok(answer::json(200, format!("{}\n", json!({"type": "ERROR", "object": failure.status()})))),
    };
    let Watch { initial: objects, missed, version, receiver } = started;
    first.extend(objects.iter().filter(|stored| selection.matches(stored)).map(|stored| line("ADDED", &selection.show(stored))));
    first.extend(missed.iter().filter_map(|event| event_line(&selection, event)));
    let bookmarks = query.is("allowWatchBookmarks");
    if initial && bookmarks {
        first.push(bookmark(&selection.kind, version, true));
    }
    let first_bookmark = BOOKMARK_EVERY.min(timeout.saturating_sub(BEFORE_THE_END));
    let state = Following {
        store: Arc::clone(store),
        selection,
        receiver,
        first: first.into_iter(),
        bookmarks: bookmarks.then(|| tokio::time::interval_at(tokio::time::Instant::now() + first_bookmark, BOOKMARK_EVERY)),
        ends: Box::pin(tokio::time::sleep(timeout)),
    };
    let lines = stream::unfold(state, |mut state| async move { state.next().await.map(|line| (Ok(Frame::data(line)), state)) });
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

struct Following {
    store: Arc<Store>,
    selection: Selection,
    receiver: tokio::sync::mpsc::Receiver<Event>,
    first: std::vec::IntoIter<Bytes>,
    bookmarks: Option<tokio::time::Interval>,
    ends: std::pin::Pin<Box<tokio::time::Sleep>>,
}

impl Following {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(line) = self.first.next() {
            return Some(line);
        }
        loop {
            tokio::select! {
                biased;
                () = &mut self.ends => return None,
                event = self.receiver.recv() => {
                    if let Some(line) = event_line(&self.selection, &event?) {
                        return Some(line);
                    }
                }
                () = tick(&mut self.bookmarks) => {
                    if let Some(version) = self.store.bookmark(&self.receiver) {
                        return Some(bookmark(&self.selection.kind, version, false));
                    }
                }
            }
        }
    }
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// An object that starts or stops matching a selector is added or deleted for that watcher.
fn event_line(selection: &Selection, event: &Event) -> Option<Bytes> {
    let before = event.before.as_ref().is_some_and(|before| selection.matches(before));
    let after = !event.deleted && selection.matches(&event.after);
    let kind = match (before, after) {
        (false, true) => "ADDED",
        (true, true) => "MODIFIED",
        (true, false) => "DELETED",
        (false, false) => return None,
    };
    Some(line(kind, &selection.show(&event.after)))
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut line = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    Bytes::from(line)
}

fn bookmark(kind: &Kind, version: u64, initial_end: bool) -> Bytes {
    let mut object = json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null}});
    if initial_end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    line("BOOKMARK", object.to_string().as_bytes())
}

/// A watch that is shorter than that gets its bookmark so long before it ends, as from the real server.
const BEFORE_THE_END: Duration = Duration::from_secs(2);
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// How long a watch lasts when the caller does not say.
const WATCH_SECONDS: u64 = 3_000;
