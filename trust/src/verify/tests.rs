//! One negative test for each row of the X509-SVID checklist (`reference/spiffe.md`), and for the rule about issuers: each broken
//! certificate is refused with its own reason, and counted. Then the same through real handshakes.

use std::collections::BTreeSet;
use std::io;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::*;
use crate::{ClientAuth, Csr, Expected, IssueError, Issuer, KeyPair, Root, Svid, client_config, server_config};

const HOUR: Duration = Duration::from_secs(3600);
const WEB: &str = "spiffe://west.mesh/ns/shop/sa/web";

fn at(hours: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + HOUR * (500_000 + hours)
}

fn unix(moment: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(moment.duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

/// Two clusters, east and west, below one root.
struct World {
    root: Root,
    west: Issuer,
    east: Issuer,
    verifier: Verifier,
}

type Chain = Vec<CertificateDer<'static>>;

impl World {
    fn new() -> Self {
        let root = Root::generate("shared", at(0), HOUR * 1000).unwrap();
        let issuer = |domain: &str| root.issuer_for(&domain.parse().unwrap(), at(0), HOUR * 500).unwrap();
        let bundle = |domain: &str| Bundle::new(domain.parse().unwrap(), 1, vec![root.certificate().clone()]).unwrap();
        let verifier = Verifier::fixed(Bundles::from_iter([bundle("west.mesh"), bundle("east.mesh")]));
        Self { west: issuer("west.mesh"), east: issuer("east.mesh"), root, verifier }
    }

    fn svid(issuer: &Issuer, id: &str) -> Svid {
        let key = KeyPair::generate().unwrap();
        let csr = Csr::parse(&key.csr_der().unwrap()).unwrap();
        let chain = issuer.issue(&csr, &id.parse().unwrap(), at(1), HOUR * 48).unwrap().chain;
        Svid::new(key, chain).unwrap()
    }

    /// A west workload's certificate, changed by `change` before it is signed.
    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Chain {
        leaf_below(&self.west.to_pem(), &self.west.chain()[..1], change)
    }

    /// A west workload's certificate below an issuer that was changed by `change`.
    fn below_issuer(&self, change: impl FnOnce(&mut CertificateParams)) -> Chain {
        let (issuer, key) = signer("issuer", Some(&self.root.to_pem()), change);
        leaf_below(&(rcgen_pem(&issuer), key.serialize_pem().into()), &[issuer], |_| {})
    }

    fn check(&self, chain: &[CertificateDer<'_>], expected: Refused) {
        let before = self.verifier.refusals().of(expected);
        assert_eq!(self.verifier.verify(chain, unix(at(2)), Purpose::Client), Err(expected));
        assert_eq!(self.verifier.refusals().of(expected), before + 1, "{expected:?} is counted");
    }
}

type Pem = (String, zeroize::Zeroizing<String>);

fn rcgen_pem(certificate: &CertificateDer<'_>) -> String {
    crate::pem::of_certificates(std::slice::from_ref(certificate))
}

fn rcgen_issuer(pem: &Pem) -> rcgen::Issuer<'static, rcgen::KeyPair> {
    rcgen::Issuer::from_ca_cert_pem(&pem.0, rcgen::KeyPair::from_pem(&pem.1).unwrap()).unwrap()
}

fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(WEB)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (at(1).into(), at(49).into());
    params
}

fn leaf_below(issuer: &Pem, issuers: &[CertificateDer<'static>], change: impl FnOnce(&mut CertificateParams)) -> Chain {
    let mut params = leaf_params();
    change(&mut params);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &rcgen_issuer(issuer)).unwrap().der().clone();
    [leaf].into_iter().chain(issuers.iter().cloned()).collect()
}

/// A signer of west below `above`, or self-signed.
fn signer(name: &str, above: Option<&Pem>, change: impl FnOnce(&mut CertificateParams)) -> (CertificateDer<'static>, rcgen::KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![uri("spiffe://west.mesh")];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = (at(0).into(), at(400).into());
    change(&mut params);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = match above {
        Some(above) => params.signed_by(&key, &rcgen_issuer(above)),
        None => params.self_signed(&key),
    };
    (certificate.unwrap().der().clone(), key)
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// DER: a tag, a short length, the content.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
}

fn extension(oid: u64, critical: bool, content: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, oid], content);
    extension.set_criticality(critical);
    extension
}

