//! Every check: a stable id, what it means, and what to do when it fails. Ids are never reused.

/// One check.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) fix: &'static str,
}

/// The entry of a check that this program makes.
pub(crate) fn entry(id: &str) -> &'static Entry {
    CATALOGUE.iter().find(|entry| entry.id == id).unwrap_or(&CATALOGUE[0])
}

/// All of them, in the order in which they are made.
pub(crate) const CATALOGUE: &[Entry] = &[
    Entry {
        id: "K8S-001",
        title: "Kubernetes API answers",
        meaning: "The cluster's API was asked for what the mesh keeps there. Without it nothing else can be checked; calls go on meanwhile, on what proxies and gateways last knew.",
        fix: "kubectl --context CONTEXT get --raw /readyz",
    },
    Entry {
        id: "TRUST-001",
        title: "authorities valid for 60 days",
        meaning: "The certificates that this cluster's identities are checked against. When they expire, no workload of this cluster is believed anywhere.",
        fix: "make a new root or issuer: mesh trust issue CLUSTER, then link again",
    },
    Entry {
        id: "TRUST-002",
        title: "issuer valid for 7 days",
        meaning: "The certificate that signs this cluster's workloads. When it expires, workloads get no new certificates, and theirs last 48 hours.",
        fix: "mesh trust issue CLUSTER, and put the result into Secret isthmus-system/isthmus-issuer",
    },
    Entry {
        id: "TRUST-003",
        title: "issuer fits the bundle",
        meaning: "The issuer's authority must be in the bundle that everybody checks against, and carry this cluster's trust domain; otherwise what it signs is refused.",
        fix: "put the issuer's authority into ConfigMap isthmus-system/isthmus-bundle: mesh trust show",
    },
    Entry {
        id: "CTRL-001",
        title: "control has a ready replica",
        meaning: "Proxies get identities and discovery from mesh-control. Without a replica they go on with what they know, and new pods cannot start.",
        fix: "kubectl -n isthmus-system get endpointslices -l kubernetes.io/service-name=mesh-control",
    },
    Entry {
        id: "GW-001",
        title: "gateways have addresses",
        meaning: "Peers dial the addresses in the status of Service mesh-gateway. Without one, no other cluster can import from this one.",
        fix: "kubectl -n isthmus-system get service mesh-gateway, and wait for its load balancer",
    },
    Entry {
        id: "GW-002",
        title: "a gateway is ready",
        meaning: "At least one gateway must be ready for other clusters to call into this one, and for clients without a proxy to call out.",
        fix: "kubectl -n isthmus-system get endpointslices -l kubernetes.io/service-name=mesh-gateway",
    },
    Entry {
        id: "MC-LINK-001",
        title: "link is connected",
        meaning: "The mirror controller follows the peer's exports over its gateways. While it cannot, the last known services stay and calls go on.",
        fix: "mesh multicluster status --context CONTEXT",
    },
    Entry {
        id: "MC-LINK-002",
        title: "link's data path works",
        meaning: "Probes go through the peer's gateways every second. Three misses take the peer out of the balance until they are answered again.",
        fix: "mesh multicluster status --context CONTEXT, then look at the peer's gateways: mesh check --context PEER",
    },
    Entry {
        id: "MC-LINK-003",
        title: "link's trust is current",
        meaning: "The peer's bundle in the Link must be the one that the peer uses. A stale one refuses its new certificates.",
        fix: "link again, which renews the bundle: mesh multicluster link --context CONTEXT --to PEER",
    },
    Entry {
        id: "MC-LINK-004",
        title: "link has its other direction",
        meaning: "Merging services of one name across clusters is promised between clusters that are linked both ways. One direction alone imports, and is not imported from.",
        fix: "mesh multicluster link --context CONTEXT --to PEER --mutual, unless one direction is meant",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<&str> = CATALOGUE.iter().map(|entry| entry.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), CATALOGUE.len());
    }
}
