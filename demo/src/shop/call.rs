//! A call onward: through the HTTP proxy that the environment names, in absolute form, as any HTTP client makes it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_runtime::clock;
use mesh_runtime::tasks::Tasks;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Why a call onward brought nothing.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("{url:?} is not a URL such as http://cart.shop.svc.clusterset.local/")]
    Url { url: String },
    #[error("could not connect to {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("the exchange with {address} failed: {source}")]
    Exchange { address: String, source: hyper::Error },
    #[error("the answer from {address} could not be read: {why}")]
    Answer { address: String, why: String },
    #[error("no answer within {:?}", CALL_MAX)]
    Late,
}

/// Calls `url` and tells how it went: `url`, `millis`, then `status` and `answer`, or `error`.
pub(super) async fn call(url: &str, proxy: Option<&Uri>, headers: &HeaderMap) -> Value {
    let begun = clock::now();
    let outcome = tokio::time::timeout(CALL_MAX, exchange(url, proxy, headers)).await.unwrap_or(Err(CallError::Late));
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    match outcome {
        Ok((status, answer)) => json!({ "url": url, "millis": millis, "status": status, "answer": answer }),
        Err(error) => json!({ "url": url, "millis": millis, "error": error.to_string() }),
    }
}

async fn exchange(url: &str, proxy: Option<&Uri>, headers: &HeaderMap) -> Result<(u16, Value), CallError> {
    let wrong = || CallError::Url { url: url.to_owned() };
    let target: Uri = url.parse().map_err(|_| wrong())?;
    let authority = target.authority().ok_or_else(wrong)?.clone();
    let next = proxy.unwrap_or(&target);
    let address = format!("{}:{}", next.host().ok_or_else(wrong)?, next.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(&address).await.map_err(|source| CallError::Connect { address: address.clone(), source })?;
    let failed = |source| CallError::Exchange { address: address.clone(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let mut driver = Tasks::new();
    driver.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "call onward ended");
        }
    });
    let uri = if proxy.is_some() { target.clone() } else { origin_form(&target) };
    let mut request = Request::builder().method(Method::GET).uri(uri).header(header::HOST, authority.as_str());
    for name in PASSED_ON {
        for value in headers.get_all(name) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| wrong())?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let bytes = body.map_err(|why| CallError::Answer { address, why: why.to_string() })?.to_bytes();
    let answer = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Ok((status, answer))
}

fn origin_form(target: &Uri) -> Uri {
    target.path_and_query().and_then(|path| path.as_str().parse().ok()).unwrap_or_else(|| Uri::from_static("/"))
}

/// Headers of the request that cause the call go on with it: one trace.
const PASSED_ON: [&str; 2] = ["traceparent", "tracestate"];

const CALL_MAX: Duration = Duration::from_secs(10);

/// A longer answer is an error.
const ANSWER_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_cannot_be_made_says_why() {
        let answer = call("not a url", None, &HeaderMap::new()).await;
        assert!(answer["error"].as_str().unwrap().contains("is not a URL"), "{answer}");
        let answer = call("http://127.0.0.1:1/", None, &HeaderMap::new()).await;
        assert!(answer["error"].as_str().unwrap().contains("could not connect to 127.0.0.1:1"), "{answer}");
    }
}
