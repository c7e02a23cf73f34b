//! Names that the mesh writes into, or reads from, Kubernetes objects. One place, so that writer and reader agree.

/// The namespace of the mesh's own components.
pub const SYSTEM_NAMESPACE: &str = "isthmus-system";
/// ConfigMap with the cluster's facts: `cluster` (its name) and `trustDomain`.
pub const FACTS: &str = "isthmus";
/// ConfigMap whose `bundle.json` is the cluster's own bundle in SPIFFE format.
pub const BUNDLE: &str = "isthmus-bundle";
/// The key of the bundle in [`BUNDLE`].
pub const BUNDLE_KEY: &str = "bundle.json";
/// Secret of the cluster's issuer: `tls.crt` (chain) and `tls.key`.
pub const ISSUER: &str = "isthmus-issuer";
/// Secret whose `key` names endpoints outside the cluster; control makes it.
pub const HANDLES: &str = "isthmus-handles";
/// Service of the gateways; its port `tunnel` is what peers dial.
pub const GATEWAY_SERVICE: &str = "mesh-gateway";
/// The name of the tunnel port of [`GATEWAY_SERVICE`].
pub const TUNNEL_PORT: &str = "tunnel";
/// Lease of the mirror controller that acts; the others wait for it.
pub const MIRROR_LEASE: &str = "mesh-mirror-controller";
/// MutatingWebhookConfiguration of the injector.
pub const INJECTOR: &str = "isthmus-injector";
/// Service by which the API server reaches the injector.
pub const WEBHOOK_SERVICE: &str = "mesh-webhook";
/// Where the injector answers.
pub const WEBHOOK_PATH: &str = "/inject";
/// Audience of the projected tokens that Identity accepts.
pub const TOKEN_AUDIENCE: &str = "isthmus";

/// Service account of the control plane.
pub const CONTROL_ACCOUNT: &str = "mesh-control";
/// Service account of the gateways.
pub const GATEWAY_ACCOUNT: &str = "mesh-gateway";
/// The gateways' second identity: the way out for clients without a proxy.
pub const EGRESS_ACCOUNT: &str = "mesh-egress";
/// Service account of the mirror controller.
pub const MIRROR_ACCOUNT: &str = "mesh-mirror-controller";
/// Service account of the DNS servers.
pub const DNS_ACCOUNT: &str = "mesh-dns";

/// Label of every object that the mesh writes; its value is [`MANAGED_BY_ISTHMUS`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`], and the field manager of server-side apply.
pub const MANAGED_BY_ISTHMUS: &str = "isthmus";
/// Label: the Link that an object was made for. Cluster-set objects have none.
pub const LINK: &str = "isthmus.dev/link";
/// Label of mirror objects: [`MIRROR_CLUSTER`], [`MIRROR_CLUSTER_SET`] or [`MIRROR_STAND_IN`].
pub const MIRROR: &str = "isthmus.dev/mirror";
/// A Service `<name>-<cluster>` and its slice.
pub const MIRROR_CLUSTER: &str = "cluster";
/// A Service `<name>-clusterset` and its slice.
pub const MIRROR_CLUSTER_SET: &str = "clusterset";
/// A Service `<hostname>-<service>-<cluster>` and its slice.
pub const MIRROR_STAND_IN: &str = "stand-in";
/// Label of mirror objects: the name of the imported service, which lies in the same namespace.
pub const MIRRORED_SERVICE: &str = "isthmus.dev/service";
/// Annotation of a per-cluster mirror: the SPIFFE ids that serve it, joined by commas.
pub const IDENTITIES: &str = "isthmus.dev/identities";
/// Annotation of a per-cluster mirror, `"true"`: the export's endpoints have no proxy; expect the peer's gateway.
pub const PROXYLESS: &str = "isthmus.dev/proxyless";
/// Annotation: whether endpoints without a proxy are served, by the gateway.
pub const ALLOW_UNMESHED: &str = "isthmus.dev/allow-unmeshed";
/// Annotation of a stand-in Service: the handle of the endpoint that it stands for.
pub const HANDLE: &str = "isthmus.dev/handle";
/// Label of a stand-in Service: the endpoint's hostname.
pub const HOSTNAME: &str = "isthmus.dev/hostname";
/// Label of a namespace or a pod: [`INJECT_ENABLED`] or [`INJECT_DISABLED`]. The pod's decides, else its namespace's, else no.
pub const INJECT: &str = "isthmus.dev/inject";
/// Pods are to be meshed.
pub const INJECT_ENABLED: &str = "enabled";
/// Pods are not to be meshed.
pub const INJECT_DISABLED: &str = "disabled";
/// Annotation of a namespace: whether plaintext from pods that are not meshed is let in, `permissive` or `strict`.
pub const INBOUND: &str = "isthmus.dev/inbound";
/// Annotation of a pod: ports, separated by commas, that are reached without its proxy.
pub const SKIP_INBOUND_PORTS: &str = "isthmus.dev/skip-inbound-ports";
/// Annotation of a pod: ports, separated by commas, that it calls without its proxy.
pub const SKIP_OUTBOUND_PORTS: &str = "isthmus.dev/skip-outbound-ports";
/// Annotation of a meshed pod: the bundle in SPIFFE format that its proxy starts from.
pub const POD_BUNDLE: &str = "isthmus.dev/bundle";
/// Annotation of a meshed pod, `"true"`.
pub const INJECTED: &str = "isthmus.dev/injected";
/// Annotation of a meshed pod whose inbound proxy does not listen at [`INBOUND_PORT_DEFAULT`].
pub const INBOUND_PORT: &str = "isthmus.dev/inbound-port";
/// Where inbound proxies and gateways listen unless told otherwise.
pub const INBOUND_PORT_DEFAULT: u16 = 4143;

/// Label of an import's EndpointSlice (KEP-1645): the imported service.
pub const MCS_SERVICE_NAME: &str = "multicluster.kubernetes.io/service-name";
/// Label of an import's EndpointSlice (KEP-1645): the id of the cluster that it stands for.
pub const MCS_SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";
/// The ClusterProperty that holds the cluster's id.
pub const CLUSTER_ID_PROPERTY: &str = "cluster.clusterset.k8s.io";
/// The ClusterProperty that holds the cluster set's name while the cluster is a member.
pub const CLUSTER_SET_PROPERTY: &str = "clusterset.k8s.io";
/// The value of [`CLUSTER_SET_PROPERTY`]. Every pair of clusters stands alone, so there is no set that could have a name of its own.
pub const CLUSTER_SET: &str = "isthmus";
