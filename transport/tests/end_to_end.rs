//! Two in-process peers on loopback with certificates of two trust domains: sessions, tunnels and the pool, end to end.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test: what fails here fails the test")]

mod world;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use mesh_runtime::drain::{self, Drain};
use mesh_runtime::tasks::Tasks;
use mesh_topology::Gateway;
use mesh_topology::loads::Stage;
use mesh_transport::plan::{Answering, Way};
use mesh_transport::pool::Settings;
use mesh_transport::session::{self, Incoming, Kind, Limits, Served, StreamTarget};
use mesh_transport::tunnel::{self, Export, Target, Timeouts, TunnelReply, watch};
use mesh_transport::{Acceptor, Identity, Plan, Pool, SESSION_ALPN, TUNNEL_ALPN, splice, tcp};
use mesh_trust::Refused;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use world::{HOUR, SOON, Server, World, eventually, id, on_a_worker, pool, time_passes};

async fn text(response: Response<session::RecvBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "web.shop").body(Full::default()).unwrap()
}

#[test]
fn a_request_reaches_the_server_with_the_callers_identity_and_one_session_serves_many() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let (pool, plan) = (pool(&world.identity("west.mesh/ns/shop/sa/front")), server.plan("east.mesh/ns/shop/sa/web"));
        let both = async || {
            let lease = pool.checkout(&plan).await.unwrap();
            let body = Full::new(Bytes::from(vec![b'x'; 300_000]));
            let request = Request::post("/a?b").header("host", "web.shop").header("isthmus-target", "port/22").body(body).unwrap();
            text(lease.request(request).await.unwrap()).await
        };
        let (one, two) = tokio::join!(both(), both());
        assert!(one.starts_with("spiffe://west.mesh/ns/shop/sa/front POST http://web.shop/a?b port/8080 xxx"), "{}", &one[..100]);
        assert_eq!((one.len(), two.len()), (one.len(), one.len()));
        assert!(pool.checkout(&plan).await.unwrap().is_reused());
        assert_eq!(server.accepted.get(), 1, "two streams that wait dial once");
        assert_eq!(pool.usage().streams, 0);
    });
}

#[test]
fn a_response_may_begin_before_the_request_has_ended_and_trailers_pass() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let pool = pool(&world.identity("west.mesh/ns/shop/sa/front"));
        let lease = pool.checkout(&server.plan("east.mesh/ns/shop/sa/web")).await.unwrap();
        let (say, said) = tokio::sync::mpsc::channel::<Frame<Bytes>>(1);
        let frames =
            futures_util::stream::unfold(said, async |mut said| said.recv().await.map(|frame| (Ok::<_, std::io::Error>(frame), said)));
        let response = lease.request(Request::post("http://web.shop/echo").body(StreamBody::new(frames)).unwrap()).await.unwrap();
        let mut heard = response.into_body();
        for word in ["one", "two"] {
            say.send(Frame::data(word.into())).await.unwrap();
            assert_eq!(heard.frame().await.unwrap().unwrap().into_data().unwrap(), word);
        }
        let trailers = http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))]);
        say.send(Frame::trailers(trailers.clone())).await.unwrap();
        assert_eq!(heard.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
        assert!(heard.frame().await.is_none());
    });
}

#[test]
fn a_request_whose_body_breaks_is_reset_and_never_looks_complete() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let pool = pool(&world.identity("west.mesh/ns/shop/sa/front"));
        let lease = pool.checkout(&server.plan("east.mesh/ns/shop/sa/web")).await.unwrap();
        let frames = [Ok(Frame::data(Bytes::from("half"))), Err(std::io::Error::other("gone"))];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        assert!(lease.request(Request::post("http://web.shop/").body(body).unwrap()).await.is_err());
        assert_eq!(lease.request(get("/")).await.unwrap().status(), StatusCode::OK, "the session goes on");
    });
}

