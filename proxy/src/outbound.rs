//! A request of the workload: what it means, where it goes, and the attempts to get it there. One flat path, read from top to bottom.
//!
//! An attempt that fails before anything was sent is made again elsewhere, whatever the request is. After that only an idempotent
//! request without a body is sent again, once, and within the worker's budget.

pub(crate) mod budget;
pub(crate) mod passthrough;
pub(crate) mod raw;
pub(crate) mod replay;
mod upgrade;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;

use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, HOST, UPGRADE};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, request};
use hyper::body::Incoming;
use mesh_names::{Host, Protocol, ServicePort};
use mesh_topology::{RequestKey, Resolved, Route, Snapshot, Stage};
use mesh_transport::pool::DialError;
use mesh_transport::session::{StreamError, head};
use mesh_transport::tunnel::Status;
use mesh_transport::{Plan, plan::NoProxy};

use crate::body::Body;
use crate::exchange::{Exchange, Flight, Line};
use crate::failure::Failure;
use crate::headers;
use crate::metrics::{Direction, Kind};
use crate::plain::{PlainError, Spoken};
use crate::worker::Core;
use replay::Replay;

/// How requests of a connection find their target.
#[derive(Debug)]
pub(crate) enum Scope {
    /// Each names its own, as to an HTTP proxy.
    Proxy(Remembered),
    /// All go to where the connection goes.
    Fixed(RequestKey),
}

/// The last target of a connection: most name the same one again and again. Good for one snapshot only.
#[derive(Debug, Default)]
pub(crate) struct Remembered(RefCell<Option<(Authority, Weak<Snapshot>, RequestKey)>>);

impl Remembered {
    fn recall(&self, authority: &Authority, snapshot: &Arc<Snapshot>) -> Option<RequestKey> {
        let last = self.0.borrow();
        let (named, at, key) = last.as_ref()?;
        (Weak::as_ptr(at) == Arc::as_ptr(snapshot) && named == authority).then(|| key.clone())
    }

    fn remember(&self, authority: Authority, snapshot: &Arc<Snapshot>, key: RequestKey) {
        self.0.replace(Some((authority, Arc::downgrade(snapshot), key)));
    }
}

/// Answers one request of the workload.
pub(crate) async fn handle(core: &Rc<Core>, scope: &Scope, request: Request<Incoming>) -> Response<Body> {
    let mut exchange = Exchange::begin(core, Direction::outbound, Kind::http);
    let (named, in_header) = (request.uri().authority().cloned(), request.headers().get(HOST).cloned());
    let host = || host_text(named.as_ref(), in_header.as_ref());
    let grpc = grpc_content(request.headers());
    exchange.describe(|| Line { to: host(), method: request.method().to_string(), ..Line::default() });
    core.budget.borrow_mut().earn();
    let carried = if *request.method() == Method::CONNECT {
        // Boxed, here and below: what is rare must not make the future of every request large.
        crate::capture::connect(core, request).boxed_local().await.map(|response| (response, None))
    } else {
        carry(core, scope, request).await
    };
    match carried {
        Ok((response, flight)) => {
            exchange.answered(response.status().as_u16(), flight);
            response.map(|body| body.measured(exchange))
        }
        Err(failure) => {
            if failure.is_refusal() {
                exchange.refused()
            } else {
                exchange.broke()
            }
            failure.response(&host(), grpc).map(|body| body.measured(exchange))
        }
    }
}

async fn carry(core: &Rc<Core>, scope: &Scope, request: Request<Incoming>) -> Result<(Response<Body>, Option<Flight>), Failure> {
    let key = match scope {
        Scope::Fixed(key) => key.clone(),
        Scope::Proxy(remembered) => match target(core, remembered, &request)? {
            Aim::Mesh(key) => key,
            Aim::Outside(host, port) => return passthrough::request(core, request, &host, port).boxed_local().await,
        },
    };
    if request.headers().contains_key(UPGRADE) && request.version() < http::Version::HTTP_2 {
        return upgrade::carry(core, key, request).boxed_local().await;
    }
    send(core, key, request).await
}