#[test]
fn a_workload_is_verified_through_its_own_domains_issuer() {
    let world = World::new();
    let svid = World::svid(&world.west, WEB);
    let peer = world.verifier.verify(svid.chain(), unix(at(2)), Purpose::Server).unwrap();
    assert_eq!((peer.id().as_str(), peer.expires_at()), (WEB, at(49)));
}

#[test]
fn row_1_another_domains_authority_is_never_asked() {
    let world = World::new();
    let foreign = Root::generate("foreign", at(0), HOUR * 1000).unwrap();
    let bundle = Bundle::new("north.mesh".parse().unwrap(), 1, vec![foreign.certificate().clone()]).unwrap();
    let verifier = Verifier::fixed((*world.verifier.bundles()).clone().with(bundle));
    let forged = leaf_below(&foreign.to_pem(), &[], |_| {});
    assert_eq!(verifier.verify(&forged, unix(at(2)), Purpose::Client), Err(Refused::UntrustedIssuer));
    let rogue = Root::generate("shared", at(0), HOUR * 1000).unwrap();
    let same_name = World::svid(&rogue.issuer_for(&"west.mesh".parse().unwrap(), at(0), HOUR * 9).unwrap(), WEB);
    world.check(same_name.chain(), Refused::UntrustedIssuer);
}

#[test]
fn row_1_a_trust_domain_without_a_bundle_is_unknown_and_an_empty_bundle_trusts_nobody() {
    let world = World::new();
    let north = world.root.issuer_for(&"north.mesh".parse().unwrap(), at(0), HOUR * 9).unwrap();
    let chain = World::svid(&north, "spiffe://north.mesh/ns/shop/sa/web");
    world.check(chain.chain(), Refused::UnknownTrustDomain);
    let empty = Verifier::fixed(Bundles::of(Bundle::new("north.mesh".parse().unwrap(), 1, vec![]).unwrap()));
    assert_eq!(empty.verify(chain.chain(), unix(at(2)), Purpose::Client), Err(Refused::UntrustedIssuer));
}

#[test]
fn row_1_lives_are_checked_from_the_leaf_to_the_authority() {
    let world = World::new();
    world.check(&world.leaf(|params| params.not_before = at(3).into()), Refused::NotYetValid);
    world.check(
        &world.leaf(|params| {
            params.not_before = at(0).into();
            params.not_after = at(1).into();
        }),
        Refused::Expired,
    );
    world.check(&world.below_issuer(|params| params.not_after = at(1).into()), Refused::IssuerNotValidNow);
    let old = Root::generate("old", at(0), HOUR).unwrap();
    let verifier = Verifier::fixed(Bundles::of(Bundle::new("west.mesh".parse().unwrap(), 1, vec![old.certificate().clone()]).unwrap()));
    let chain = leaf_below(&old.to_pem(), &[], |_| {});
    assert_eq!(verifier.verify(&chain, unix(at(2)), Purpose::Client), Err(Refused::IssuerNotValidNow));
}

#[test]
fn row_1_a_root_that_is_renewed_with_the_same_key_stands_beside_the_one_that_ends() {
    let key = rcgen::KeyPair::generate().unwrap();
    let root = |hours| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "renewed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.not_before, params.not_after) = (at(0).into(), at(hours).into());
        params.self_signed(&key).unwrap().der().clone()
    };
    let (ended, renewed) = (root(1), root(400));
    let chain = leaf_below(&(rcgen_pem(&renewed), key.serialize_pem().into()), &[], |_| {});
    let check = |authorities: &[&CertificateDer<'static>], expected: Result<(), Refused>| {
        let authorities = authorities.iter().map(|one| (*one).clone()).collect();
        let verifier = Verifier::fixed(Bundles::of(Bundle::new("west.mesh".parse().unwrap(), 1, authorities).unwrap()));
        assert_eq!(verifier.verify(&chain, unix(at(2)), Purpose::Client).map(drop), expected);
    };
    check(&[&ended, &renewed], Ok(()));
    check(&[&renewed, &ended], Ok(()));
    check(&[&ended], Err(Refused::IssuerNotValidNow));
}

