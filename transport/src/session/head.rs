//! What the heads of requests and responses carry inside a session: the stream's target, its deadline, and nothing that belongs to one
//! HTTP/1 connection.
//!
//! Headers under `isthmus-` are ours alone: what a client sends under that prefix never enters a session, and what a session carries
//! there never reaches an application.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, Version, request};
use mesh_names::{AppPort, ClusterId, ParseError, ServiceId, ServicePort};

/// What a stream is for. A caller of another trust domain names an export, never a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StreamTarget {
    /// `port/8080`: a port of the workload.
    Port(AppPort),
    /// `export/<cluster-id>/<namespace>/<service>/<port>`: an exported service.
    Export {
        /// The cluster that exports it.
        cluster: ClusterId,
        /// The service there.
        service: ServiceId,
        /// The service's port.
        port: ServicePort,
    },
}

impl fmt::Display for StreamTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port/{port}"),
            Self::Export { cluster, service, port } => {
                write!(f, "export/{cluster}/{}/{}/{port}", service.namespace(), service.name())
            }
        }
    }
}

impl FromStr for StreamTarget {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("port"), Some(port), None, ..) => Ok(Self::Port(port.parse()?)),
            (Some("export"), Some(cluster), Some(namespace), Some(service), Some(port), None) => {
                Ok(Self::Export { cluster: cluster.parse()?, service: ServiceId::parse(namespace, service)?, port: port.parse()? })
            }
            _ => Err(ParseError::new("stream target", text, "it is neither port/… nor export/…/…/…/…")),
        }
    }
}

impl StreamTarget {
    /// Its header value.
    #[must_use]
    #[expect(clippy::expect_used, reason = "names consist of characters that headers allow")]
    pub fn to_header(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("names are visible ASCII")
    }

    /// The one target that `headers` name; none when there is none, several, or one that is not valid.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::read(target_value(headers)?)
    }

    pub(super) fn read(value: &HeaderValue) -> Option<Self> {
        value.to_str().ok()?.parse().ok()
    }
}

/// The one value that names the stream's target; none when there is none or several.
pub(super) fn target_value(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut values = headers.get_all(TARGET).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// How long the caller still waits, when it says so.
#[must_use]
pub fn deadline(headers: &HeaderMap) -> Option<Duration> {
    headers.get(DEADLINE)?.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// Tells the serving side how long the caller still waits.
pub fn set_deadline(headers: &mut HeaderMap, left: Duration) {
    headers.insert(DEADLINE, HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
}

/// Removes every header that only the mesh may set.
pub fn strip_own(headers: &mut HeaderMap) {
    let is_own = |name: &&HeaderName| name.as_str().starts_with(PREFIX);
    if headers.keys().any(|name| is_own(&name)) {
        let own: Vec<HeaderName> = headers.keys().filter(is_own).cloned().collect();
        for name in own {
            headers.remove(name);
        }
    }
}

/// Removes what belongs to one HTTP/1 connection (RFC 9110, 7.6.1), which HTTP/2 forbids.
pub fn strip_hop(headers: &mut HeaderMap) {
    // Looking at each name once costs less than looking eight names up, and mostly there is nothing to remove.
    if !headers.keys().any(is_hop) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
    for name in [TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, KEEP_ALIVE, PROXY_CONNECTION] {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| te.as_bytes() != b"trailers") {
        headers.remove(TE);
    }
}

fn is_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "keep-alive"
            | "proxy-connection"
            | "te"
    )
}

/// Makes a request's head fit for a session: authority from `Host`, the target set, nothing of HTTP/1 or of ours that the client sent.
pub(super) fn enter(parts: &mut request::Parts, target: HeaderValue) {
    let left = deadline(&parts.headers);
    strip_own(&mut parts.headers);
    strip_hop(&mut parts.headers);
    let host = parts.headers.remove(HOST);
    let authority = parts
        .uri
        .authority()
        .cloned()
        .or_else(|| host.and_then(|host| Authority::try_from(host.as_bytes()).ok()))
        .unwrap_or_else(|| Authority::from_static(NOBODY));
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    uri.path_and_query = Some(path);
    // A scheme, an authority and a path are all that a URI needs.
    parts.uri = Uri::from_parts(uri).unwrap_or_else(|_| Uri::from_static("http://isthmus.invalid/"));
    parts.version = Version::HTTP_2;
    parts.headers.insert(TARGET, target);
    if let Some(left) = left {
        set_deadline(&mut parts.headers, left);
    }
}

/// Names the stream's target.
pub const TARGET: HeaderName = HeaderName::from_static("isthmus-target");

/// How many milliseconds the caller still waits. A proxy sets it with [`set_deadline`] after it has stripped its client's.
pub const DEADLINE: HeaderName = HeaderName::from_static("isthmus-deadline-ms");

/// Why a stream was refused by the mesh and not by an application: a constant of the code.
pub const REFUSED: HeaderName = HeaderName::from_static("isthmus-refused");

const PREFIX: &str = "isthmus-";
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The authority of a request that names none.
const NOBODY: &str = "isthmus.invalid";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_reads_back_what_it_prints_and_nothing_else_is_one() {
        for text in ["port/8080", "export/0b9e-aa/shop/web/80"] {
            assert_eq!(text.parse::<StreamTarget>().unwrap().to_string(), text);
        }
        for bad in
            ["", "port", "port/", "port/0", "port/1/2", "export/c/n/s", "export/c/n/s/80/x", "export//n/s/80", "http://x", "port/8080 "]
        {
            assert!(bad.parse::<StreamTarget>().is_err(), "{bad}");
        }
    }

    #[test]
    fn two_targets_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(TARGET, HeaderValue::from_static("port/80"));
        assert!(StreamTarget::of(&headers).is_some());
        headers.append(TARGET, HeaderValue::from_static("port/81"));
        assert!(StreamTarget::of(&headers).is_none());
    }

    #[test]
    fn a_request_enters_a_session_without_what_its_client_may_not_say() {
        let (mut parts, ()) = http::Request::get("/a?b=c")
            .header("host", "web.shop")
            .header("connection", "close, x-once")
            .header("connection", "x-twice")
            .header("x-once", "1")
            .header("x-twice", "1")
            .header("keep-alive", "5")
            .header("te", "gzip")
            .header("isthmus-target", "port/22")
            .header("isthmus-anything", "1")
            .header("accept", "*/*")
            .body(())
            .unwrap()
            .into_parts();
        enter(&mut parts, "port/80".parse::<StreamTarget>().unwrap().to_header());
        assert_eq!(parts.uri, "http://web.shop/a?b=c");
        let mut names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "isthmus-target"]);
        assert_eq!(parts.headers[TARGET], "port/80");
    }
}