/// Sends a request to where its key leads, over as many attempts as are safe.
async fn send(core: &Rc<Core>, mut key: RequestKey, request: Request<Incoming>) -> Result<(Response<Body>, Option<Flight>), Failure> {
    let (mut parts, body) = request.into_parts();
    headers::strip_claims(&mut parts.headers);
    let body = Replay::of(body);
    let mut attempts = 0;
    let mut sent_again = false;
    loop {
        attempts += 1;
        let route = core.route(&key)?;
        let mut flight = Flight::begin(core, &route);
        let failed = match attempt(core, &route, copy(&parts), &body, &mut flight).await {
            Ok(response) => {
                body.settle();
                flight.answered();
                if is_gateway_error(&response) {
                    flight.failed(Stage::Response);
                }
                return Ok((response, Some(flight)));
            }
            Err(failed) => failed,
        };
        if let Some(stage) = failed.stage() {
            flight.failed(stage);
        }
        drop(flight);
        let again = match failed.sent() {
            Sent::Nothing => attempts < ATTEMPTS_MAX && body.can_replay(),
            Sent::Something => {
                let safe = body.is_empty() && is_idempotent(&parts.method) && !sent_again;
                sent_again = true;
                safe && core.budget.borrow_mut().take(Instant::now())
            }
        };
        if !again {
            return Err(failed.into());
        }
        failed.avoid(&mut key, &route);
        core.shared.metrics.retries.inc();
    }
}

/// Sends a request over one route.
async fn attempt(
    core: &Rc<Core>,
    route: &Route,
    mut parts: request::Parts,
    body: &Replay,
    flight: &mut Flight,
) -> Result<Response<Body>, AttemptError> {
    match Plan::of(route) {
        Ok(plan) => {
            let lease = core.pool.checkout(&plan).await.map_err(AttemptError::Dial)?;
            flight.sent();
            let response = lease.request(Request::from_parts(parts, body.attempt())).await.map_err(AttemptError::Stream)?;
            let mut response = response.map(Body::from);
            if let Some(reason) = response.headers_mut().remove(head::REFUSED) {
                let reason = reason.to_str().unwrap_or("no reason given").to_owned();
                return Err(AttemptError::Refused { status: response.status(), reason });
            }
            head::strip_own(response.headers_mut());
            Ok(response)
        }
        Err(NoProxy) => {
            let Route::Local(local) = route else { return Err(AttemptError::NoProxy) };
            let spoken = if local.protocol == Protocol::Http2 || grpc_content(&parts.headers) { Spoken::Http2 } else { Spoken::Http1 };
            to_plain(&mut parts, spoken);
            core.plain.send(local.app_address(), spoken, Request::from_parts(parts, body.attempt())).await.map_err(AttemptError::Plain)
        }
    }
}

/// Why one attempt failed.
#[derive(Debug)]
pub(crate) enum AttemptError {
    /// No session.
    Dial(Arc<DialError>),
    /// The stream broke.
    Stream(StreamError),
    /// The serving proxy said no.
    Refused {
        /// As this.
        status: StatusCode,
        /// With this word.
        reason: String,
    },
    /// A plain endpoint did not answer.
    Plain(PlainError),
    /// A remote route that needs no session: there is none such.
    NoProxy,
}

/// How far an attempt got.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The service cannot have begun with it.
    Nothing,
    /// It may have.
    Something,
}

impl AttemptError {
    /// How far it got.
    pub(crate) fn sent(&self) -> Sent {
        let nothing = match self {
            Self::Dial(_) | Self::NoProxy | Self::Plain(PlainError::Connect { .. }) => true,
            Self::Stream(error) => error.is_unprocessed(),
            Self::Refused { reason, .. } => reason == crate::inbound::APP_UNREACHABLE,
            Self::Plain(PlainError::Broken(_)) => false,
        };
        if nothing { Sent::Nothing } else { Sent::Something }
    }

    /// Who is charged with it; none for what is the client's own doing.
    pub(crate) fn stage(&self) -> Option<Stage> {
        match self {
            Self::Dial(error) => Some(error.stage),
            Self::Stream(StreamError::Body(_)) => None,
            Self::Stream(error) if error.is_unprocessed() => Some(Stage::Session),
            Self::Stream(_) | Self::Plain(PlainError::Broken(_)) => Some(Stage::Response),
            Self::Refused { reason, .. } if reason == crate::inbound::APP_UNREACHABLE => Some(Stage::Dial),
            Self::Refused { .. } | Self::NoProxy => None,
            Self::Plain(PlainError::Connect { .. }) => Some(Stage::Dial),
        }
    }

    /// Has the next attempt pass over what failed here. A gateway's word on the service holds for the whole link.
    pub(crate) fn avoid(&self, key: &mut RequestKey, route: &Route) {
        let gateway = matches!(self, Self::Dial(error) if error.stage == Stage::Gateway);
        key.avoid(route, gateway);
        let status = if let Self::Dial(error) = self { error.status() } else { None };
        if let (Some(Status::NotExportedOrUnknown | Status::Denied | Status::TooManyHops), Route::Remote(remote)) = (status, route) {
            key.avoid.extend(remote.gateways().map(|gateway| mesh_topology::EndpointKey::Gateway(gateway.address)));
        }
    }
}