#[test]
fn a_renewed_svid_is_proved_by_the_next_handshake() {
    on_a_worker(async {
        let world = World::new();
        let name = "east.mesh/ns/shop/sa/web";
        let identity = world.identity_for(name, HOUR);
        let server = Server::start(&identity, Limits::default(), &Drain::never());
        let (pool, plan) = (pool(&world.identity("west.mesh/ns/shop/sa/front")), server.plan(name));
        let before = pool.checkout(&plan).await.unwrap();
        identity.renew(world.identity(name).svid());
        pool.clear();
        let after = pool.checkout(&plan).await.unwrap();
        assert!(after.session().peer().expires_at() > before.session().peer().expires_at());
    });
}

#[test]
fn a_raw_connection_half_closes_and_the_server_may_speak_first() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let pool = pool(&world.identity("east.mesh/ns/shop/sa/front"));
        let lease = pool.checkout(&server.plan("east.mesh/ns/shop/sa/web")).await.unwrap();
        let mut raw = lease.raw().await.unwrap();
        let mut greeting = [0; 6];
        raw.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello ");
        let sent = vec![9; 3_000_000];
        raw.write_all(&sent).await.unwrap();
        raw.shutdown().await.unwrap();
        let mut echoed = Vec::new();
        raw.read_to_end(&mut echoed).await.unwrap();
        assert!(echoed == sent, "{} bytes came back", echoed.len());
    });
}

#[test]
fn a_refused_raw_connection_says_why() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let pool = pool(&world.identity("east.mesh/ns/shop/sa/front"));
        let lease = pool.checkout(&server.plan("east.mesh/ns/shop/sa/web")).await.unwrap();
        let error = lease.session().raw(&StreamTarget::Port("1".parse().unwrap())).await.unwrap_err();
        assert_eq!(error.to_string(), "the peer refused the connection: 403 Forbidden no-such-port");
    });
}

#[test]
fn a_stream_that_is_dropped_is_seen_as_a_reset_and_not_as_an_end() {
    on_a_worker(async {
        let world = World::new();
        let listener = tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = Acceptor::new(world.identity("east.mesh/ns/shop/sa/web"), SESSION_ALPN);
        let (seen, mut told) = tokio::sync::mpsc::channel(1);
        let mut tasks = Tasks::new();
        tasks.spawn_local(async move {
            let (stream, peer) = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let (limits, drain, revoked) = (Limits::default(), Drain::never(), CancellationToken::new());
            let served = Served { peer: Arc::new(peer), life: HOUR, limits, drain, revoked };
            let handler = move |incoming: Incoming| {
                let seen = seen.clone();
                async move {
                    let Kind::Raw(offer) = incoming.kind else { return };
                    let mut stream = offer.accept().unwrap();
                    seen.send(stream.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind())).await.unwrap();
                }
            };
            session::serve(stream, served, handler).await.unwrap();
        });
        let pool = pool(&world.identity("east.mesh/ns/shop/sa/front"));
        let expected = Answering::OneOf(Arc::new(BTreeSet::from([id("east.mesh/ns/shop/sa/web")])));
        let plan = Plan { way: Way::Local(address), expected, target: "port/80".parse().unwrap() };
        let mut raw = pool.checkout(&plan).await.unwrap().raw().await.unwrap();
        raw.write_all(b"half of it").await.unwrap();
        drop(raw);
        assert_eq!(told.recv().await, Some(Err(std::io::ErrorKind::ConnectionReset)));
    });
}

#[test]
fn a_server_with_another_identity_is_refused_and_charged_to_the_session() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let identity = world.identity("west.mesh/ns/shop/sa/front");
        let error = pool(&identity).checkout(&server.plan("east.mesh/ns/shop/sa/other")).await.unwrap_err();
        assert_eq!(error.stage, Stage::Session);
        assert_eq!(identity.verifier().refusals().of(Refused::UnexpectedIdentity), 1);
    });
}

#[test]
fn a_warm_session_is_not_used_for_a_caller_that_expects_somebody_else() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let pool = pool(&world.identity("west.mesh/ns/shop/sa/front"));
        pool.checkout(&server.plan("east.mesh/ns/shop/sa/web")).await.unwrap();
        assert!(pool.checkout(&server.plan("east.mesh/ns/shop/sa/other")).await.is_err());
        assert!(pool.checkout(&server.plan("east.mesh/ns/shop/sa/web")).await.unwrap().is_reused());
    });
}

