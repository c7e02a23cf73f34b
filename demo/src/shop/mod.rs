//! The demo's workload, `image: isthmus/shop`: answers HTTP/1.1, HTTP/2 and gRPC with what it saw, calls onward when asked, echoes TCP.
//!
//! It is an ordinary application: it knows nothing of the mesh but the header that its inbound proxy sets, and the HTTP proxy address
//! that every HTTP client understands.

mod answer;
mod call;
mod echo;
mod grpc;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use mesh_names::AppPort;
use mesh_runtime::drain::{self, Drain};
use mesh_runtime::tasks::Tasks;
use mesh_runtime::telemetry::{self, LogFlags};
use tokio::net::{TcpListener, TcpStream};

pub use grpc::{DescribeReply, DescribeRequest};

/// Flags of the shop. Each comes from the environment too, as a container's settings do.
#[derive(Debug, clap::Parser)]
#[command(name = "shop", about = "The demo's workload")]
pub struct Flags {
    /// Where to listen: the pod's address
    #[arg(long, env = "POD_IP", default_value = "127.0.0.1")]
    address: IpAddr,
    /// Port for HTTP/1.1, HTTP/2 and gRPC
    #[arg(long, env = "PORT", default_value = "8080")]
    port: AppPort,
    /// Port that echoes TCP
    #[arg(long, env = "SHOP_TCP_PORT")]
    tcp_port: Option<AppPort>,
    /// What the TCP port says before it echoes
    #[arg(long, env = "SHOP_GREETING")]
    greeting: Option<String>,
    /// The cluster that answers name
    #[arg(long, env = "SHOP_CLUSTER", default_value = "")]
    cluster: String,
    /// The pod that answers name
    #[arg(long, env = "POD_NAME", default_value = "")]
    pod: String,
    /// What `/shop` calls
    #[arg(long, env = "SHOP_CALLS", value_delimiter = ',')]
    calls: Vec<String>,
    /// The proxy for calls onward
    #[arg(long, env = "HTTP_PROXY")]
    http_proxy: Option<String>,
    #[command(flatten)]
    log: LogFlags,
}

/// What every connection needs to know.
#[derive(Debug)]
struct Shop {
    cluster: String,
    pod: String,
    calls: Vec<String>,
    greeting: Option<String>,
    proxy: Option<http::Uri>,
}

/// Runs the shop until SIGTERM; requests in flight are finished.
///
/// # Errors
/// When a port cannot be listened on.
pub fn main(flags: Flags) -> anyhow::Result<()> {
    let _dropped = telemetry::init(&flags.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (trigger, drain) = drain::channel(GRACE);
        let signals = trigger.on_signals()?;
        let http = listen(SocketAddr::new(flags.address, flags.port.get())).await?;
        let tcp = match flags.tcp_port {
            Some(port) => Some(listen(SocketAddr::new(flags.address, port.get())).await?),
            None => None,
        };
        let proxy =
            flags.http_proxy.as_deref().map(str::parse).transpose().context("HTTP_PROXY is not a URL such as http://127.0.0.1:4140")?;
        let shop = Arc::new(Shop { cluster: flags.cluster, pod: flags.pod, calls: flags.calls, greeting: flags.greeting, proxy });
        tokio::select! {
            () = signals => {}
            () = async { tokio::join!(serve(http, &shop, &drain, Speaks::Http), serve_tcp(tcp, &shop, &drain)); } => {}
        }
        Ok(())
    })
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("could not listen on {address}: is another process using it?"))
}

#[derive(Clone, Copy)]
enum Speaks {
    Http,
    Echo,
}

async fn serve_tcp(listener: Option<TcpListener>, shop: &Arc<Shop>, drain: &Drain) {
    if let Some(listener) = listener {
        serve(listener, shop, drain, Speaks::Echo).await;
    }
}

async fn serve(listener: TcpListener, shop: &Arc<Shop>, drain: &Drain, speaks: Speaks) {
    let mut connections = Tasks::new();
    loop {
        tokio::select! {
            biased;
            _ = drain.started() => break,
            () = connections.ended() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let (shop, drain) = (Arc::clone(shop), drain.clone());
                    connections.spawn(async move {
                        match speaks {
                            Speaks::Http => serve_http(stream, shop, drain).await,
                            Speaks::Echo => echo::serve(stream, shop.greeting.as_deref()).await,
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    connections.finish(drain.started().await).await;
}

async fn serve_http(stream: TcpStream, shop: Arc<Shop>, drain: Drain) {
    let _ = stream.set_nodelay(true);
    let builder = auto::Builder::new(TokioExecutor::new());
    let service = service_fn(move |request| {
        let shop = Arc::clone(&shop);
        async move { Ok::<_, std::convert::Infallible>(answer::answer(request, &shop).await) }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = drain.started() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "connection ended");
    }
}

/// How long requests in flight may take after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Connections held at once per port; when full we stop accepting, and the kernel's backlog pushes back.
const CONNECTIONS_MAX: usize = 4096;

/// Pause after a failed accept (no file descriptor left, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