#[test]
fn row_2_there_is_exactly_one_uri() {
    let world = World::new();
    world.check(&world.leaf(|params| params.subject_alt_names.push(uri("spiffe://west.mesh/ns/a/sa/b"))), Refused::NotExactlyOneUri);
    world.check(
        &world.leaf(|params| params.subject_alt_names = vec![SanType::DnsName("web.shop".try_into().unwrap())]),
        Refused::NotExactlyOneUri,
    );
    let with_dns = world.leaf(|params| params.subject_alt_names.push(SanType::DnsName("web.shop".try_into().unwrap())));
    assert!(world.verifier.verify(&with_dns, unix(at(2)), Purpose::Client).is_ok(), "DNS names may be there as well");
}

#[test]
fn row_3_the_uri_is_a_spiffe_id_with_a_path() {
    let world = World::new();
    for bad in ["https://west.mesh/ns/shop/sa/web", "spiffe://west.mesh", "spiffe://west.mesh/", "spiffe://west.mesh/ns//web"] {
        world.check(&world.leaf(|params| params.subject_alt_names = vec![uri(bad)]), Refused::BadSpiffeId);
    }
}

#[test]
fn row_4_a_leaf_is_no_authority() {
    let world = World::new();
    world.check(&world.leaf(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), Refused::IsAuthority);
}

#[test]
fn row_5_key_usage_is_there_critical_and_a_workloads() {
    let world = World::new();
    world.check(&world.leaf(|params| params.key_usages.clear()), Refused::KeyUsage);
    world.check(&world.leaf(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]), Refused::KeyUsage);
    world.check(&world.leaf(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)), Refused::KeyUsage);
    world.check(&world.leaf(|params| params.key_usages.push(KeyUsagePurpose::CrlSign)), Refused::KeyUsage);
    let not_critical = world.leaf(|params| {
        params.key_usages.clear();
        params.custom_extensions = vec![extension(15, false, tlv(3, &[7, 0x80]))];
    });
    world.check(&not_critical, Refused::KeyUsage);
}

#[test]
fn row_6_extended_key_usage_allows_both_sides_if_it_is_there() {
    let world = World::new();
    world.check(&world.leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]), Refused::ExtendedKeyUsage);
    world.check(&world.leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]), Refused::ExtendedKeyUsage);
    assert!(world.verifier.verify(&world.leaf(|params| params.extended_key_usages.clear()), unix(at(2)), Purpose::Client).is_ok());
}

#[test]
fn row_7_the_san_is_critical_when_the_subject_is_empty() {
    let world = World::new();
    let not_critical = world.leaf(|params| {
        params.subject_alt_names.clear();
        params.custom_extensions = vec![extension(17, false, tlv(0x30, &tlv(0x86, WEB.as_bytes())))];
    });
    world.check(&not_critical, Refused::SanNotCritical);
}

#[test]
fn row_8_a_signer_may_sign_and_never_authenticates() {
    let world = World::new();
    world.check(&world.west.chain()[..1], Refused::IsAuthority);
    world.check(&world.below_issuer(|params| params.is_ca = IsCa::ExplicitNoCa), Refused::IssuerNotAuthority);
    world.check(&world.below_issuer(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]), Refused::IssuerKeyUsage);
    world.check(&world.below_issuer(|params| params.key_usages.clear()), Refused::IssuerKeyUsage);
    world.check(&world.below_issuer(|params| params.subject_alt_names = vec![uri("spiffe://west.mesh/issuer")]), Refused::IssuerId);
    world.check(&world.below_issuer(|params| params.subject_alt_names.push(uri("spiffe://east.mesh"))), Refused::IssuerId);
    let (second, key) = signer("second", Some(&world.west.to_pem()), |_| {});
    let too_long = leaf_below(&(rcgen_pem(&second), key.serialize_pem().into()), &[second, world.west.chain()[0].clone()], |_| {});
    world.check(&too_long, Refused::IssuerNotAuthority);
}

