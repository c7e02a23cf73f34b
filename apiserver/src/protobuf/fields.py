"""Makes fields.txt out of the Go types of k8s.io/api and k8s.io/apimachinery: python3 fields.py GO_MODULES VERSION > fields.txt

GO_MODULES is the folder k8s.io of a Go module cache, VERSION such as v0.35.0.
"""

import re
import sys

ROOTS = """core.v1: ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod PodTemplate
  ReplicationController ResourceQuota Secret Service ServiceAccount Binding
apps.v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet
authentication.v1: SelfSubjectReview TokenRequest TokenReview
authorization.v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
autoscaling.v1: Scale
autoscaling.v2: HorizontalPodAutoscaler
batch.v1: CronJob Job
coordination.v1: Lease
discovery.v1: EndpointSlice
events.v1: Event
networking.v1: Ingress IngressClass NetworkPolicy
policy.v1: Eviction PodDisruptionBudget
rbac.v1: ClusterRole ClusterRoleBinding Role RoleBinding
scheduling.v1: PriorityClass
storage.v1: StorageClass
meta.v1: DeleteOptions"""
SPECIAL = {"meta.v1.Time", "meta.v1.MicroTime", "meta.v1.FieldsV1", "resource.Quantity", "intstr.IntOrString", "runtime.RawExtension"}
SCALARS = {"string": "s", "int32": "i", "int64": "i", "bool": "b", "[]byte": "y", "types.UID": "s", "types.NodeName": "s"}
modules, release = sys.argv[1:]


def source(package):
    group, version = package.split(".")
    where = "apimachinery@%s/pkg/apis" if group == "meta" else "api@%s"
    return open(f"{modules}/{where % release}/{group}/{version}/types.go").read()


class Package:
    def __init__(self, name):
        self.name, text = name, source(name)
        self.imports = {}
        for alias, path in re.findall(r'^\t(\w+ )?"k8s.io/([^"]+)"$', text, re.M):
            parts = path.split("/")
            real = ".".join(parts[-2:]) if re.match(r"v\d", parts[-1]) else parts[-1]
            self.imports[alias.strip() or parts[-1]] = real
        self.aliases = dict(re.findall(r"^type (\w+) (string|int32|int64|\[\]\w+|map\[\w+\][\w.]+)$", text, re.M))
        self.structs = dict(re.findall(r"^type (\w+) struct \{\n(.*?)^\}", text, re.M | re.S))

    def kind(self, go):
        """The code of a Go type, and the message that it needs."""
        if go in SCALARS:
            return SCALARS[go]
        if go.startswith("[]"):
            return "[]" + self.kind(go[2:])
        if go.startswith("map["):
            return "{}" + self.kind(go.split("]", 1)[1])
        if "." in go:
            package, name = go.split(".")
            package = self.imports[package]
            if f"{package}.{name}" in SPECIAL or package == self.name:
                return f"{package}.{name}"
            return load(package).kind(name)
        if go in self.aliases:
            # A named list has a message of its own, whose only field is the list.
            inner = self.aliases[go]
            return "items:" + self.kind(inner) if go in ("ExtraValue", "Verbs") else self.kind(inner)
        return f"{self.name}.{go}"

    def fields(self, name):
        for line in self.structs[name].splitlines():
            found = re.match(r'^\t(?:\w+\s+)?(\S+)\s+`.*json:"([^"]*)".*protobuf:"\w+,(\d+),', line)
            if found:
                go, json, number = found.groups()
                json = json.split(",")
                mark = "*" if go.startswith("*") else "?" if "omitempty" in json else "="
                yield f"{number} {json[0] or '-'} {mark}{self.kind(go.lstrip('*'))}"


def load(name, loaded={}):
    if name not in loaded:
        loaded[name] = Package(name)
    return loaded[name]


todo, done = [], {}
for line in re.sub(r"\n +", " ", ROOTS).splitlines():
    package, kinds = line.split(": ")
    todo += [f"{package}.{kind}" for kind in kinds.split()]
while todo:
    message = todo.pop()
    if message not in done and message not in SPECIAL:
        package, name = message.rsplit(".", 1)
        done[message] = list(load(package).fields(name))
        todo += [m for field in done[message] for m in re.findall(r"\w+\.v\d\w*\.\w+$", field)]
print(f"# The messages of k8s.io/api and k8s.io/apimachinery {release} (Apache-2.0), as fields.py makes them: NAME|NUMBER FIELD TYPE|...")
for message in sorted(done):
    print("|".join([message] + done[message]))
