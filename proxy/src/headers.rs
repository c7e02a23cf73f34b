//! Headers that no client may set: whoever reads them takes them for the word of a proxy.
//!
//! Names are compared without case and with `_` as `-`, because some servers read `X_Mesh_Peer` as `x-mesh-peer`.

use http::header::{EXPECT, HeaderMap, HeaderName, HeaderValue};

/// The verified caller's SPIFFE id, set by the inbound proxy.
pub(crate) const PEER: HeaderName = HeaderName::from_static("x-mesh-peer");

/// Why the mesh itself answered instead of a service: a constant of the code.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("x-mesh-error");

/// Removes what only proxies may say about a request.
pub(crate) fn strip_claims(headers: &mut HeaderMap) {
    if headers.keys().any(is_claim) {
        let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
    }
    // The proxy itself asks for the body; the next hop must not wait to be asked.
    if headers.keys().any(|name| *name == EXPECT) {
        headers.remove(EXPECT);
    }
}

/// The header value for a caller's id.
pub(crate) fn peer_value(id: &mesh_names::SpiffeId) -> Option<HeaderValue> {
    HeaderValue::from_str(id.as_str()).ok()
}

fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    // Most names are told apart by their first letter.
    if !matches!(name.first(), Some(b'x' | b'i' | b'l' | b'f')) {
        return false;
    }
    PREFIXES.iter().any(|prefix| name.len() >= prefix.len() && same(&name[..prefix.len()], prefix))
        || NAMES.iter().any(|claim| same(name, claim))
}

/// Header names are lower-case already; `_` counts as `-`.
fn same(name: &[u8], claim: &str) -> bool {
    name.len() == claim.len() && name.iter().zip(claim.bytes()).all(|(byte, of)| *byte == of || (*byte == b'_' && of == b'-'))
}

const PREFIXES: [&str; 4] = ["x-mesh-", "isthmus-", "l5d-", "x-envoy-"];
const NAMES: [&str; 2] = ["x-forwarded-client-cert", "forwarded"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_proxy_may_say_is_removed_in_every_spelling() {
        let mut headers = HeaderMap::new();
        let claims = [
            "X-Mesh-Peer",
            "x_mesh_peer",
            "x-Mesh_peer",
            "isthmus-target",
            "L5D-Client-Id",
            "x-forwarded-client-cert",
            "X_Forwarded_Client_Cert",
            "Forwarded",
            "x-envoy-original-path",
            "x_envoy-anything",
        ];
        for claim in claims.iter().chain(&["x-meshy", "accept", "x-forwarded-for", "x_mesher"]) {
            headers.append(HeaderName::from_bytes(claim.as_bytes()).unwrap(), HeaderValue::from_static("1"));
        }
        headers.append("x-mesh-peer", HeaderValue::from_static("a second one"));
        strip_claims(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-forwarded-for", "x-meshy", "x_mesher"]);
    }
}