#[test]
fn row_9_a_signer_with_uri_name_constraints_is_refused() {
    let world = World::new();
    let permitted = tlv(0x30, &tlv(0xa0, &tlv(0x30, &tlv(0x86, b"west.mesh"))));
    for critical in [true, false] {
        let chain = world.below_issuer(|params| params.custom_extensions = vec![extension(30, critical, permitted.clone())]);
        world.check(&chain, Refused::NameConstraints);
    }
}

#[test]
fn the_rule_an_issuer_of_another_trust_domain_can_not_issue_ours_even_below_a_shared_root() {
    let world = World::new();
    world.check(&leaf_below(&world.east.to_pem(), &world.east.chain()[..1], |_| {}), Refused::IssuerOfOtherTrustDomain);
    world.check(&world.below_issuer(|params| params.subject_alt_names.clear()), Refused::IssuerOfOtherTrustDomain);
    assert!(matches!(
        world.east.issue(&Csr::parse(&KeyPair::generate().unwrap().csr_der().unwrap()).unwrap(), &WEB.parse().unwrap(), at(1), HOUR),
        Err(IssueError::OtherTrustDomain { .. })
    ));
}

#[test]
fn the_rule_an_issuer_without_a_uri_is_itself_the_authority() {
    let (brought, key) = signer("brought", None, |params| params.subject_alt_names.clear());
    let issuer = Issuer::from_pem(&rcgen_pem(&brought), &key.serialize_pem()).unwrap();
    let bundle = Bundle::new("west.mesh".parse().unwrap(), 1, vec![issuer.bundle_authority().clone()]).unwrap();
    let svid = World::svid(&issuer, WEB);
    assert_eq!(svid.chain().len(), 1);
    assert!(Verifier::fixed(Bundles::of(bundle)).verify(svid.chain(), unix(at(2)), Purpose::Client).is_ok());
    let (of_east, key) = signer("brought", None, |params| params.subject_alt_names = vec![uri("spiffe://east.mesh")]);
    let bundle = Bundle::new("west.mesh".parse().unwrap(), 1, vec![of_east.clone()]).unwrap();
    let forged = leaf_below(&(rcgen_pem(&of_east), key.serialize_pem().into()), &[], |_| {});
    let verdict = Verifier::fixed(Bundles::of(bundle)).verify(&forged, unix(at(2)), Purpose::Client);
    assert_eq!(verdict, Err(Refused::IssuerOfOtherTrustDomain));
}

#[test]
fn what_is_no_chain_at_all_is_refused_too() {
    let world = World::new();
    world.check(&[], Refused::NoCertificate);
    world.check(&[CertificateDer::from(vec![0x30, 0x00])], Refused::Malformed);
    let (issuer, leaf) = (world.west.chain()[0].clone(), world.leaf(|_| {})[0].clone());
    let long: Chain = [leaf].into_iter().chain(std::iter::repeat_n(issuer, 5)).collect();
    world.check(&long, Refused::ChainTooLong);
    let own = leaf_params().self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone();
    world.check(&[own], Refused::SelfSigned);
}

#[test]
fn a_hostile_request_gets_a_workloads_certificate_and_nothing_that_it_asked_for() {
    let world = World::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wish = leaf_params();
    wish.subject_alt_names = vec![uri("spiffe://east.mesh/ns/isthmus-system/sa/mesh-gateway"), uri("spiffe://west.mesh")];
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wish.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let request = wish.serialize_request(&key).unwrap();
    let chain = world.west.issue(&Csr::parse(request.der()).unwrap(), &WEB.parse().unwrap(), at(1), HOUR * 9999).unwrap();
    let peer = world.verifier.verify(&chain.chain, unix(at(2)), Purpose::Client).unwrap();
    assert_eq!((peer.id().as_str(), peer.expires_at()), (WEB, world.west.expires_at()));
    let mut forged = request.der().to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(matches!(Csr::parse(&forged), Err(IssueError::Csr { .. })));
}

