//! The DNS server on real sockets: UDP and TCP give the same answers, and odd messages are answered, never dropped.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use mesh_dns::serve::{Bound, Queries};
use mesh_topology::{Change, Own, Snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

async fn start() -> (SocketAddr, tokio::sync::oneshot::Sender<()>) {
    let own = Own { cluster: "west".parse().unwrap(), id: None, trust_domain: "west.mesh".parse().unwrap(), ranges: Vec::new() };
    let topology = Arc::new(ArcSwap::from_pointee(Snapshot::empty(own).with([Change::Complete("w1".parse().unwrap())])));
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = bound.address();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(bound.serve(topology, Queries::default(), async move { drop(stopped.await) }));
    (address, stop)
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn over_udp(to: SocketAddr, bytes: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(bytes, to).await.unwrap();
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn over_tcp(to: SocketAddr, bytes: &[u8]) -> Message {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut buffer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

#[tokio::test]
async fn udp_and_tcp_give_the_same_answer() {
    let (at, _stop) = start().await;
    let asked = question("dns-version.clusterset.local.", RecordType::TXT).to_vec().unwrap();
    for answer in [over_udp(at, &asked).await, over_tcp(at, &asked).await] {
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.metadata.authoritative);
        assert_eq!(answer.answers.len(), 1);
    }
}

#[tokio::test]
async fn a_negative_answer_carries_the_zones_soa() {
    let (at, _stop) = start().await;
    let answer = over_udp(at, &question("none.shop.svc.clusterset.local.", RecordType::A).to_vec().unwrap()).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
}

#[tokio::test]
async fn two_questions_are_a_format_error_and_an_update_is_not_implemented() {
    let (at, _stop) = start().await;
    let mut two = question("a.clusterset.local.", RecordType::A);
    two.add_query(Query::query(Name::from_ascii("b.clusterset.local.").unwrap(), RecordType::A));
    assert_eq!(over_udp(at, &two.to_vec().unwrap()).await.metadata.response_code, ResponseCode::FormErr);
    let mut notify = question("clusterset.local.", RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(over_udp(at, &notify.to_vec().unwrap()).await.metadata.response_code, ResponseCode::NotImp);
}
