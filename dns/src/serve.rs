//! The DNS server's shell: hickory reads and writes messages, [`answer`] decides.
//!
//! Authoritative only and never recursive: names outside the mesh's zones are refused, so the server can't be used as an open resolver. ANY is
//! answered as RFC 8482 allows, with nothing. UDP answers are at most 1232 bytes; a longer one is truncated and asked again over TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NS, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;
use mesh_topology::Snapshot;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UdpSocket};

use crate::answer::{Answer, Code, Data, Kind, answer};

/// The sockets of the server, open.
pub struct Bound {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Opens UDP and TCP on one address; port 0 picks a port that is free for both.
    ///
    /// # Errors
    /// When one of them is taken.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let udp = UdpSocket::bind(address).await?;
        let address = udp.local_addr()?;
        let tcp = TcpListener::bind(address).await?;
        Ok(Self { udp, tcp, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers from whatever `topology` holds, until `stop` resolves.
    ///
    /// # Errors
    /// When the sockets can't be read any more.
    pub async fn serve(self, topology: Arc<ArcSwap<Snapshot>>, queries: Queries, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut server = Server::new(Handler { topology, queries });
        server.register_socket(self.udp);
        server.register_listener(self.tcp, TCP_IDLE, TCP_RESPONSES);
        tokio::select! {
            ended = server.block_until_done() => ended?,
            () = stop => server.shutdown_gracefully().await?,
        }
        Ok(())
    }
}

/// `mesh_dns_queries_total{rcode,type}`.
#[derive(Clone, Debug, Default)]
pub struct Queries(Family<QueryLabels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    rcode: &'static str,
    r#type: &'static str,
}

impl Queries {
    /// The counter, registered.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let queries = Self::default();
        registry.register("mesh_dns_queries", "DNS questions by answer and type", queries.0.clone());
        queries
    }

    fn count(&self, code: ResponseCode, kind: Kind) {
        let rcode = match code {
            ResponseCode::NoError => "NOERROR",
            ResponseCode::NXDomain => "NXDOMAIN",
            ResponseCode::Refused => "REFUSED",
            ResponseCode::ServFail => "SERVFAIL",
            ResponseCode::FormErr => "FORMERR",
            _ => "NOTIMP",
        };
        let r#type = match kind {
            Kind::A => "A",
            Kind::Aaaa => "AAAA",
            Kind::Srv => "SRV",
            Kind::Txt => "TXT",
            Kind::Soa => "SOA",
            Kind::Ns => "NS",
            Kind::Other => "other",
        };
        self.0.get_or_create(&QueryLabels { rcode, r#type }).inc();
    }
}

struct Handler {
    topology: Arc<ArcSwap<Snapshot>>,
    queries: Queries,
}

/// A whole response before it is encoded.
struct Response {
    code: ResponseCode,
    kind: Kind,
    answers: Vec<Record>,
    authority: Vec<Record>,
}

impl Response {
    fn bare(code: ResponseCode) -> Self {
        Self { code, kind: Kind::Other, answers: Vec::new(), authority: Vec::new() }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let response = self.respond(request);
        self.queries.count(response.code, response.kind);
        let mut metadata = Metadata::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
        metadata.recursion_desired = request.metadata.recursion_desired;
        metadata.authoritative = !matches!(response.code, ResponseCode::Refused | ResponseCode::FormErr | ResponseCode::NotImp);
        metadata.response_code = response.code;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, UDP_PAYLOAD_MAX)).set_version(0);
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let message = builder.build(metadata, &response.answers, &response.authority, &[], &[]);
        match handle.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "answer not sent");
                hickory_proto::op::Header { metadata, counts: hickory_proto::op::HeaderCounts::default() }.into()
            }
        }
    }
}

impl Handler {
    fn respond(&self, request: &Request) -> Response {
        if request.metadata.message_type != MessageType::Query || request.metadata.op_code != OpCode::Query {
            return Response::bare(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return Response::bare(ResponseCode::FormErr) };
        let asked = Name::from(info.query.name());
        let mut text = asked.to_ascii().to_ascii_lowercase();
        if text.ends_with('.') {
            text.pop();
        }
        let kind = kind_of(info.query.query_type());
        let found = answer(&self.topology.load(), &text, kind);
        response_of(&asked, kind, &found)
    }
}

fn response_of(asked: &Name, kind: Kind, found: &Answer) -> Response {
    let code = match found.code {
        Code::NoError => ResponseCode::NoError,
        Code::NxDomain => ResponseCode::NXDomain,
        Code::Refused => ResponseCode::Refused,
        Code::ServFail => ResponseCode::ServFail,
    };
    let origin = found.origin.as_deref().and_then(|origin| absolute(origin).ok());
    let record = |(data, ttl): &(Data, u32)| Some(Record::from_rdata(asked.clone(), *ttl, rdata(data, origin.as_ref())?));
    let answers: Vec<Record> = found.records.iter().filter_map(record).collect();
    let negative = answers.is_empty() && matches!(found.code, Code::NoError | Code::NxDomain);
    let soa = origin.as_ref().filter(|_| negative);
    let authority = soa.into_iter().map(|origin| Record::from_rdata(origin.clone(), NEGATIVE_TTL, RData::SOA(soa_of(origin)))).collect();
    Response { code, kind, answers, authority }
}

fn rdata(data: &Data, origin: Option<&Name>) -> Option<RData> {
    Some(match data {
        Data::Address(std::net::IpAddr::V4(ip)) => RData::A(A(*ip)),
        Data::Address(std::net::IpAddr::V6(ip)) => RData::AAAA(AAAA(*ip)),
        Data::Srv { weight, port, target } => RData::SRV(SRV::new(0, *weight, *port, absolute(target).ok()?)),
        Data::Text(text) => RData::TXT(TXT::new(vec![text.clone()])),
        Data::Soa => RData::SOA(soa_of(origin?)),
        Data::Ns => RData::NS(NS(server_of(origin?))),
    })
}

fn absolute(name: &str) -> Result<Name, hickory_proto::ProtoError> {
    Name::from_ascii(format!("{name}."))
}

/// Serial 1: nobody transfers these zones. The minimum is the negative time to live (RFC 2308).
fn soa_of(origin: &Name) -> SOA {
    let contact = Name::from_ascii("hostmaster").and_then(|name| name.append_domain(origin)).unwrap_or_else(|_| origin.clone());
    SOA::new(server_of(origin), contact, 1, 7200, 1800, 86_400, NEGATIVE_TTL)
}

fn server_of(origin: &Name) -> Name {
    Name::from_ascii("ns.dns").and_then(|name| name.append_domain(origin)).unwrap_or_else(|_| origin.clone())
}

fn kind_of(asked: RecordType) -> Kind {
    match asked {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::SRV => Kind::Srv,
        RecordType::TXT => Kind::Txt,
        RecordType::SOA => Kind::Soa,
        RecordType::NS => Kind::Ns,
        _ => Kind::Other,
    }
}

const NEGATIVE_TTL: u32 = 5;
/// The size that passes everywhere without fragments (DNS flag day 2020).
const UDP_PAYLOAD_MAX: u16 = 1232;
/// A TCP client that says nothing is cut.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers waiting for one TCP client; past them its next question is not read.
const TCP_RESPONSES: usize = 64;
