//! An embedded Kubernetes API server: objects in memory, a journal on disk, for laptops, demos and tests.
//!
//! It knows Kubernetes and nothing of the mesh. A request's way: `serve` → `http` (who, what, which verb) → `write` or `http::read` →
//! `store` → `journal`. Left out on purpose: RBAC, admission, CEL, logs, exec; client certificates; answers in protobuf (bodies are read);
//! OpenAPI version 2 beyond an empty document; `autoscaling/v1` autoscalers; the `kubernetes` Service.

pub mod apply;
mod config;
mod crd;
mod defaults;
mod failure;
mod http;
mod journal;
mod kinds;
mod lifecycle;
mod managed;
mod object;
pub mod openapi;
pub mod patch;
mod path;
mod protobuf;
pub mod schema;
pub mod select;
mod serve;
mod store;
pub mod table;
mod tls;
mod tokens;
mod validate;
mod write;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

pub use self::{
    config::{Config, Flags},
    failure::Failure,
    journal::JournalError,
    serve::{Server, StartError},
    write::Loopback,
};

/// Serves on its own runtime until SIGTERM or SIGINT.
pub fn run(flags: Flags) -> anyhow::Result<()> {
    mesh_runtime::telemetry::init(&flags.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let server = Server::bind(flags.into()).await.context("could not start the API server")?;
        tracing::info!(url = server.url(), "serving");
        let shutdown = CancellationToken::new();
        let signalled = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            shutdown.cancel();
        };
        tokio::join!(server.run(shutdown.clone()), signalled);
        Ok(())
    })
}
