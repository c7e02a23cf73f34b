//! The resources of a discovery stream: what one tells ([`told`]), what its removal tells, and a whole snapshot as resources.

use mesh_names::{ClusterName, TrustDomain};
use mesh_topology::{Change, Own, Snapshot};
use mesh_trust::Bundle;

use super::{Invalid, address, each, name, number, service_id, service_ref, texts};
use crate::proto;
use crate::proto::resource::Resource as R;
use crate::proto::resource_key::Key as K;

/// One thing that discovery tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// About what is where.
    Change(Change),
    /// About whom to trust; `None` withdraws the bundle.
    Bundle(TrustDomain, Option<Bundle>),
}

/// What a resource tells; `None` when it is of a kind that this release does not know.
///
/// # Errors
/// When a field is not valid.
pub fn told(of: &proto::Resource) -> Result<Option<Told>, Invalid> {
    let Some(resource) = &of.resource else { return Ok(None) };
    let change = match resource {
        R::Service(it) => service_id("service.id", it.id.as_ref()).and_then(|id| Ok(Change::Service(id, Some(it.try_into()?))))?,
        R::Import(it) => service_id("import.id", it.id.as_ref()).and_then(|id| Ok(Change::Import(id, Some(it.try_into()?))))?,
        R::Remote(it) => {
            let remote: mesh_topology::Remote = it.try_into()?;
            Change::Remote(remote.link.clone(), remote.service.clone(), Some(remote))
        }
        R::Link(it) => Change::Link(name("link.name", &it.name)?, Some(it.try_into()?)),
        R::Peer(it) => Change::Peer(name("peer.trust_domain", &it.trust_domain)?, Some(it.try_into()?)),
        R::Export(it) => service_id("export.service", it.service.as_ref()).and_then(|id| Ok(Change::Export(id, Some(it.try_into()?))))?,
        R::Egress(it) => Change::Egress(number("egress.port", it.port)?, Some(it.try_into()?)),
        R::Bundle(it) => return bundle(it).map(Some),
    };
    Ok(Some(Told::Change(change)))
}

/// What the removal of a resource tells; `None` when it is of a kind that this release does not know.
///
/// # Errors
/// When the key is not valid.
pub fn told_removed(of: &proto::ResourceKey) -> Result<Option<Told>, Invalid> {
    let Some(key) = &of.key else { return Ok(None) };
    let change = match key {
        K::Service(it) => Change::Service(service_id("removals.service", Some(it))?, None),
        K::Import(it) => Change::Import(service_id("removals.import", Some(it))?, None),
        K::Remote(it) => Change::Remote(name("removals.remote.link", &it.link)?, service_id("removals.remote", it.service.as_ref())?, None),
        K::Link(it) => Change::Link(name("removals.link", it)?, None),
        K::Peer(it) => Change::Peer(name("removals.peer", it)?, None),
        K::Export(it) => Change::Export(service_id("removals.export", Some(it))?, None),
        K::Egress(it) => Change::Egress(number("removals.egress", *it)?, None),
        K::Bundle(it) => return Ok(Some(Told::Bundle(name("removals.bundle", it)?, None))),
    };
    Ok(Some(Told::Change(change)))
}

/// The key under which a resource replaces another of its kind.
#[must_use]
pub fn key_of(of: &proto::Resource) -> Option<proto::ResourceKey> {
    let key = match of.resource.as_ref()? {
        R::Service(it) => K::Service(it.id.clone()?),
        R::Import(it) => K::Import(it.id.clone()?),
        R::Remote(it) => K::Remote(proto::RemoteKey { link: it.link.clone(), service: it.service.clone() }),
        R::Link(it) => K::Link(it.name.clone()),
        R::Peer(it) => K::Peer(it.trust_domain.clone()),
        R::Export(it) => K::Export(it.service.clone()?),
        R::Egress(it) => K::Egress(it.port),
        R::Bundle(it) => K::Bundle(it.trust_domain.clone()),
    };
    Some(proto::ResourceKey { key: Some(key) })
}

/// The kind that a key belongs to, as subscriptions name it.
#[must_use]
pub fn kind_of(of: &proto::ResourceKey) -> proto::Kind {
    match &of.key {
        None => proto::Kind::Unspecified,
        Some(K::Service(_)) => proto::Kind::Service,
        Some(K::Import(_)) => proto::Kind::Import,
        Some(K::Remote(_)) => proto::Kind::Remote,
        Some(K::Link(_)) => proto::Kind::Link,
        Some(K::Peer(_)) => proto::Kind::Peer,
        Some(K::Export(_)) => proto::Kind::Export,
        Some(K::Egress(_)) => proto::Kind::Egress,
        Some(K::Bundle(_)) => proto::Kind::Bundle,
    }
}

/// Everything that a snapshot holds, as resources.
#[must_use]
pub fn said(of: &Snapshot) -> Vec<proto::Resource> {
    let services = of.services().map(|it| R::Service(it.as_ref().into()));
    let imports = of.imports().map(|it| R::Import(it.as_ref().into()));
    let remotes = of.remotes().map(|it| R::Remote(it.as_ref().into()));
    let links = of.links().map(|it| R::Link(it.as_ref().into()));
    let peers = of.peers().map(|it| R::Peer(it.as_ref().into()));
    let exports = of.exports().map(|it| R::Export(it.as_ref().into()));
    let egress = of.egress().map(|it| R::Egress(it.as_ref().into()));
    let all = services.chain(imports).chain(remotes).chain(links).chain(peers).chain(exports).chain(egress);
    all.map(|resource| proto::Resource { resource: Some(resource) }).collect()
}

