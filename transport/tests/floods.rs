//! A peer that abuses HTTP/2 ends its own session, and nobody else's.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test: what fails here fails the test")]

#[expect(dead_code, reason = "the other test needs more of it")]
mod world;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use http_body_util::Full;
use mesh_runtime::drain::Drain;
use mesh_runtime::tasks::Tasks;
use mesh_transport::session::Limits;
use mesh_transport::{SESSION_ALPN, tcp};
use mesh_trust::Expected;
use world::{SOON, Server, World, id, on_a_worker, pool};

const WEB: &str = "east.mesh/ns/shop/sa/web";

/// A session whose client keeps to no limit of ours.
async fn abusive(world: &World, server: &Server, tasks: &mut Tasks) -> SendRequest<Bytes> {
    let stream = tcp::connect(server.address, SOON).await.unwrap();
    let identity = world.identity("west.mesh/ns/shop/sa/evil");
    let (stream, _) = identity.connect(stream, Expected::only(id(WEB)), SESSION_ALPN).await.unwrap();
    let (send, connection) = h2::client::Builder::new().initial_max_send_streams(1 << 20).handshake(stream).await.unwrap();
    tasks.spawn_local(async move {
        let _ = connection.await;
    });
    send
}

fn request() -> Request<()> {
    Request::get("http://web.shop/never").header("isthmus-target", "port/8080").body(()).unwrap()
}

/// A session beside the flood that goes on as if nothing was.
async fn check_neighbour(pool: &mesh_transport::Pool, server: &Server) {
    let lease = pool.checkout(&server.plan(WEB)).await.unwrap();
    assert!(lease.is_reused(), "the neighbour's session lives");
    let request = Request::get("/").header("host", "web.shop").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(lease.request(request).await.unwrap().status(), StatusCode::OK);
}

#[test]
fn a_flood_of_resets_ends_the_session_that_sends_it() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity(WEB), Limits::default(), &Drain::never());
        let neighbour = pool(&world.identity("west.mesh/ns/shop/sa/front"));
        neighbour.checkout(&server.plan(WEB)).await.unwrap();
        let mut tasks = Tasks::new();
        let mut send = abusive(&world, &server, &mut tasks).await;
        let mut sent = 0;
        let ended = loop {
            match send.ready().await {
                Err(error) => break error,
                Ok(ready) => send = ready,
            }
            match send.send_request(request(), false) {
                Err(error) => break error,
                Ok((_, mut stream)) => stream.send_reset(h2::Reason::CANCEL),
            }
            sent += 1;
            assert!(sent < 1_000_000, "nobody stopped it");
            if sent % 64 == 0 {
                tokio::task::yield_now().await;
            }
        };
        assert!(ended.is_go_away() || ended.is_io(), "{ended:?} after {sent}");
        check_neighbour(&neighbour, &server).await;
    });
}

#[test]
fn a_header_list_past_its_limit_is_refused_before_anybody_reads_it() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity(WEB), Limits::default(), &Drain::never());
        let neighbour = pool(&world.identity("west.mesh/ns/shop/sa/front"));
        neighbour.checkout(&server.plan(WEB)).await.unwrap();
        let mut tasks = Tasks::new();
        let mut send = abusive(&world, &server, &mut tasks).await.ready().await.unwrap();
        let mut large = request();
        for _ in 0..100 {
            large.headers_mut().append("x-large", "v".repeat(4096).parse().unwrap());
        }
        match send.send_request(large, true).unwrap().0.await {
            Ok(response) => assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Err(error) => assert!(error.is_reset() || error.is_go_away() || error.is_io(), "{error:?}"),
        }
        check_neighbour(&neighbour, &server).await;
    });
}

#[test]
fn streams_past_the_limit_are_refused_and_those_within_it_are_served() {
    on_a_worker(async {
        let world = World::new();
        let server = Server::start(&world.identity(WEB), Limits { streams: 4, ..Limits::default() }, &Drain::never());
        let mut tasks = Tasks::new();
        let mut send = abusive(&world, &server, &mut tasks).await;
        let mut waiting = Vec::new();
        for _ in 0..8 {
            send = send.ready().await.unwrap();
            waiting.push(Box::pin(send.send_request(request(), true).unwrap().0));
        }
        let (first, _, rest) = futures_util::future::select_all(waiting).await;
        assert_eq!(first.unwrap_err().reason(), Some(h2::Reason::REFUSED_STREAM));
        assert!(rest.len() >= 4);
    });
}