#[test]
fn an_svid_and_an_issuer_read_back_what_they_print() {
    let world = World::new();
    let svid = World::svid(&world.west, WEB);
    let read = Svid::from_pem(&svid.to_pem()).unwrap();
    assert_eq!((read.id(), read.chain(), read.not_after()), (svid.id(), svid.chain(), svid.not_after()));
    let (chain, key) = world.west.to_pem();
    let issuer = Issuer::from_pem(&chain, &key).unwrap();
    assert_eq!((issuer.trust_domain(), issuer.chain()), (world.west.trust_domain(), world.west.chain()));
    let other = World::svid(&world.west, WEB);
    assert!(Svid::new(KeyPair::generate().unwrap(), other.chain().to_vec()).is_err(), "another certificate's key");
    assert!(Root::from_pem(&world.root.to_pem().0, &key).is_err(), "another signer's key");
}

#[test]
fn a_chain_or_a_request_changed_in_any_byte_is_refused_and_never_panics() {
    let world = World::new();
    let chain = World::svid(&world.west, WEB).chain().to_vec();
    for changed in 0..chain.len() {
        for at_byte in 0..chain[changed].len() {
            let mut forged = chain.clone();
            let mut bytes = forged[changed].to_vec();
            bytes[at_byte] ^= 0x01;
            forged[changed] = bytes.into();
            assert!(world.verifier.verify(&forged, unix(at(2)), Purpose::Client).is_err(), "certificate {changed}, byte {at_byte}");
        }
    }
    let request = KeyPair::generate().unwrap().csr_der().unwrap();
    let signed = request.windows(4).position(|bytes| bytes == [0x30, 0x0a, 0x06, 0x08]).unwrap();
    for at_byte in 0..request.len() {
        let mut forged = request.clone();
        forged[at_byte] ^= 0x01;
        // The name of the algorithm, which follows, is not signed; it must not panic either.
        assert!(Csr::parse(&forged).is_err() || at_byte >= signed, "byte {at_byte}");
    }
    for cut in 0..request.len() {
        assert!(Csr::parse(&request[..cut]).is_err());
        assert!(world.verifier.verify(&[chain[0][..cut.min(chain[0].len())].to_vec().into()], unix(at(2)), Purpose::Client).is_err());
    }
}

#[derive(Debug)]
struct Fixed;

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(at(2)))
    }
}

/// One handshake in memory: what the server says, and what the client says at its first read.
struct Handshake {
    server: Result<ServerConnection, io::Error>,
    client: Result<ClientConnection, io::Error>,
}

fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Handshake {
    let (mut client_config, mut server_config) = (Arc::unwrap_or_clone(client), Arc::unwrap_or_clone(server));
    (client_config.time_provider, server_config.time_provider) = (Arc::new(Fixed), Arc::new(Fixed));
    let mut client = ClientConnection::new(Arc::new(client_config), tls::server_name()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server_config)).unwrap();
    let (mut client_says, mut server_says) = (Ok(()), Ok(()));
    for _ in 0..4 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && server_says.is_ok() {
            server.read_tls(&mut rest).unwrap();
            server_says = server.process_new_packets().map(|_| ()).map_err(io::Error::other);
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && client_says.is_ok() {
            client.read_tls(&mut rest).unwrap();
            client_says = client.process_new_packets().map(|_| ()).map_err(io::Error::other);
        }
    }
    Handshake { server: server_says.map(|()| server), client: client_says.map(|()| client) }
}

impl World {
    fn server(&self, clients: ClientAuth) -> Arc<ServerConfig> {
        let svid = Self::svid(&self.east, "spiffe://east.mesh/ns/shop/sa/catalog");
        server_config(&svid, &self.verifier, &[b"isthmus/1"], clients)
    }

    fn client(&self, svid: Option<&Svid>) -> Arc<ClientConfig> {
        let catalog = "spiffe://east.mesh/ns/shop/sa/catalog".parse().unwrap();
        let other = Verifier::new(Arc::clone(&self.verifier.bundles), Refusals::default());
        client_config(svid, &other, Expected::only(catalog), &[b"isthmus/1"])
    }

    fn check_handshake(&self, svid: Option<&Svid>, expected: Refused) {
        let before = self.verifier.refusals().of(expected);
        let shaken = shake(self.client(svid), self.server(ClientAuth::Required));
        let error = shaken.server.expect_err("the server refuses");
        assert_eq!(self.verifier.refusals().handshake_failed(&error), Some(expected));
        assert_eq!(self.verifier.refusals().of(expected), before + 1, "{expected:?} is counted once");
        let told = shaken.client.expect_err("the client is told").to_string();
        assert!(told.contains("alert"), "{told}");
    }
}