#[test]
fn a_draining_server_gets_no_new_streams_and_finishes_the_old_ones() {
    on_a_worker(async {
        let world = World::new();
        let (trigger, drain) = drain::channel(SOON);
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &drain);
        let (pool, plan) = (pool(&world.identity("west.mesh/ns/shop/sa/front")), server.plan("east.mesh/ns/shop/sa/web"));
        let lease = pool.checkout(&plan).await.unwrap();
        let mut raw = lease.raw().await.unwrap();
        trigger.start();
        eventually("GOAWAY", || !lease.session().is_open()).await;
        raw.write_all(b"late").await.unwrap();
        raw.shutdown().await.unwrap();
        let mut echoed = String::new();
        raw.read_to_string(&mut echoed).await.unwrap();
        assert_eq!(echoed, "hello late");
        assert!(!pool.checkout(&plan).await.unwrap().is_reused());
        assert_eq!(server.accepted.get(), 2);
    });
}

#[test]
fn a_revoked_session_ends_at_once_with_its_streams() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let (pool, plan) = (pool(&world.identity("west.mesh/ns/shop/sa/front")), server.plan("east.mesh/ns/shop/sa/web"));
        let lease = pool.checkout(&plan).await.unwrap();
        let waiting = lease.request(get("/never"));
        let revoking = async {
            eventually("the stream", || lease.session().in_flight() == 1).await;
            server.revoked.cancel();
        };
        let (answered, ()) = tokio::join!(waiting, revoking);
        assert!(!answered.unwrap_err().is_unprocessed(), "the server had begun with it");
        eventually("the end", || !lease.session().is_open()).await;
        assert!(lease.request(get("/")).await.unwrap_err().is_unprocessed(), "nothing of it was sent");
    });
}

#[test]
fn a_request_that_a_drain_cuts_off_does_not_look_as_if_nobody_had_begun_with_it() {
    on_a_worker(async {
        let world = World::new();
        let (trigger, drain) = drain::channel(SOON);
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &drain);
        let (pool, plan) = (pool(&world.identity("west.mesh/ns/shop/sa/front")), server.plan("east.mesh/ns/shop/sa/web"));
        let lease = pool.checkout(&plan).await.unwrap();
        // Its body has arrived when the raw stream behind it is answered, so the server has begun with it.
        let waiting = lease.request(get("/never"));
        let cutting = async {
            let mut raw = lease.raw().await.unwrap();
            raw.read_exact(&mut [0; 6]).await.unwrap();
            trigger.start();
            eventually("GOAWAY", || !lease.session().is_open()).await;
            trigger.hurry();
        };
        let (answered, ()) = tokio::join!(waiting, cutting);
        assert!(!answered.unwrap_err().is_unprocessed());
    });
}

#[test]
fn a_session_whose_peer_is_no_longer_trusted_is_ended() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let (pool, plan) = (pool(&world.identity("west.mesh/ns/shop/sa/front")), server.plan("east.mesh/ns/shop/sa/web"));
        let lease = pool.checkout(&plan).await.unwrap();
        let without = world.bundles.load().as_ref().clone().without(&"east.mesh".parse().unwrap());
        world.bundles.store(Arc::new(without));
        pool.sweep();
        lease.session().ended().await;
        assert_eq!(pool.usage().sessions, 0);
        assert!(pool.checkout(&plan).await.is_err());
    });
}

#[test]
fn no_session_outlives_an_svid_and_it_is_replaced_before() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let identity = world.identity_for("west.mesh/ns/shop/sa/front", Duration::from_secs(3));
        let (pool, plan) = (pool(&identity), server.plan("east.mesh/ns/shop/sa/web"));
        let lease = pool.checkout(&plan).await.unwrap();
        identity.renew(world.identity("west.mesh/ns/shop/sa/front").svid());
        eventually("replacement", || !lease.session().is_open()).await;
        assert!(!pool.checkout(&plan).await.unwrap().is_reused());
        lease.session().ended().await;
    });
}

