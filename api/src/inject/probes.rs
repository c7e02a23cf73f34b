//! The questions that the kubelet asks a pod's containers: an inbound proxy that refuses plaintext answers these all the same.
//!
//! A question is a port with a path, or a port's gRPC health service, so that what is let in is exactly what the pod's own specification
//! says. HTTPS is the application's own affair and not among them: the proxy can't see what is asked.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use mesh_names::ParseError;
use serde_json::Value;

/// One question of the kubelet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    port: NonZeroU16,
    path: String,
}

impl Probe {
    /// The port that is asked.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// The path, query included, that is asked for.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    fn new(port: NonZeroU16, path: &str) -> Option<Self> {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        // What else stands in a path is escaped by who asks, and then is another path.
        let visible = path.len() <= PATH_MAX && path.bytes().all(|byte| byte.is_ascii_graphic());
        visible.then_some(Self { port, path })
    }
}

impl FromStr for Probe {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (port, path) = text.split_once('/')?;
            Self::new(port.parse().ok()?, &format!("/{path}"))
        };
        parse().ok_or_else(|| ParseError::new("probe", text, "it is a port and a path, such as 8080/healthz"))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.port, self.path)
    }
}

/// Every question that a pod's specification has the kubelet ask, in order and each once.
pub(super) fn of(spec: &Value) -> Vec<Probe> {
    let mut probes: Vec<Probe> = super::containers(spec).flat_map(of_container).collect();
    probes.sort();
    probes.dedup();
    probes
}

fn of_container(container: &Value) -> impl Iterator<Item = Probe> {
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].into_iter().map(|name| &container[name]);
    let hooks = ["postStart", "preStop"].into_iter().map(|name| &container["lifecycle"][name]);
    probes.chain(hooks).filter_map(|asked| of_one(container, asked))
}

fn of_one(container: &Value, asked: &Value) -> Option<Probe> {
    if let Some(port) = asked["grpc"]["port"].as_u64() {
        return Probe::new(NonZeroU16::new(port.try_into().ok()?)?, GRPC_HEALTH);
    }
    let http = asked["httpGet"].as_object()?;
    if http.get("scheme").and_then(Value::as_str).is_some_and(|scheme| scheme != "HTTP") {
        return None;
    }
    let path = http.get("path").and_then(Value::as_str).unwrap_or_default();
    Probe::new(number(container, http.get("port")?)?, path)
}

/// A port's number, which may be given by its name.
fn number(container: &Value, port: &Value) -> Option<NonZeroU16> {
    let number = match port {
        Value::String(name) => {
            let named = container["ports"].as_array()?.iter().find(|one| one["name"] == name.as_str());
            named.and_then(|one| one["containerPort"].as_u64()).or_else(|| name.parse().ok())?
        }
        other => other.as_u64()?,
    };
    NonZeroU16::new(number.try_into().ok()?)
}

/// What the kubelet's gRPC probe calls.
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/Check";
const PATH_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_question_of_the_kubelet_is_found_by_number_and_path() {
        let spec = json!({
            "initContainers": [{ "name": "side", "restartPolicy": "Always", "startupProbe": { "httpGet": { "port": 15, "path": "up" } } }],
            "containers": [{
                "name": "web",
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "livenessProbe": { "httpGet": { "port": "http", "path": "/live?full=1" } },
                "readinessProbe": { "httpGet": { "port": 8080 } },
                "startupProbe": { "grpc": { "port": 9000 } },
                "lifecycle": { "preStop": { "httpGet": { "port": "http", "path": "/stop" } } },
            }, {
                "name": "other",
                "livenessProbe": { "tcpSocket": { "port": 5432 } },
                "readinessProbe": { "httpGet": { "port": 8443, "scheme": "HTTPS" } },
                "startupProbe": { "httpGet": { "port": "nobody", "path": "/a b" } },
            }],
        });
        let found: Vec<String> = of(&spec).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["15/up", "8080/", "8080/live?full=1", "8080/stop", "9000/grpc.health.v1.Health/Check"]);
        for text in &found {
            assert_eq!(text.parse::<Probe>().unwrap().to_string(), *text);
        }
    }

    #[test]
    fn what_is_no_port_and_path_is_refused() {
        for bad in ["", "8080", "/x", "0/x", "70000/x", "8080/a b", "8080/a\nb", "x/y"] {
            assert!(bad.parse::<Probe>().is_err(), "{bad:?}");
        }
    }
}
