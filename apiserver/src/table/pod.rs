//! The row of a pod: what the phase, the conditions and the containers' states come to in one word. Pure.
//!
//! Follows `printPod` of Kubernetes case by case, init containers that go on running (native sidecars) included.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, list, name, number, or_none, text};
use super::since;

/// The cells of a pod.
pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let containers =
        list(pod, "spec.containers").len() + list(pod, "spec.initContainers").iter().filter(|each| restarts_always(each)).count();
    let restarts = match &summary.last_restart {
        Some(last) if summary.restarts != 0 => format!("{} ({} ago)", summary.restarts, since(last, now)),
        _ => summary.restarts.to_string(),
    };
    let address = list(pod, "status.podIPs").first().map_or_else(|| text(pod, "status.podIP"), |first| text(first, "ip"));
    vec![
        name(pod),
        format!("{}/{containers}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, now),
        or_none(address),
        or_none(text(pod, "spec.nodeName")),
        or_none(text(pod, "status.nominatedNodeName")),
        readiness_gates(pod),
    ]
}

/// Marks a row whose pod has ended, so that a client may hide it.
pub(super) fn conditions(pod: &Value) -> Value {
    match text(pod, "status.phase") {
        "Succeeded" => {
            json!([{"type": "Completed", "status": "True", "reason": "Succeeded", "message": "The pod has completed successfully."}])
        }
        "Failed" => json!([{"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}]),
        _ => Value::Null,
    }
}

struct Summary {
    reason: String,
    ready: usize,
    restarts: i64,
    last_restart: Option<String>,
}

impl Summary {
    fn count_restarts(&mut self, status: &Value) {
        self.restarts = self.restarts.saturating_add(number(status, "restartCount"));
        let ended = text(status, "lastState.terminated.finishedAt");
        if !ended.is_empty() && self.last_restart.as_deref().is_none_or(|last| last < ended) {
            self.last_restart = Some(ended.to_owned());
        }
    }
}

fn summarize(pod: &Value) -> Summary {
    let reason = [text(pod, "status.reason"), text(pod, "status.phase")].into_iter().find(|each| !each.is_empty()).unwrap_or_default();
    let mut summary = Summary { reason: reason.to_owned(), ready: 0, restarts: 0, last_restart: None };
    if list(pod, "status.conditions").iter().any(|each| text(each, "type") == "PodScheduled" && text(each, "reason") == "SchedulingGated") {
        summary.reason = "SchedulingGated".to_owned();
    }
    let mut of_sidecars = Summary { reason: String::new(), ready: 0, restarts: 0, last_restart: None };
    let initializing = init_containers(pod, &mut summary, &mut of_sidecars);
    if !initializing || has_condition(pod, "Initialized") {
        summary.restarts = of_sidecars.restarts;
        summary.last_restart = of_sidecars.last_restart;
        containers(pod, &mut summary);
    }
    if !text(pod, "metadata.deletionTimestamp").is_empty() {
        if text(pod, "status.reason") == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(text(pod, "status.phase"), "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

/// Goes through the init containers up to the first that is not done; says whether there is one.
fn init_containers(pod: &Value, summary: &mut Summary, of_sidecars: &mut Summary) -> bool {
    let specs = list(pod, "spec.initContainers");
    for (index, status) in list(pod, "status.initContainerStatuses").iter().enumerate() {
        let sidecar = specs.iter().any(|spec| text(spec, "name") == text(status, "name") && restarts_always(spec));
        summary.count_restarts(status);
        if sidecar {
            of_sidecars.count_restarts(status);
        }
        let terminated = status.get("state").and_then(|state| state.get("terminated")).filter(|found| found.is_object());
        let waiting = text(status, "state.waiting.reason");
        summary.reason = match terminated {
            Some(ended) if number(ended, "exitCode") == 0 => continue,
            _ if sidecar && flag(status, "started") => {
                summary.ready += usize::from(flag(status, "ready"));
                continue;
            }
            Some(ended) => format!("Init:{}", why_ended(ended)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", specs.len()),
        };
        return true;
    }
    false
}

fn containers(pod: &Value, summary: &mut Summary) {
    let (mut running, mut failed) = (false, None);
    for status in list(pod, "status.containerStatuses").iter().rev() {
        summary.count_restarts(status);
        let state = |name: &str| status.get("state").and_then(|state| state.get(name)).filter(|found| found.is_object());
        let waiting = text(status, "state.waiting.reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.reason);
        } else if let Some(ended) = state("terminated") {
            summary.reason = why_ended(ended);
            if number(ended, "exitCode") != 0 {
                failed = Some(summary.reason.clone());
            }
        } else if flag(status, "ready") && state("running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" {
        if running && has_condition(pod, "Ready") {
            summary.reason = "Running".to_owned();
        } else if let Some(failed) = failed {
            summary.reason = failed;
        } else if running {
            summary.reason = "NotReady".to_owned();
        }
    }
}

fn why_ended(terminated: &Value) -> String {
    match (text(terminated, "reason"), number(terminated, "signal"), number(terminated, "exitCode")) {
        ("", 0, code) => format!("ExitCode:{code}"),
        ("", signal, _) => format!("Signal:{signal}"),
        (reason, ..) => reason.to_owned(),
    }
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|gate| has_condition(pod, text(gate, "conditionType"))).count();
    format!("{open}/{}", gates.len()).into()
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    list(pod, "status.conditions").iter().any(|each| text(each, "type") == kind && text(each, "status") == "True")
}

fn restarts_always(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::check;
    use super::*;

    fn pod(spec: Value, status: Value) -> Value {
        json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T11:57:00Z"}, "spec": spec, "status": status})
    }

    #[test]
    fn a_running_pod_shows_where_it_runs() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "proxy", "restartPolicy": "Always"}], "nodeName": "n1",
            "readinessGates": [{"conditionType": "x"}]});
        let status = json!({"phase": "Running", "podIPs": [{"ip": "127.1.64.2"}],
            "initContainerStatuses": [{"name": "proxy", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
                "lastState": {"terminated": {"finishedAt": "2026-01-01T11:59:00Z"}}}]});
        check("", "Pod", pod(spec, status), "web|2/2|Running|3 (60s ago)|3m|127.1.64.2|n1|<none>|0/1");
    }

    #[test]
    fn a_pod_in_trouble_says_which() {
        let one = json!({"containers": [{"name": "a"}]});
        let container = |state: Value| json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 0, "state": state}]});
        let shown = |reason: &str| format!("web|0/1|{reason}|0|3m|<none>|<none>|<none>|<none>");
        check("", "Pod", pod(one.clone(), json!({"phase": "Pending"})), &shown("Pending"));
        check("", "Pod", pod(one.clone(), container(json!({"waiting": {"reason": "CrashLoopBackOff"}}))), &shown("CrashLoopBackOff"));
        check("", "Pod", pod(one.clone(), container(json!({"terminated": {"exitCode": 2}}))), &shown("ExitCode:2"));
        check("", "Pod", pod(one.clone(), container(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}))), &shown("Completed"));
        check("", "Pod", pod(one.clone(), json!({"phase": "Failed", "reason": "Evicted"})), &shown("Evicted"));
        let init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let done = json!({"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}});
        let initializing =
            json!({"phase": "Pending", "initContainerStatuses": [done, {"name": "j", "restartCount": 0, "state": {"running": {}}}]});
        check("", "Pod", pod(init, initializing), &shown("Init:1/2"));
        let mut deleted = pod(one, json!({"phase": "Running"}));
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T11:59:00Z");
        check("", "Pod", deleted, &shown("Terminating"));
    }

    #[test]
    fn a_finished_pod_is_marked() {
        assert_eq!(conditions(&json!({"status": {"phase": "Succeeded"}}))[0]["reason"], "Succeeded");
        assert!(conditions(&json!({"status": {"phase": "Running"}})).is_null());
    }
}