#[test]
fn an_idle_session_is_closed_and_one_in_use_is_not() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let settings = Settings { idle: Duration::from_millis(30), ..Settings::default() };
        let pool = Pool::new(world.identity("west.mesh/ns/shop/sa/front"), settings);
        let plan = server.plan("east.mesh/ns/shop/sa/web");
        let raw = pool.checkout(&plan).await.unwrap().raw().await.unwrap();
        time_passes(Duration::from_millis(60)).await;
        pool.sweep();
        assert_eq!(pool.usage().sessions, 1);
        drop(raw);
        eventually("closing", || {
            pool.sweep();
            pool.usage().sessions == 0
        })
        .await;
    });
}

#[test]
fn a_dead_peer_is_noticed_by_pings_while_a_stream_waits() {
    on_a_worker(async {
        let world = World::new();
        let (server, client) = (world.identity("east.mesh/ns/shop/sa/web"), world.identity("east.mesh/ns/shop/sa/front"));
        let listener = tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = Tasks::new();
        tasks.spawn_local(async move {
            // A peer that takes part in the TLS handshake and never says a word more.
            let (stream, _) = Acceptor::new(server, SESSION_ALPN).accept(listener.accept().await.unwrap().0).await.unwrap();
            std::future::pending::<()>().await;
            drop(stream);
        });
        let quick = Duration::from_millis(50);
        let limits = Limits { ping_every: quick, ping_answer: quick, ..Limits::default() };
        let pool = Pool::new(client, Settings { limits, ..Settings::default() });
        let expected = Answering::OneOf(Arc::new(BTreeSet::from([id("east.mesh/ns/shop/sa/web")])));
        let plan = Plan { way: Way::Local(address), expected, target: "port/80".parse().unwrap() };
        let lease = pool.checkout(&plan).await.unwrap();
        assert!(lease.request(get("/")).await.is_err());
        assert!(!lease.session().is_open());
    });
}

#[test]
fn streams_past_a_sessions_limit_open_another_session() {
    on_a_worker(async {
        let world = World::new();
        let limits = Limits { streams: 2, ..Limits::default() };
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), limits, &Drain::never());
        let (pool, plan) = (pool(&world.identity("west.mesh/ns/shop/sa/front")), server.plan("east.mesh/ns/shop/sa/web"));
        let mut streams = Vec::new();
        for _ in 0..4 {
            streams.push(pool.checkout(&plan).await.unwrap().raw().await.unwrap());
        }
        assert_eq!(server.accepted.get(), 2);
        assert_eq!(pool.usage().streams, 4);
    });
}

#[test]
fn too_many_header_fields_are_refused_and_the_session_lives_on() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let (pool, plan) = (pool(&world.identity("west.mesh/ns/shop/sa/front")), server.plan("east.mesh/ns/shop/sa/web"));
        let lease = pool.checkout(&plan).await.unwrap();
        let mut request = get("/");
        for _ in 0..200 {
            request.headers_mut().append("x-many", http::HeaderValue::from_static("1"));
        }
        assert_eq!(lease.request(request).await.unwrap().status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(lease.request(get("/")).await.unwrap().status(), StatusCode::OK);
    });
}

/// A gateway that joins every export tunnel to `inbound`, and serves `watch`.
fn gateway(identity: &Identity, inbound: SocketAddr, drain: &Drain, tasks: &mut Tasks) -> Gateway {
    let listener = tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = Rc::new(Acceptor::new(identity.clone(), TUNNEL_ALPN));
    let drain = drain.clone();
    tasks.spawn_local(async move {
        let mut tunnels = Tasks::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, drain) = (Rc::clone(&acceptor), drain.clone());
            tunnels.spawn_local(async move {
                let Ok((stream, _)) = acceptor.accept(stream).await else { return };
                let Ok((request, pending)) = tunnel::accept(stream, SOON).await else { return };
                if request.target == Target::Watch {
                    let io = pending.accept(&TunnelReply::accepted(None)).await.unwrap();
                    let _ = watch::serve(io, &drain).await;
                    return;
                }
                match TcpStream::connect(inbound).await {
                    Ok(mut inbound) => {
                        let mut io = pending.accept(&TunnelReply::accepted(Some("abcdefgh".parse().unwrap()))).await.unwrap();
                        splice::copy_bidirectional(&mut io, &mut inbound).await;
                    }
                    Err(_) => pending.refuse(&TunnelReply::new(tunnel::Status::NoEndpoint, "")).await.unwrap(),
                }
            });
        }
    });
    Gateway { address, identity: identity.svid().id().clone() }
}

