//! Every parser of other people's bytes, as a function that takes any bytes and must not panic. What is parsed must also survive being
//! written and parsed again, so that no two readers of one message disagree. Each function answers whether the bytes were understood, so that
//! a corpus of nothing but rubbish is noticed.
//!
//! `cargo fuzz run --features libfuzzer NAME` looks for new inputs (cargo-fuzz, nightly); what it finds is added to `corpus/NAME/`.
//! `cargo xtask ci` replays the corpora, and small changes of each entry, on the stable toolchain.

use std::str::FromStr;
use std::sync::LazyLock;

use hickory_proto::op::Message as DnsMessage;
use hickory_proto::serialize::binary::BinDecodable;
use mesh_api::client::exports::ExportsState;
use mesh_api::proto::ExportsUpdate;
use mesh_dns::answer::{Code, Kind, answer};
use mesh_names::{ClusterId, ServiceId};
use mesh_topology::change::Change;
use mesh_topology::{Import, ImportKind, Own, Snapshot};
use mesh_transport::session::StreamTarget;
use mesh_transport::tunnel::{TunnelReply, TunnelRequest};
use prost::Message;

/// A target: its name, which is its corpus's folder, and its function.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// Every target.
pub const TARGETS: &[Target] = &[("tunnel", tunnel), ("target", target), ("dns", dns), ("exports", exports)];

/// What opens a tunnel, and what answers it, without the length before it.
pub fn tunnel(bytes: &[u8]) -> bool {
    let (request, reply) = (TunnelRequest::decode(bytes), TunnelReply::decode(bytes));
    let understood = request.is_ok() || reply.is_ok();
    if let Ok(request) = request {
        let again = TunnelRequest::decode(&request.encode()[2..]);
        assert_eq!(again.ok().as_ref(), Some(&request), "a request reads back what it wrote");
    }
    if let Ok(reply) = reply {
        let again = TunnelReply::decode(&reply.encode()[2..]);
        assert_eq!(again.ok().as_ref(), Some(&reply), "a reply reads back what it wrote");
    }
    understood
}

/// The header that names a stream's target.
pub fn target(bytes: &[u8]) -> bool {
    let Some(target) = std::str::from_utf8(bytes).ok().and_then(|text| StreamTarget::from_str(text).ok()) else { return false };
    let written = target.to_header();
    let again = written.to_str().ok().and_then(|text| text.parse().ok());
    assert_eq!(again, Some(target), "a target reads back what it wrote");
    true
}

/// A DNS message, and the answer to each of its questions.
pub fn dns(bytes: &[u8]) -> bool {
    let Ok(message) = DnsMessage::from_bytes(bytes) else { return false };
    for query in &message.queries {
        let mut name = query.name().to_ascii().to_ascii_lowercase();
        if name.ends_with('.') {
            name.pop();
        }
        for kind in [Kind::A, Kind::Aaaa, Kind::Srv, Kind::Txt] {
            let found = answer(&SNAPSHOT, &name, kind);
            assert!(found.origin.is_some() || found.code == Code::Refused, "{name} lies in no zone of ours and is answered");
        }
    }
    !message.queries.is_empty()
}

/// What a peer says that it exports: once as the first message, and once as a change of what was said before.
pub fn exports(bytes: &[u8]) -> bool {
    let Ok(update) = ExportsUpdate::decode(bytes) else { return false };
    let mut state = ExportsState::new(known("0b9e7c1a-0000-4000-8000-000000000001"));
    // Whether it is taken or refused is the peer's affair; that we go on is ours.
    let _ = state.on_update(update.clone());
    let _ = state.on_update(update);
    state.on_disconnect();
    state.exports().is_some()
}

/// A complete snapshot with one service of the cluster set, so that names are found and not found.
static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let own = Own { cluster: known("west"), id: None, trust_domain: known("west.mesh"), ranges: Vec::new() };
    let web: ServiceId = known("shop/web");
    let import = Import {
        id: web.clone(),
        addresses: vec![[127, 1, 128, 1].into()],
        kind: ImportKind::ClusterSetIp,
        ports: Vec::new(),
        own: true,
        clusters: Vec::new(),
    };
    let cluster: ClusterId = known("0b9e7c1a-0000-4000-8000-000000000001");
    Snapshot::empty(own).with([Change::Import(web, Some(import)), Change::Complete(cluster)])
});

fn known<T: FromStr>(text: &str) -> T {
    T::from_str(text).unwrap_or_else(|_| panic!("{text} is a name"))
}