impl From<AttemptError> for Failure {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::Dial(error) => Self::Unreachable(error),
            AttemptError::Stream(error) => Self::Broken(error),
            AttemptError::Refused { reason, .. } if reason == crate::inbound::APP_UNREACHABLE => Self::AppUnreachable,
            AttemptError::Refused { status, reason } => Self::Denied { status, reason },
            AttemptError::Plain(error) => Self::Plain(error),
            AttemptError::NoProxy => Self::Denied { status: StatusCode::BAD_GATEWAY, reason: "no proxy at the other end".to_owned() },
        }
    }
}

/// Whom a request to the HTTP proxy is for.
pub(crate) enum Aim {
    /// Something in the mesh.
    Mesh(RequestKey),
    /// A host outside of it.
    Outside(Host, ServicePort),
}

fn target(core: &Core, remembered: &Remembered, request: &Request<Incoming>) -> Result<Aim, Failure> {
    let absolute = request.uri().authority();
    let authority = match absolute {
        Some(authority) => authority.clone(),
        None => host_header(request).ok_or(Failure::NoHost)?,
    };
    let snapshot = core.shared.snapshot.load();
    if let Some(key) = remembered.recall(&authority, &snapshot) {
        return Ok(Aim::Mesh(key));
    }
    let (host, port) = split(&authority, HTTP_PORT)?;
    match snapshot.resolve(&host, port) {
        Resolved::Mesh { key, .. } => {
            remembered.remember(authority, &snapshot, key.clone());
            Ok(Aim::Mesh(key))
        }
        Resolved::Refused(refused) => Err(refused.into()),
        Resolved::Passthrough if absolute.is_some() => Ok(Aim::Outside(host, port)),
        Resolved::Passthrough => Err(Failure::NotOurs { host }),
    }
}

/// Host and port of an authority.
pub(crate) fn split(authority: &Authority, default: u16) -> Result<(Host, ServicePort), Failure> {
    let host = authority.host().parse().map_err(|_| Failure::NoHost)?;
    let port = authority.port_u16().unwrap_or(default).try_into().map_err(|_| Failure::NoHost)?;
    Ok((host, port))
}

/// Makes a request's head fit for a plain connection.
pub(crate) fn to_plain(parts: &mut request::Parts, spoken: Spoken) {
    head::strip_hop(&mut parts.headers);
    head::strip_own(&mut parts.headers);
    if let Spoken::Http1 = spoken {
        if let (false, Some(authority)) = (parts.headers.contains_key(HOST), parts.uri.authority())
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            parts.headers.insert(HOST, host);
        }
        let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        parts.uri = path.into();
        parts.version = http::Version::HTTP_11;
        return;
    }
    parts.version = http::Version::HTTP_2;
    if parts.uri.authority().is_none() {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        if let Ok(uri) = format!("http://{host}{path}").parse() {
            parts.uri = uri;
        }
    }
    parts.headers.remove(HOST);
}

fn copy(parts: &request::Parts) -> request::Parts {
    let mut copy = Request::new(()).into_parts().0;
    copy.method = parts.method.clone();
    copy.uri = parts.uri.clone();
    copy.version = parts.version;
    copy.headers = parts.headers.clone();
    copy
}

fn host_header<B>(request: &Request<B>) -> Option<Authority> {
    Authority::try_from(request.headers().get(HOST)?.as_bytes()).ok()
}

fn host_text(named: Option<&Authority>, in_header: Option<&HeaderValue>) -> String {
    match (named, in_header) {
        (Some(authority), _) => authority.host().to_owned(),
        (None, Some(header)) => Authority::try_from(header.as_bytes()).map(|authority| authority.host().to_owned()).unwrap_or_default(),
        (None, None) => String::new(),
    }
}

/// Whether the body is gRPC, which needs HTTP/2 to its end.
pub(crate) fn grpc_content(headers: &http::HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    // `application/grpc-web` is spoken over HTTP/1.1.
    kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

fn is_gateway_error<B>(response: &Response<B>) -> bool {
    matches!(response.status().as_u16(), 502..=504)
}

/// Attempts at one request that may be made before anything was sent.
const ATTEMPTS_MAX: u32 = 5;
const HTTP_PORT: u16 = 80;
