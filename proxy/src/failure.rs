//! Why the proxy itself answers instead of a service, and how: never silently, always with a reason and the next thing to look at.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use mesh_names::Host;
use mesh_topology::{NoRoute, Refused};
use mesh_transport::pool::DialError;
use mesh_transport::session::StreamError;

use crate::body::Body;
use crate::headers::ERROR;
use crate::plain::PlainError;

/// Why a request or connection was not carried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The request names no host, or none that is valid.
    #[error("the request names no host: use an absolute URI, or a Host header with a name of the mesh")]
    NoHost,
    /// The host is not of the mesh, and this is no proxy request.
    #[error("{host} is not a name of the mesh, and the request was not made to an HTTP proxy")]
    NotOurs {
        /// The host.
        host: Host,
    },
    /// It names nothing that may be called.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It goes nowhere.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// No session could be opened, on any way.
    #[error("could not be reached: {}", chain(&**.0))]
    Unreachable(Arc<DialError>),
    /// The stream broke before an answer began.
    #[error("the session broke before an answer came: {}", chain(.0))]
    Broken(StreamError),
    /// The serving side's proxy said no.
    #[error("the serving side refused it: {reason}")]
    Denied {
        /// As what.
        status: StatusCode,
        /// Its reason, a word.
        reason: String,
    },
    /// The application behind the serving proxy does not answer.
    #[error("the application does not accept connections")]
    AppUnreachable,
    /// A host outside the mesh, or an endpoint without a proxy, could not be called.
    #[error("{}", chain(.0))]
    Plain(PlainError),
    /// A host outside the mesh has no address.
    #[error("{host} has no address: {source}")]
    Lookup {
        /// The host.
        host: String,
        /// What the resolver says.
        #[source]
        source: std::io::Error,
    },
    /// The connection was meant for this proxy itself.
    #[error("{0} is this proxy's own address")]
    OwnAddress(SocketAddr),
}

impl Failure {
    /// One word for the header and the metric.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoHost => "no_host",
            Self::NotOurs { .. } => "not_a_mesh_name",
            Self::Refused(refused) => refused.reason(),
            Self::NoRoute(no_route) => no_route.reason(),
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::Denied { .. } => "denied",
            Self::AppUnreachable => "app_unreachable",
            Self::Plain(PlainError::Connect { .. }) => "unreachable",
            Self::Plain(PlainError::Broken(_)) => "broken",
            Self::Lookup { .. } => "lookup",
            Self::OwnAddress(_) => "own_address",
        }
    }

    /// Whether the caller asked for something it cannot have, rather than something having gone wrong.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::NoHost | Self::NotOurs { .. } | Self::Refused(_) | Self::Denied { .. } | Self::OwnAddress(_) => true,
            Self::NoRoute(no_route) => !matches!(no_route, NoRoute::NothingReady { .. }),
            Self::Unreachable(_) | Self::Broken(_) | Self::AppUnreachable | Self::Plain(_) | Self::Lookup { .. } => false,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoHost | Self::NotOurs { .. } | Self::OwnAddress(_) => StatusCode::BAD_REQUEST,
            Self::Refused(Refused::NoRoute(no_route)) | Self::NoRoute(no_route) => match no_route {
                NoRoute::NothingReady { .. } => StatusCode::SERVICE_UNAVAILABLE,
                NoRoute::UnknownService { .. }
                | NoRoute::UnknownCluster { .. }
                | NoRoute::UnknownPort { .. }
                | NoRoute::UnknownEndpoint { .. } => StatusCode::NOT_FOUND,
            },
            Self::Refused(Refused::MalformedName(_)) => StatusCode::NOT_FOUND,
            Self::Refused(Refused::UnknownAddress(_)) => StatusCode::BAD_GATEWAY,
            Self::Denied { status, .. } => *status,
            Self::Unreachable(_) | Self::AppUnreachable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) | Self::Plain(_) | Self::Lookup { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    /// The answer to a request for `host`; a gRPC client gets it as gRPC has it.
    pub(crate) fn response(&self, host: &str, grpc: bool) -> Response<Body> {
        tracing::debug!(host, reason = self.reason(), error = %self, "not carried");
        let mut response = if grpc { self.grpc() } else { self.json(host) };
        response.headers_mut().insert(ERROR, HeaderValue::from_static(self.reason()));
        response
    }

    fn json(&self, host: &str) -> Response<Body> {
        let next = format!("mesh dns query {}", if host.is_empty() { "NAME" } else { host });
        let text = serde_json::json!({ "error": self.reason(), "host": host, "detail": self.to_string(), "next": next });
        let mut response = Response::new(Body::full(format!("{text}\n")));
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    /// A response of trailers only (gRPC over HTTP/2, "Responses").
    fn grpc(&self) -> Response<Body> {
        let mut response = Response::new(Body::default());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(if self.is_refusal() { GRPC_NOT_FOUND } else { GRPC_UNAVAILABLE }));
        let plain: String = self.to_string().chars().filter(|letter| matches!(letter, ' '..='~') && *letter != '%').take(512).collect();
        if let Ok(message) = HeaderValue::try_from(plain) {
            headers.insert("grpc-message", message);
        }
        response
    }
}

/// An error and all its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

const GRPC_NOT_FOUND: &str = "5";
const GRPC_UNAVAILABLE: &str = "14";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_its_reason_and_the_next_command() {
        let failure = Failure::from(NoRoute::UnknownService { service: "shop/nope".parse().unwrap(), place: "the cluster set".into() });
        let response = failure.response("nope.shop.svc.clusterset.local", false);
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()[ERROR], "unknown_service");
        assert!(failure.is_refusal());
    }

    #[test]
    fn a_grpc_client_gets_a_grpc_status() {
        let response = Failure::AppUnreachable.response("x", true);
        assert_eq!((response.status(), &response.headers()["grpc-status"]), (StatusCode::OK, &HeaderValue::from_static("14")));
    }
}
