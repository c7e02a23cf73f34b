//! Columns and cells of the built-in kinds, as `pkg/printers/internalversion` of Kubernetes has them. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{
    age, at, binding, budget, cluster_ip, completions, controller, endpoints, event, external_ip, job_duration, job_status, kernel, labels,
    list, name, node_address, node_roles, node_status, number, optional_age, or_none, or_unknown, ready, selector, service_ports, size,
    slice_addresses, slice_ports, suspended, templates, text,
};
use super::pod;

/// How a kind is shown.
pub(super) struct Printer {
    pub(super) columns: &'static [Column],
    pub(super) cells: fn(&Value, Timestamp) -> Vec<Value>,
    pub(super) conditions: Option<fn(&Value) -> Value>,
}

/// One column; priority 1 is shown by `-o wide` only.
pub(super) struct Column {
    name: &'static str,
    kind: &'static str,
    priority: u8,
}

impl Column {
    /// The column as a table describes it.
    pub(super) fn definition(&self) -> Value {
        let (format, description) = match self.name {
            "Name" => ("name", NAMED),
            "Age" | "Created At" => ("", CREATED),
            _ => ("", ""),
        };
        json!({"name": self.name, "type": self.kind, "format": format, "description": description, "priority": self.priority})
    }
}

/// The printer of a kind, if it has its own.
pub(super) fn printer(group: &str, kind: &str) -> Option<&'static Printer> {
    if (group, kind) == ("", "Pod") {
        return Some(&POD);
    }
    PRINTERS.iter().find(|(each_group, each_kind, _)| *each_group == group && *each_kind == kind).map(|(_, _, printer)| printer)
}

/// The first column of nearly every table.
pub(super) const NAME: Column = text_column("Name");
const AGE: Column = text_column("Age");

const NAMED: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to \
     request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration \
     definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
/// What a creation time is.
pub(super) const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be \
     set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.";

const fn text_column(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 0 }
}

const fn count_column(name: &'static str) -> Column {
    Column { name, kind: "integer", priority: 0 }
}

const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 1 }
}

macro_rules! printers {
    ($($group:literal $kind:literal [$($column:expr),* $(,)?] |$object:ident, $now:ident| $cells:expr;)*) => {
        &[$(($group, $kind, Printer { columns: &[$($column),*], cells: |$object, $now| $cells, conditions: None })),*]
    };
}

