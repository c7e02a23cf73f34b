//! Lets hyper start its own tasks on the worker that a connection belongs to.

use std::future::Future;

use hyper_util::server::conn::auto;

/// Starts hyper's HTTP/2 tasks on this thread. Each ends with its connection, which is owned elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LocalExec;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

/// How the proxy serves HTTP/1.1 and HTTP/2 to clients in plain text. A client that closes its connection has given its request up.
pub(crate) fn server() -> auto::Builder<LocalExec> {
    let mut builder = auto::Builder::new(LocalExec);
    builder.http1().auto_date_header(false);
    builder
        .http2()
        .auto_date_header(false)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS_MAX);
    builder
}

const WINDOW: u32 = 1 << 20;
const FRAME: u32 = 64 * 1024;
/// Requests that one client connection may have in flight; past it the client waits.
const STREAMS_MAX: u32 = 1000;