fn through(gateway: &Gateway, expected: &str) -> Plan {
    let export =
        Export { cluster: "east-id".parse().unwrap(), service: "shop/web".parse().unwrap(), port: "80".parse().unwrap(), handle: None };
    Plan {
        way: Way::Through { gateway: gateway.clone(), export, hops: 0 },
        expected: Answering::OneOf(Arc::new(BTreeSet::from([id(expected)]))),
        target: "export/east-id/shop/web/80".parse().unwrap(),
    }
}

#[test]
fn a_session_in_a_tunnel_carries_the_callers_own_identity_through_a_gateway() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity("east.mesh/ns/shop/sa/web"), Limits::default(), &Drain::never());
        let mut tasks = Tasks::new();
        let door = world.identity("east.mesh/ns/isthmus-system/sa/mesh-gateway");
        let gateway = gateway(&door, server.address, &Drain::never(), &mut tasks);
        let pool = pool(&world.identity("west.mesh/ns/shop/sa/front"));
        let plan = through(&gateway, "east.mesh/ns/shop/sa/web");
        let lease = pool.checkout(&plan).await.unwrap();
        assert_eq!(lease.handle().map(mesh_names::Handle::as_str), Some("abcdefgh"));
        let seen = text(lease.request(get("/x")).await.unwrap()).await;
        assert_eq!(seen, "spiffe://west.mesh/ns/shop/sa/front GET http://web.shop/x export/east-id/shop/web/80 ");
        let mut raw = pool.checkout(&plan).await.unwrap().raw().await.unwrap();
        raw.shutdown().await.unwrap();
        let mut greeting = String::new();
        raw.read_to_string(&mut greeting).await.unwrap();
        assert_eq!((greeting.as_str(), server.accepted.get()), ("hello ", 1));
    });
}

#[test]
fn a_failed_tunnel_is_charged_to_whom_it_failed_at() {
    on_a_worker(async {
        let world = World::new();
        let mut tasks = Tasks::new();
        let dead = tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
        let door = world.identity("east.mesh/ns/isthmus-system/sa/mesh-gateway");
        let gateway = gateway(&door, dead, &Drain::never(), &mut tasks);
        let pool = pool(&world.identity("west.mesh/ns/shop/sa/front"));
        let error = pool.checkout(&through(&gateway, "east.mesh/ns/shop/sa/web")).await.unwrap_err();
        assert_eq!((error.stage, error.status()), (Stage::Dial, Some(tunnel::Status::NoEndpoint)));
        let other = Gateway { identity: id("east.mesh/ns/isthmus-system/sa/other"), ..gateway };
        let error = pool.checkout(&through(&other, "east.mesh/ns/shop/sa/web")).await.unwrap_err();
        assert_eq!((error.stage, error.status()), (Stage::Gateway, None));
        let gone = Gateway { address: dead, ..other };
        assert_eq!(pool.checkout(&through(&gone, "east.mesh/ns/shop/sa/web")).await.unwrap_err().stage, Stage::Gateway);
    });
}

#[test]
fn a_watch_tunnel_is_evidence_that_the_gateway_lives_and_hears_that_it_drains() {
    on_a_worker(async {
        let world = World::new();
        let mut tasks = Tasks::new();
        let (trigger, drain) = drain::channel(SOON);
        let door = world.identity("east.mesh/ns/isthmus-system/sa/mesh-gateway");
        let gateway = gateway(&door, "127.0.0.1:1".parse().unwrap(), &drain, &mut tasks);
        let identity = world.identity("west.mesh/ns/shop/sa/front");
        let request = tunnel::TunnelRequest::new(Target::Watch);
        let (_, io) = tunnel::connect(&identity, &gateway, &request, &Timeouts::default()).await.unwrap();
        let mut watch = watch::Watch::new(io);
        watch.ping(SOON).await.unwrap();
        trigger.start();
        watch.listen(tokio::time::Instant::now() + SOON).await.unwrap();
        assert!(watch.draining().is_some());
        trigger.hurry();
        while watch.ping(SOON).await.is_ok() {}
    });
}
