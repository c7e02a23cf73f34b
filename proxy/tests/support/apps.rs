//! The workload behind a serving proxy: HTTP that answers with what it saw, a TCP echo and a server that speaks first.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Their ports, and how many connections HTTP got.
pub(crate) struct Apps {
    pub(crate) http: u16,
    pub(crate) echo: u16,
    pub(crate) greeter: u16,
    pub(crate) http_connections: Arc<AtomicUsize>,
    /// Requests for `/never` that wait for their answer.
    pub(crate) waiting: Arc<AtomicUsize>,
    http_task: AbortHandle,
}

impl Apps {
    pub(crate) async fn start(address: IpAddr, cluster: &'static str) -> Self {
        let http_connections = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::new(AtomicUsize::new(0));
        let (counted, waits) = (Arc::clone(&http_connections), Arc::clone(&waiting));
        let http = serve(address, move |stream| {
            counted.fetch_add(1, Ordering::Relaxed);
            serve_http(stream, cluster, Arc::clone(&waits))
        });
        let (http, http_task) = http.await;
        let (echo, _) = serve(address, echo).await;
        let (greeter, _) = serve(address, greet).await;
        Self { http, echo, greeter, http_connections, waiting, http_task }
    }

    /// HTTP accepts no more.
    pub(crate) fn stop_http(&self) {
        self.http_task.abort();
    }
}

async fn serve<F, Fut>(address: IpAddr, app: F) -> (u16, AbortHandle)
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(SocketAddr::new(address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(app(stream));
        }
    });
    (port, task.abort_handle())
}

/// Answers when the client has ended: all it sent, twice.
async fn echo(mut stream: TcpStream) {
    let mut all = Vec::new();
    if stream.read_to_end(&mut all).await.is_ok() {
        let _ = stream.write_all(&all.repeat(2)).await;
    }
}

/// Speaks first, then echoes line by line.
async fn greet(mut stream: TcpStream) {
    stream.write_all(b"220 hello\n").await.unwrap();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        stream.write_all(&buffer[..read]).await.unwrap();
    }
}

async fn serve_http(stream: TcpStream, cluster: &'static str, waiting: Arc<AtomicUsize>) {
    let builder = auto::Builder::new(TokioExecutor::new());
    let service = service_fn(|request: Request<Incoming>| {
        let waiting = Arc::clone(&waiting);
        async move {
            if request.uri().path() == "/never" {
                let _waits = Waits::begin(waiting);
                std::future::pending::<()>().await;
            }
            answer(request, cluster).await
        }
    });
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// Counted as long as it lives.
struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn begin(waiting: Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

type AppBody = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// `VERSION METHOD PATH`, a line for each header, an empty line and the body; with trailers on `/trailers`; a slow one on `/slow`.
async fn answer(mut request: Request<Incoming>, cluster: &'static str) -> Result<Response<AppBody>, Infallible> {
    if request.headers().contains_key("upgrade") {
        return Ok(upgrade(&mut request));
    }
    let mut text = format!("{:?} {} {}\n", request.version(), request.method(), request.uri().path());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    text.push_str(&format!("cluster: {cluster}\n\n"));
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    text.push_str(&String::from_utf8_lossy(&body));
    let mut frames = vec![Frame::data(Bytes::from(text))];
    if path == "/trailers" {
        frames.push(Frame::trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))])));
    }
    if path == "/endless" {
        let clock = tokio::time::interval(std::time::Duration::from_millis(20));
        let ticks = futures_util::stream::unfold(clock, async |mut clock| {
            clock.tick().await;
            Some((Ok(Frame::data(Bytes::from_static(b"tick\n"))), clock))
        });
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(SyncStream(Box::pin(ticks))))));
    }
    let frames = futures_util::stream::iter(frames.into_iter().map(Ok));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert("isthmus-refused", HeaderValue::from_static("forged"));
    Ok(response)
}

/// A stream that is only ever used from one place at a time.
struct SyncStream(std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync>>);

impl futures_util::Stream for SyncStream {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// Says who called in the upgraded connection, then echoes.
fn upgrade(request: &mut Request<Incoming>) -> Response<AppBody> {
    let peer = request.headers().get("x-mesh-peer").map_or("nobody", |peer| peer.to_str().unwrap()).to_owned();
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await.unwrap());
        io.write_all(format!("hello {peer}\n").as_bytes()).await.unwrap();
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = io.read(&mut buffer).await {
            io.write_all(&buffer[..read]).await.unwrap();
        }
    });
    let mut response = Response::new(http_body_util::Empty::new().boxed());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
    response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    response
}
