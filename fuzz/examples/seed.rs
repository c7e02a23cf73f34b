//! Writes the first entries of the corpora: valid messages of every kind, from which a fuzzer finds the rest. `cargo run --example seed`.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use hickory_proto::op::{Edns, Message as DnsMessage, Query};
use hickory_proto::rr::{Name, RecordType};
use mesh_api::proto::{Complete, ExportedEndpoint, ExportedPort, ExportedService, ExportsUpdate, ServiceRef};
use mesh_transport::tunnel::{Control, Export, Status, Target, TunnelReply, TunnelRequest};
use prost::Message;

const CLUSTER: &str = "0b9e7c1a-0000-4000-8000-000000000001";

fn main() -> std::io::Result<()> {
    let export = |handle: Option<&str>| {
        Target::Export(Export {
            cluster: CLUSTER.parse().unwrap(),
            service: "shop/web".parse().unwrap(),
            port: "80".parse().unwrap(),
            handle: handle.map(|handle| handle.parse().unwrap()),
        })
    };
    let request = |target: Target, hops: u32| TunnelRequest { hops, ..TunnelRequest::new(target) }.encode()[2..].to_vec();
    write("tunnel", "export", &request(export(None), 0))?;
    write("tunnel", "export-handle", &request(export(Some("a1b2c3d4e5f60718")), 1))?;
    write("tunnel", "watch", &request(Target::Watch, 0))?;
    write("tunnel", "control", &request(Target::Control(Control::Exports), 0))?;
    write("tunnel", "accepted", &TunnelReply::accepted(Some("a1b2c3d4e5f60718".parse().unwrap())).encode()[2..])?;
    write("tunnel", "busy", &TunnelReply::new(Status::Busy, "the quota of west.mesh is used up").encode()[2..])?;

    write("target", "port", b"port/8080")?;
    write("target", "export", format!("export/{CLUSTER}/shop/web/80").as_bytes())?;

    for (name, asked, kind) in [
        ("address", "web.shop.svc.clusterset.local.", RecordType::A),
        ("address6", "web.shop.svc.east.mesh.", RecordType::AAAA),
        ("srv", "_http._tcp.web.shop.svc.clusterset.local.", RecordType::SRV),
        ("version", "dns-version.clusterset.local.", RecordType::TXT),
        ("headless", "stock-0.east.stock.shop.svc.clusterset.local.", RecordType::A),
        ("elsewhere", "example.com.", RecordType::ANY),
    ] {
        let mut message = DnsMessage::query();
        message.add_query(Query::query(Name::from_str(asked).unwrap(), kind));
        message.set_edns(Edns::new());
        write("dns", name, &message.to_vec().unwrap())?;
    }

    let id = || Some(ServiceRef { namespace: "shop".to_owned(), name: "web".to_owned() });
    let service = ExportedService {
        id: id(),
        ports: vec![ExportedPort { name: "http".to_owned(), number: 80, transport: "TCP".to_owned(), app_protocol: "http".to_owned() }],
        identities: vec!["spiffe://east.mesh/ns/shop/sa/web".to_owned()],
        endpoints: vec![ExportedEndpoint { handle: "a1b2c3d4e5f60718".to_owned(), hostname: "web-0".to_owned(), ready: true, weight: 1 }],
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        ..ExportedService::default()
    };
    let merged = ExportedService {
        created_at: 1_760_000_000,
        session_affinity: "ClientIP".to_owned(),
        session_affinity_timeout: 10,
        internal_traffic_policy: "Local".to_owned(),
        traffic_distribution: "PreferClose".to_owned(),
        annotations: [("note".to_owned(), "for all".to_owned())].into(),
        ip_families: vec!["IPv6".to_owned(), "IPv4".to_owned()],
        ..service.clone()
    };
    let complete = Some(Complete { cluster_id: CLUSTER.to_owned() });
    let full = ExportsUpdate { full: true, upserts: vec![service], complete, lease_seconds: 30, ..ExportsUpdate::default() };
    write("exports", "full", &full.encode_to_vec())?;
    write("exports", "merged", &ExportsUpdate { upserts: vec![merged], ..full }.encode_to_vec())?;
    write("exports", "removal", &ExportsUpdate { removals: id().into_iter().collect(), ..ExportsUpdate::default() }.encode_to_vec())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}