/// A bundle as a resource.
#[must_use]
pub fn bundle_said(of: &Bundle) -> proto::Resource {
    let bundle = proto::Bundle { trust_domain: of.trust_domain().to_string(), json: of.to_spiffe_json().into_bytes() };
    proto::Resource { resource: Some(R::Bundle(bundle)) }
}

/// The cluster that a stream is about.
///
/// # Errors
/// When a field is not valid.
pub fn own(of: &proto::Own) -> Result<Own, Invalid> {
    Ok(Own {
        cluster: name("own.cluster", &of.cluster)?,
        id: super::name_if_any("own.cluster_id", &of.cluster_id)?,
        trust_domain: name("own.trust_domain", &of.trust_domain)?,
        ranges: each("own.ranges", RANGES_MAX, &of.ranges, |range| address("own.ranges", range))?,
    })
}

impl From<&Own> for proto::Own {
    fn from(of: &Own) -> Self {
        Self {
            cluster: of.cluster.to_string(),
            cluster_id: super::text_if_any(of.id.as_ref()),
            trust_domain: of.trust_domain.to_string(),
            ranges: texts(&of.ranges),
        }
    }
}

impl proto::RemoteKey {
    /// The key of one service of one link.
    #[must_use]
    pub fn of(link: &ClusterName, service: &mesh_names::ServiceId) -> Self {
        Self { link: link.to_string(), service: Some(service_ref(service)) }
    }
}

fn bundle(of: &proto::Bundle) -> Result<Told, Invalid> {
    let domain: TrustDomain = name("bundle.trust_domain", &of.trust_domain)?;
    let bundle = Bundle::from_spiffe_json(domain.clone(), &of.json).map_err(|source| Invalid::Bundle { field: "bundle.json", source })?;
    Ok(Told::Bundle(domain, Some(bundle)))
}

const RANGES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use mesh_topology::{Egress, Export, Link, LinkHealth, PeersAllowed};

    fn check_there_and_back(change: Change) {
        let own = Own { cluster: "west".parse().unwrap(), id: None, trust_domain: "west.mesh".parse().unwrap(), ranges: Vec::new() };
        let snapshot = Snapshot::empty(own).with([change.clone()]);
        let resources = said(&snapshot);
        assert_eq!(resources.len(), 1);
        assert_eq!(told(&resources[0]).unwrap(), Some(Told::Change(change)));
        let removed = told_removed(&key_of(&resources[0]).unwrap()).unwrap();
        let Some(Told::Change(removed)) = removed else { panic!("{removed:?}") };
        assert_eq!(said(&snapshot.with([removed])), []);
    }

    fn check_refused(resource: R, expected: Expect) {
        let error = told(&proto::Resource { resource: Some(resource) }).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        expected.assert_eq(&format!("{error}: {source}"));
    }

    fn link(gateway: &str) -> proto::Link {
        proto::Link {
            name: "east".into(),
            cluster_id: "6e3b".into(),
            trust_domain: "east.mesh".into(),
            gateways: vec![proto::Gateway {
                address: gateway.into(),
                port: 4143,
                identity: "spiffe://east.mesh/ns/isthmus-system/sa/g".into(),
            }],
            health: 1,
            priority: 0,
        }
    }

    #[test]
    fn what_is_told_comes_back_as_it_was_said() {
        let read: Link = (&link("127.1.0.5")).try_into().unwrap();
        assert_eq!(read.health, LinkHealth::Healthy);
        check_there_and_back(Change::Link(read.name.clone(), Some(read)));
        let service: mesh_names::ServiceId = "shop/web".parse().unwrap();
        let port = "80".parse().unwrap();
        let peers = PeersAllowed::Only(["west.mesh".parse().unwrap()].into());
        let export = Export { service: service.clone(), ports: vec![port], peers, allow_unmeshed: true };
        check_there_and_back(Change::Export(service.clone(), Some(export)));
        let protocol = mesh_names::Protocol::Http2;
        let egress = Egress { port: "20001".parse().unwrap(), service, cluster: None, service_port: port, protocol };
        check_there_and_back(Change::Egress(egress.port, Some(egress)));
    }

    #[test]
    fn an_error_names_the_field() {
        check_refused(
            R::Link(link("east.example")),
            expect![[r#"field link.gateways.address is not an IP address or range: "east.example": "#]],
        );
        let service = proto::Service { id: None, ..proto::Service::default() };
        check_refused(R::Service(service), expect!["field service.id is missing: "]);
        let egress = proto::Egress { port: 70_000, ..proto::Egress::default() };
        check_refused(R::Egress(egress), expect![[r#"field egress.port is not valid: "70000" is not a valid port: a port is 1 to 65535"#]]);
    }

    #[test]
    fn a_list_past_its_limit_is_refused() {
        let of = proto::Link { gateways: vec![proto::Gateway::default(); 65], ..link("127.1.0.5") };
        check_refused(R::Link(of), expect!["field link.gateways has 65 entries or bytes; at most 64 are taken: "]);
    }

    #[test]
    fn a_kind_of_a_later_release_is_passed_over() {
        assert_eq!(told(&proto::Resource { resource: None }).unwrap(), None);
        assert_eq!(told_removed(&proto::ResourceKey { key: None }).unwrap(), None);
    }
}