#[test]
fn both_sides_of_a_handshake_learn_who_the_other_is_under_a_hybrid_key_exchange() {
    let world = World::new();
    let shaken = shake(world.client(Some(&World::svid(&world.west, WEB))), world.server(ClientAuth::Required));
    let (server, client) = (shaken.server.unwrap(), shaken.client.unwrap());
    let caller = tls::peer_of(&world.verifier, server.peer_certificates(), unix(at(2)), Purpose::Client).unwrap();
    let called = tls::peer_of(&world.verifier, client.peer_certificates(), unix(at(2)), Purpose::Server).unwrap();
    assert_eq!((caller.id().as_str(), called.id().as_str()), (WEB, "spiffe://east.mesh/ns/shop/sa/catalog"));
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(server.alpn_protocol(), Some(&b"isthmus/1"[..]));
}

#[test]
fn a_server_refuses_each_wrong_client_with_its_own_counter_and_an_alert() {
    let world = World::new();
    let issue = |issuer: &Issuer, id: &str| World::svid(issuer, id);
    world.check_handshake(None, Refused::NoCertificate);
    let north = world.root.issuer_for(&"north.mesh".parse().unwrap(), at(0), HOUR * 9).unwrap();
    world.check_handshake(Some(&issue(&north, "spiffe://north.mesh/ns/shop/sa/web")), Refused::UnknownTrustDomain);
    let rogue = Root::generate("shared", at(0), HOUR * 1000).unwrap().issuer_for(&"west.mesh".parse().unwrap(), at(0), HOUR * 9).unwrap();
    world.check_handshake(Some(&issue(&rogue, WEB)), Refused::UntrustedIssuer);
    let with_own_key = |make: &dyn Fn(&rcgen::KeyPair) -> Chain| {
        let key = rcgen::KeyPair::generate().unwrap();
        Svid::new(KeyPair::from_pem(&key.serialize_pem()).unwrap(), make(&key)).unwrap()
    };
    let expired = with_own_key(&|key| {
        let mut params = leaf_params();
        (params.not_before, params.not_after) = (at(0).into(), at(1).into());
        let leaf = params.signed_by(key, &rcgen_issuer(&world.west.to_pem())).unwrap();
        vec![leaf.der().clone(), world.west.chain()[0].clone()]
    });
    world.check_handshake(Some(&expired), Refused::Expired);
    world.check_handshake(Some(&with_own_key(&|key| vec![leaf_params().self_signed(key).unwrap().der().clone()])), Refused::SelfSigned);
    let forged = with_own_key(&|key| {
        let leaf = leaf_params().signed_by(key, &rcgen_issuer(&world.east.to_pem())).unwrap();
        vec![leaf.der().clone(), world.east.chain()[0].clone()]
    });
    world.check_handshake(Some(&forged), Refused::IssuerOfOtherTrustDomain);
}

#[test]
fn a_server_that_asks_without_insisting_lets_a_nameless_client_in() {
    let world = World::new();
    let shaken = shake(world.client(None), world.server(ClientAuth::Optional));
    assert!(shaken.client.is_ok());
    assert!(shaken.server.unwrap().peer_certificates().is_none());
}

#[test]
fn a_client_accepts_only_whom_it_expects() {
    let world = World::new();
    let refusals = Refusals::default();
    let verifier = Verifier::new(Arc::clone(&world.verifier.bundles), refusals.clone());
    let expected = Expected::only("spiffe://east.mesh/ns/shop/sa/cart".parse().unwrap());
    let client = client_config(Some(&World::svid(&world.west, WEB)), &verifier, expected, &[b"isthmus/1"]);
    let error = shake(client, world.server(ClientAuth::Required)).client.expect_err("it is not the cart");
    assert_eq!(Refused::of_handshake(&error), Some(Refused::UnexpectedIdentity));
    assert_eq!(refusals.of(Refused::UnexpectedIdentity), 1);
}

#[test]
fn every_reason_has_its_own_label() {
    let labels: BTreeSet<&str> = Refused::ALL.iter().map(|refused| refused.reason()).collect();
    assert_eq!(labels.len(), Refused::ALL.len());
}
