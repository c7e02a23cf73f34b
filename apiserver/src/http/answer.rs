//! Answers: JSON bodies, streams, and the forms that `Accept` may ask for.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

use crate::failure::Failure;

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer with a JSON body.
pub fn json(code: u16, body: impl Into<Bytes>) -> Response<Body> {
    typed(code, "application/json", body)
}

/// An answer with a body of some type.
pub fn typed(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

/// The answer to a refused request.
pub fn failure(failure: &Failure) -> Response<Body> {
    json(failure.code, failure.status().to_string())
}

/// What the caller wants objects as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Whole objects.
    Object,
    /// Only metadata.
    Metadata,
}

impl Form {
    /// Reads an `Accept` header: the first form in it that we have.
    pub fn of(accept: &str) -> Self {
        let metadata = |each: &str| each.contains("as=PartialObjectMetadata");
        if accept.split(',').next().is_some_and(metadata) { Self::Metadata } else { Self::Object }
    }

    /// An object in this form.
    pub fn object(self, object: &Value) -> Value {
        match self {
            Self::Object => object.clone(),
            Self::Metadata => {
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object.get("metadata").cloned().unwrap_or_default()})
            }
        }
    }
}
