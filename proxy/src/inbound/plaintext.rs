//! What is let in without an identity: everything, or only what the kubelet asks the pod's containers. Pure.

use http::{Method, Request};
use mesh_api::inject::{Inbound, Probe};
use mesh_names::AppPort;

/// What this workload says of plaintext.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plaintext {
    /// What becomes of it.
    pub policy: Inbound,
    /// What the kubelet asks.
    pub probes: Vec<Probe>,
}

/// What may come to one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// Everything.
    Everything,
    /// Only these questions.
    Only(Vec<Probe>),
    /// Nothing.
    Nothing,
}

impl Plaintext {
    /// What may come to `port`.
    pub(crate) fn admits(&self, port: AppPort) -> Admitted {
        if self.policy == Inbound::Permissive {
            return Admitted::Everything;
        }
        let asked: Vec<Probe> = self.probes.iter().filter(|probe| probe.port() == port.get()).cloned().collect();
        if asked.is_empty() { Admitted::Nothing } else { Admitted::Only(asked) }
    }
}

/// Whether a request is one of these questions: the kubelet asks by GET, or by POST where it asks gRPC, and never wants an upgrade.
pub(super) fn is_asked<B>(request: &Request<B>, probes: &[Probe]) -> bool {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let method = matches!(*request.method(), Method::GET | Method::POST);
    method && !request.headers().contains_key(http::header::UPGRADE) && probes.iter().any(|probe| probe.path() == path)
}

/// Why a plain connection or request is refused, as a metric label.
pub(super) const REFUSED: &str = "plaintext";

#[cfg(test)]
mod tests {
    use super::*;

    fn strict() -> Plaintext {
        Plaintext {
            policy: Inbound::Strict,
            probes: vec!["8080/healthz".parse().unwrap(), "9000/grpc.health.v1.Health/Check".parse().unwrap()],
        }
    }

    #[test]
    fn who_is_strict_admits_only_what_the_kubelet_asks() {
        let port = |number: u16| AppPort::try_from(number).unwrap();
        assert_eq!(Plaintext::default().admits(port(8080)), Admitted::Everything);
        assert_eq!(strict().admits(port(8080)), Admitted::Only(vec!["8080/healthz".parse().unwrap()]));
        assert_eq!(strict().admits(port(8081)), Admitted::Nothing);
    }

    #[test]
    fn a_question_is_one_path_to_the_letter() {
        let check = |method: &str, path: &str, upgrade: bool| {
            let mut request = Request::builder().method(method).uri(path);
            if upgrade {
                request = request.header("upgrade", "websocket");
            }
            is_asked(&request.body(()).unwrap(), &strict().probes)
        };
        assert!(check("GET", "/healthz", false) && check("POST", "/grpc.health.v1.Health/Check", false));
        for other in ["/", "/healthz/", "/healthz?x", "//healthz", "/healthz/../admin", "/HEALTHZ", "/%68ealthz", "http://x/admin"] {
            assert!(!check("GET", other, false), "{other}");
        }
        assert!(!check("DELETE", "/healthz", false) && !check("GET", "/healthz", true));
    }
}