/// The pod's printer; its cells have a file of their own.
static POD: Printer = Printer {
    columns: &[
        NAME,
        text_column("Ready"),
        text_column("Status"),
        text_column("Restarts"),
        AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    cells: pod::cells,
    conditions: Some(pod::conditions),
};

/// Every other kind with columns of its own.
pub(super) static PRINTERS: &[(&str, &str, Printer)] = printers! {
    "apps" "Deployment" [NAME, text_column("Ready"), text_column("Up-to-date"), text_column("Available"), AGE, wide("Containers"), wide("Images"),
        wide("Selector")] |object, now| [
            vec![name(object), ready(object), number(object, "status.updatedReplicas").into(), number(object, "status.availableReplicas").into(),
                age(object, now)],
            templates(object, "spec.template"), vec![selector(object, "spec.selector", "")],
        ].concat();
    "apps" "ReplicaSet" [NAME, count_column("Desired"), count_column("Current"), count_column("Ready"), AGE, wide("Containers"), wide("Images"),
        wide("Selector")] |object, now| [
            vec![name(object), number(object, "spec.replicas").into(), number(object, "status.replicas").into(),
                number(object, "status.readyReplicas").into(), age(object, now)],
            templates(object, "spec.template"), vec![selector(object, "spec.selector", "<none>")],
        ].concat();
    "apps" "StatefulSet" [NAME, text_column("Ready"), AGE, wide("Containers"), wide("Images")] |object, now|
        [vec![name(object), ready(object), age(object, now)], templates(object, "spec.template")].concat();
    "apps" "DaemonSet" [NAME, count_column("Desired"), count_column("Current"), count_column("Ready"), count_column("Up-to-date"),
        count_column("Available"), text_column("Node Selector"), AGE, wide("Containers"), wide("Images"), wide("Selector")] |object, now| [
            vec![name(object)],
            ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"]
                .map(|field| number(&object["status"], field).into()).to_vec(),
            vec![labels(at(object, "spec.template.spec.nodeSelector")), age(object, now)],
            templates(object, "spec.template"), vec![selector(object, "spec.selector", "<none>")],
        ].concat();
    "apps" "ControllerRevision" [NAME, text_column("Controller"), text_column("Revision"), AGE] |object, now|
        vec![name(object), controller(object), number(object, "revision").into(), age(object, now)];
    "batch" "Job" [NAME, text_column("Status"), text_column("Completions"), text_column("Duration"), AGE, wide("Containers"), wide("Images"),
        wide("Selector")] |object, now| [
            vec![name(object), job_status(object), completions(object), job_duration(object, now), age(object, now)],
            templates(object, "spec.template"), vec![selector(object, "spec.selector", "<none>")],
        ].concat();
    "batch" "CronJob" [NAME, text_column("Schedule"), text_column("Timezone"), Column { name: "Suspend", kind: "boolean", priority: 0 },
        count_column("Active"), text_column("Last Schedule"), AGE, wide("Containers"), wide("Images"), wide("Selector")] |object, now| [
            vec![name(object), text(object, "spec.schedule").into(), or_none(text(object, "spec.timeZone")), suspended(object),
                list(object, "status.active").len().into(), or_none(&optional_age(object, "status.lastScheduleTime", now)), age(object, now)],
            templates(object, "spec.jobTemplate.spec.template"), vec![selector(object, "spec.jobTemplate.spec.selector", "<none>")],
        ].concat();
    "" "Service" [NAME, text_column("Type"), text_column("Cluster-IP"), text_column("External-IP"), text_column("Port(s)"), AGE, wide("Selector")]
        |object, now| vec![name(object), text(object, "spec.type").into(), or_none(cluster_ip(object)), external_ip(object), service_ports(object),
            age(object, now), labels(at(object, "spec.selector"))];
    "" "Endpoints" [NAME, text_column("Endpoints"), AGE] |object, now| vec![name(object), endpoints(object), age(object, now)];
    "discovery.k8s.io" "EndpointSlice" [NAME, text_column("AddressType"), text_column("Ports"), text_column("Endpoints"), AGE] |object, now|
        vec![name(object), text(object, "addressType").into(), slice_ports(object), slice_addresses(object), age(object, now)];
    "" "Namespace" [NAME, text_column("Status"), AGE] |object, now| vec![name(object), text(object, "status.phase").into(), age(object, now)];
    "" "Node" [NAME, text_column("Status"), text_column("Roles"), AGE, text_column("Version"), wide("Internal-IP"), wide("External-IP"),
        wide("OS-Image"), wide("Kernel-Version"), wide("Container-Runtime")] |object, now|
        vec![name(object), node_status(object), node_roles(object), age(object, now), text(object, "status.nodeInfo.kubeletVersion").into(),
            node_address(object, "InternalIP"), node_address(object, "ExternalIP"), or_unknown(text(object, "status.nodeInfo.osImage")),
            kernel(object), or_unknown(text(object, "status.nodeInfo.containerRuntimeVersion"))];
    "" "ConfigMap" [NAME, text_column("Data"), AGE] |object, now|
        vec![name(object), (size(object, "data") + size(object, "binaryData")).into(), age(object, now)];
    "" "Secret" [NAME, text_column("Type"), text_column("Data"), AGE] |object, now|
        vec![name(object), text(object, "type").into(), size(object, "data").into(), age(object, now)];
    "" "ServiceAccount" [NAME, AGE] |object, now| vec![name(object), age(object, now)];
    "" "Event" [text_column("Last Seen"), text_column("Type"), text_column("Reason"), text_column("Object"), wide("Subobject"), wide("Source"),
        text_column("Message"), wide("First Seen"), wide("Count"), wide("Name")] |object, now| event(object, "involvedObject", now);
    "events.k8s.io" "Event" [text_column("Last Seen"), text_column("Type"), text_column("Reason"), text_column("Object"), wide("Subobject"),
        wide("Source"), text_column("Message"), wide("First Seen"), wide("Count"), wide("Name")] |object, now| event(object, "regarding", now);
    "coordination.k8s.io" "Lease" [NAME, text_column("Holder"), AGE] |object, now|
        vec![name(object), text(object, "spec.holderIdentity").into(), age(object, now)];
    "apiextensions.k8s.io" "CustomResourceDefinition" [NAME, Column { name: "Created At", kind: "date", priority: 0 }] |object, _now|
        vec![name(object), text(object, "metadata.creationTimestamp").into()];
    "policy" "PodDisruptionBudget" [NAME, text_column("Min Available"), text_column("Max Unavailable"), count_column("Allowed Disruptions"), AGE]
        |object, now| vec![name(object), budget(object, "minAvailable"), budget(object, "maxUnavailable"),
            number(object, "status.disruptionsAllowed").into(), age(object, now)];
    "networking.k8s.io" "NetworkPolicy" [NAME, text_column("Pod-Selector"), AGE] |object, now|
        vec![name(object), selector(object, "spec.podSelector", "<none>"), age(object, now)];
    "networking.k8s.io" "IngressClass" [NAME, text_column("Controller"), text_column("Parameters"), AGE] |object, now|
        vec![name(object), text(object, "spec.controller").into(), or_none(text(object, "spec.parameters.name")), age(object, now)];
    "rbac.authorization.k8s.io" "Role" [NAME, Column { name: "Created At", kind: "date", priority: 0 }] |object, _now|
        vec![name(object), text(object, "metadata.creationTimestamp").into()];
    "rbac.authorization.k8s.io" "ClusterRole" [NAME, Column { name: "Created At", kind: "date", priority: 0 }] |object, _now|
        vec![name(object), text(object, "metadata.creationTimestamp").into()];
    "rbac.authorization.k8s.io" "RoleBinding" [NAME, text_column("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")]
        |object, now| binding(object, now);
    "rbac.authorization.k8s.io" "ClusterRoleBinding" [NAME, text_column("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")]
        |object, now| binding(object, now);
    "admissionregistration.k8s.io" "MutatingWebhookConfiguration" [NAME, count_column("Webhooks"), AGE] |object, now|
        vec![name(object), list(object, "webhooks").len().into(), age(object, now)];
    "admissionregistration.k8s.io" "ValidatingWebhookConfiguration" [NAME, count_column("Webhooks"), AGE] |object, now|
        vec![name(object), list(object, "webhooks").len().into(), age(object, now)];
};

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    fn object(kind_fields: Value) -> Value {
        let mut object = json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T11:50:00Z"}});
        object.as_object_mut().unwrap().extend(kind_fields.as_object().unwrap().clone());
        object
    }

    #[test]
    fn workloads_show_how_many_are_ready() {
        let spec = json!({"replicas": 3, "selector": {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["y", "x"]}]},
            "template": {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}}});
        let status = json!({"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1});
        check("apps", "Deployment", object(json!({"spec": spec, "status": status})), "web|2/3|3|1|10m|a,b|x,y|a=1,b=2,c in (x,y)");
        check("apps", "ReplicaSet", object(json!({"spec": spec, "status": status})), "web|3|3|2|10m|a,b|x,y|a=1,b=2,c in (x,y)");
        check("apps", "StatefulSet", object(json!({"spec": spec, "status": status})), "web|2/3|10m|a,b|x,y");
        check(
            "apps",
            "DaemonSet",
            object(json!({"spec": spec, "status": {"desiredNumberScheduled": 1}})),
            "web|1|0|0|0|0|<none>|10m|a,b|x,y|a=1,b=2,c in (x,y)",
        );
        let job = json!({"spec": {"completions": 1}, "status": {"succeeded": 1, "startTime": "2026-01-01T11:50:00Z",
            "completionTime": "2026-01-01T11:50:30Z", "conditions": [{"type": "Complete", "status": "True"}]}});
        check("batch", "Job", object(job), "web|Complete|1/1|30s|10m|||<none>");
    }

    #[test]
    fn services_and_slices_show_addresses() {
        check(
            "",
            "Service",
            object(json!({"spec": {"type": "ClusterIP", "clusterIP": "127.1.128.1", "clusterIPs": ["127.1.128.1"],
            "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 30053}], "selector": {"app": "web"}}})),
            "web|ClusterIP|127.1.128.1|<none>|80/TCP,53:30053/UDP|10m|app=web",
        );
        check("", "Service", object(json!({"spec": {"type": "LoadBalancer"}})), "web|LoadBalancer|<none>|<pending>|<none>|10m|<none>");
        check(
            "",
            "Service",
            object(json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "127.1.0.9"}]}}})),
            "web|LoadBalancer|<none>|127.1.0.9|<none>|10m|<none>",
        );
        check(
            "discovery.k8s.io",
            "EndpointSlice",
            object(json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}, {}],
            "endpoints": [{"addresses": ["127.1.64.1"]}, {"addresses": ["127.1.64.2"]}, {"addresses": ["127.1.64.3"]}, {"addresses": ["127.1.64.4"]}]})),
            "web|IPv4|80,x,*|127.1.64.1,127.1.64.2,127.1.64.3 + 1 more...|10m",
        );
        check("discovery.k8s.io", "EndpointSlice", object(json!({"addressType": "IPv4"})), "web|IPv4|<unset>|<unset>|10m");
    }

    #[test]
    fn a_node_shows_its_state_and_roles() {
        check(
            "",
            "Node",
            json!({"metadata": {"name": "n1", "creationTimestamp": "2026-01-01T11:50:00Z", "labels": {"node-role.kubernetes.io/worker": ""}},
            "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "127.1.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.35.0", "kernelVersion": "6.1", "architecture": "amd64"}}}),
            "n1|Ready,SchedulingDisabled|worker|10m|v1.35.0|127.1.0.1|<none>|<unknown>|6.1 (amd64)|<unknown>",
        );
    }

    #[test]
    fn an_event_shows_when_and_about_what() {
        check(
            "",
            "Event",
            object(
                json!({"lastTimestamp": "2026-01-01T11:59:30Z", "firstTimestamp": "2026-01-01T11:50:00Z", "type": "Normal", "reason": "Started",
            "involvedObject": {"kind": "Pod", "name": "web-1"}, "message": "Started it\n", "count": 2, "source": {"component": "node"}}),
            ),
            "30s|Normal|Started|pod/web-1||node|Started it|10m|2|web",
        );
        check(
            "",
            "Event",
            object(json!({"eventTime": "2026-01-01T11:59:30.000000Z", "type": "Normal", "reason": "x", "involvedObject": {"kind": "Node"},
            "reportingComponent": "a", "reportingInstance": "b"})),
            "30s|Normal|x|node||a, b||30s|1|web",
        );
    }

    #[test]
    fn the_rest_show_what_they_hold() {
        check("", "ConfigMap", object(json!({"data": {"a": "1"}, "binaryData": {"b": ""}})), "web|2|10m");
        check("", "Secret", object(json!({"type": "Opaque", "data": {"a": "1"}})), "web|Opaque|1|10m");
        check("", "Namespace", object(json!({"status": {"phase": "Active"}})), "web|Active|10m");
        check("coordination.k8s.io", "Lease", object(json!({"spec": {"holderIdentity": "me"}})), "web|me|10m");
        check(
            "policy",
            "PodDisruptionBudget",
            object(json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}})),
            "web|50%|N/A|1|10m",
        );
        check("apiextensions.k8s.io", "CustomResourceDefinition", object(json!({})), "web|2026-01-01T11:50:00Z");
        check(
            "rbac.authorization.k8s.io",
            "RoleBinding",
            object(json!({"roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]})),
            "web|Role/r|10m|u||n/s",
        );
    }
}
