//! HTTPS for the API server: one path, one question, bounded in size and time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_api::well_known::WEBHOOK_PATH;
use mesh_runtime::drain::Drain;
use mesh_runtime::tasks::Tasks;
use mesh_transport::tcp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::certificate::WebCertificate;
use super::{Answers, review};

/// Answers until the drain starts and what is under way has ended.
pub(super) async fn serve(listener: TcpListener, held: Arc<ArcSwapOption<WebCertificate>>, answers: Arc<Answers>, drain: Drain) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = Tasks::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            _ = drain.started() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Nothing to show yet: the API server asks another replica, or goes by its failure policy.
        let Some(certificate) = held.load_full() else { continue };
        let (answers, drain) = (Arc::clone(&answers), drain.clone());
        connections.spawn(async move {
            connection(stream, &certificate, answers, drain).await;
            drop(permit);
        });
    }
    tokio::select! {
        () = drain.ended() => {}
        _ = room.acquire_many(u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX)) => {}
    }
}

async fn connection(stream: TcpStream, certificate: &WebCertificate, answers: Arc<Answers>, drain: Drain) {
    if tcp::prepare(&stream).is_err() {
        return;
    }
    let acceptor = TlsAcceptor::from(Arc::clone(&certificate.config));
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "the API server's handshake failed"),
        Err(_) => return,
    };
    let service = service_fn(|request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(handle(&answers, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        _ = drain.started() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "the API server's connection ended");
    }
}

async fn handle(answers: &Answers, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != WEBHOOK_PATH {
        return said(StatusCode::NOT_FOUND, "only the injector is here");
    }
    if request.method() != Method::POST {
        return said(StatusCode::METHOD_NOT_ALLOWED, "a review is posted");
    }
    let read = tokio::time::timeout(BODY_WITHIN, Limited::new(request.into_body(), BODY_MAX).collect()).await;
    let Ok(Ok(body)) = read else { return said(StatusCode::BAD_REQUEST, "the review did not come whole, or is too large") };
    let Ok(asked) = serde_json::from_slice(&body.to_bytes()) else { return said(StatusCode::BAD_REQUEST, "the review is no JSON") };
    match review::answer(&asked, |namespace| answers.settings(namespace)) {
        Some(answer) => {
            let mut response = Response::new(Full::from(answer.to_string()));
            response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
            response
        }
        None => said(StatusCode::SERVICE_UNAVAILABLE, "control has not read its cluster yet, or this is no review"),
    }
}

fn said(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

/// Connections at once: API servers keep a few each. Past it nothing is accepted, and the kernel's backlog pushes back.
const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const HEAD_MAX: Duration = Duration::from_secs(10);
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Kubernetes keeps no object of this size, and a review holds two.
const BODY_MAX: usize = 8 << 20;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
