//! Which of a peer's exports are believed, and what of them. Linked is not trusted: namespaces come from our grant, never from the peer;
//! an id is accepted only inside the peer's trust domain and the exported namespace, so never for the mesh's own components.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::client::exports::Exports;
use mesh_api::crd::link::is_protected;
use mesh_api::translate::Exported;
use mesh_names::{ServiceId, SpiffeId};

use crate::model::{Seen, SeenLink};

/// An export that is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Believed {
    /// What the peer says, whole.
    pub exported: Arc<Exported>,
    /// The ids to expect at the end of the tunnel.
    pub identities: Vec<SpiffeId>,
}

/// Why an export is not imported, or not whole. Closed: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Nothing of another cluster ever enters this namespace.
    NamespaceProtected,
    /// The Link does not grant the namespace.
    NamespaceNotGranted,
    /// The namespace does not exist here.
    NamespaceAbsent,
    /// It has no port.
    NoPorts,
    /// It names ids, and none of them may serve it.
    IdentityNotAllowed,
    /// `<name>-<cluster>` is no name of a Service: only the cluster-set name works.
    NameTooLong,
    /// Something that is not ours has the name `<name>-<cluster>`: only the cluster-set name works.
    NameTaken,
    /// It has more endpoints than stand-ins are made for.
    TooManyEndpoints,
}

impl Refusal {
    /// The reason, fixed.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NamespaceProtected => "namespace-protected",
            Self::NamespaceNotGranted => "namespace-not-granted",
            Self::NamespaceAbsent => "namespace-absent",
            Self::NoPorts => "no-ports",
            Self::IdentityNotAllowed => "identity-not-allowed",
            Self::NameTooLong => "name-too-long",
            Self::NameTaken => "name-taken",
            Self::TooManyEndpoints => "too-many-endpoints",
        }
    }
}

/// What of `exports` is believed, and what is refused.
#[must_use]
pub fn believe(seen: &Seen, link: &SeenLink, exports: &Exports) -> (BTreeMap<ServiceId, Believed>, BTreeSet<(ServiceId, Refusal)>) {
    let (mut believed, mut refused) = (BTreeMap::new(), BTreeSet::new());
    for (id, exported) in &exports.services {
        match believe_one(seen, link, exported) {
            Ok(one) => {
                believed.insert(id.clone(), one);
            }
            Err(why) => {
                refused.insert((id.clone(), why));
            }
        }
    }
    (believed, refused)
}

fn believe_one(seen: &Seen, link: &SeenLink, exported: &Arc<Exported>) -> Result<Believed, Refusal> {
    let namespace = exported.id.namespace();
    if is_protected(namespace.as_str()) {
        return Err(Refusal::NamespaceProtected);
    }
    if !link.grant.contains(namespace) {
        return Err(Refusal::NamespaceNotGranted);
    }
    if !seen.namespaces.contains(namespace) {
        return Err(Refusal::NamespaceAbsent);
    }
    if exported.ports.is_empty() {
        return Err(Refusal::NoPorts);
    }
    let mut identities: Vec<SpiffeId> = if exported.proxyless {
        link.gateways.iter().map(|gateway| gateway.identity.clone()).collect()
    } else {
        let allowed = |id: &&SpiffeId| {
            *id.trust_domain() == link.trust_domain && id.namespace_and_account().is_some_and(|(of, _)| of == namespace.as_str())
        };
        exported.identities.iter().filter(allowed).cloned().collect()
    };
    if identities.is_empty() && !exported.identities.is_empty() {
        return Err(Refusal::IdentityNotAllowed);
    }
    identities.sort();
    identities.dedup();
    Ok(Believed { exported: Arc::clone(exported), identities })
}
