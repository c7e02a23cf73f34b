"""What the Python client does, against the server of KUBECONFIG in the namespace NAMESPACE."""

import os
import time

from kubernetes import client, config, watch

config.load_kube_config()
deadline = time.monotonic() + 100
core, apps, custom = client.CoreV1Api(), client.AppsV1Api(), client.CustomObjectsApi()
own = os.environ["NAMESPACE"] + "-python"
core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=own)))
assert own in [each.metadata.name for each in core.list_namespace().items]

labels = {"app": "web"}
container = client.V1Container(name="web", image="web:1", ports=[client.V1ContainerPort(container_port=80)])
template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container]))
spec = client.V1DeploymentSpec(replicas=2, selector=client.V1LabelSelector(match_labels=labels), template=template)
deployment = client.V1Deployment(metadata=client.V1ObjectMeta(name="web", labels=labels), spec=spec)
created = apps.create_namespaced_deployment(own, deployment)
assert created.spec.strategy.type == "RollingUpdate", created.spec.strategy

listed = apps.list_namespaced_deployment(own, label_selector="app=web")
assert [each.metadata.name for each in listed.items] == ["web"]
patched = apps.patch_namespaced_deployment("web", own, {"spec": {"replicas": 3}})
assert (patched.spec.replicas, patched.spec.template.spec.containers[0].image) == (3, "web:1")
apps.patch_namespaced_deployment_scale("web", own, {"spec": {"replicas": 4}})
seen = watch.Watch()
for event in seen.stream(
    apps.list_namespaced_deployment, own, resource_version=listed.metadata.resource_version, timeout_seconds=20
):
    if event["object"].spec.replicas == 4:
        assert event["type"] == "MODIFIED"
        seen.stop()
assert apps.read_namespaced_deployment("web", own).spec.replicas == 4
try:
    apps.create_namespaced_deployment(own, deployment)
    raise AssertionError("a name was taken twice")
except client.ApiException as refused:
    assert refused.status == 409, refused

group = own + ".example.com"
definition = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things." + group},
    "spec": {
        "group": group,
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
definitions = client.ApiextensionsV1Api()
definitions.create_custom_resource_definition(definition)
names = []
while "things" not in names:
    # A real server serves a kind a moment after it has its definition.
    assert time.monotonic() < deadline, names
    try:
        names = [each.name for each in custom.get_api_resources(group, "v1").resources]
    except client.ApiException as unknown:
        assert unknown.status == 404, unknown
        time.sleep(0.1)
thing = {"apiVersion": group + "/v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": {"size": 1}}
custom.create_namespaced_custom_object(group, "v1", own, "things", thing)
changed = custom.patch_namespaced_custom_object(group, "v1", own, "things", "one", {"spec": {"size": 2}})
assert changed["spec"]["size"] == 2
custom.delete_namespaced_custom_object(group, "v1", own, "things", "one")
definitions.delete_custom_resource_definition("things." + group)

apps.delete_namespaced_deployment("web", own, propagation_policy="Foreground")
while apps.list_namespaced_deployment(own).items:
    # The owner stays until its dependents are gone, which a real cluster's garbage collector sees to.
    assert time.monotonic() < deadline, "the deployment is still there"
    time.sleep(0.1)
core.delete_namespace(own)
print("done")
