//! Answers: JSON bodies, streams, and the forms that `Accept` may ask for.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

use crate::{
    failure::Failure,
    kinds::Kind,
    path::Query,
    table::{IncludeObject, table},
};

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer with a JSON body.
pub(crate) fn json(code: u16, body: impl Into<Bytes>) -> Response<Body> {
    typed(code, "application/json", body)
}

/// An answer with a body of some type.
pub(crate) fn typed(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

/// The answer to a refused request.
pub(crate) fn failure(failure: &Failure) -> Response<Body> {
    json(failure.code, failure.status().to_string())
}

/// The answer with warnings, which `kubectl` prints.
pub(crate) fn warned(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = http::HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
    response
}

/// What the caller wants objects as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Whole objects.
    Object,
    /// Only metadata.
    Metadata,
    /// Rows, as `kubectl get` prints them.
    Table(IncludeObject),
}

impl Form {
    /// Reads an `Accept` header: the first form in it that we have.
    pub(crate) fn of(accept: &str, query: &Query) -> Self {
        let first = accept.split(',').map(str::trim).find(|each| each.starts_with("application/json") || each.starts_with("*/*"));
        let first = first.unwrap_or_default();
        let include = match query.get("includeObject") {
            "None" => IncludeObject::None,
            "Object" => IncludeObject::Object,
            _ => IncludeObject::Metadata,
        };
        if first.contains("as=Table") {
            Self::Table(include)
        } else if first.contains("as=PartialObjectMetadata") {
            Self::Metadata
        } else {
            Self::Object
        }
    }

    /// An object, or a list when a table is wanted, in this form.
    pub(crate) fn show(self, kind: &Kind, object: &Value) -> Value {
        match self {
            Self::Object => object.clone(),
            Self::Metadata => {
                let metadata = object.get("metadata").cloned().unwrap_or_default();
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})
            }
            Self::Table(include) => {
                let columns = kind.custom.as_ref().map(|custom| custom.columns.as_deref().unwrap_or_default());
                table(&kind.group, &kind.kind, columns, object, jiff::Timestamp::now(), include)
            }
        }
    }
}
