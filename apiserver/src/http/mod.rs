//! One request, from bytes to answer: who calls, what the path names, which verb it is, and what comes back.

pub(crate) mod answer;
pub(crate) mod auth;
pub(crate) mod discovery;
pub(crate) mod openapi;
mod patch;
mod read;
mod subresource;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use self::{
    answer::{Body, Form},
    auth::{StaticTokens, User},
    discovery::Core,
    openapi::Documents,
    read::Selection,
};
use crate::{
    failure::Failure,
    kinds::{Kind, Stored},
    lifecycle, managed, object,
    path::{self, Query, Target},
    protobuf,
    store::{Key, Mode, Store, Tx},
    tokens::{ISSUER, Signer},
    validate,
    write::{self, DeleteOptions, Deleted, Ownership, Place, Rules},
};

/// Everything that answering needs.
#[derive(Debug)]
pub(crate) struct Api {
    /// The objects.
    pub store: Arc<Store>,
    /// What the flags decided.
    pub rules: Rules,
    /// The key of service-account tokens.
    pub signer: Signer,
    /// Static tokens.
    pub tokens: StaticTokens,
    /// Where the server listens.
    pub address: String,
    /// What `/openapi/v3` serves.
    pub documents: Documents,
}

/// A request whose path names a resource.
struct Call<'a> {
    kind: Arc<Kind>,
    target: Target,
    query: &'a Query,
    headers: &'a HeaderMap,
    body: Bytes,
    user: &'a User,
    mode: Mode,
}

impl Call<'_> {
    fn key(&self) -> Key {
        Key::new(&self.kind.resource(), &self.target.namespace, &self.target.name)
    }

    fn not_found(&self) -> Failure {
        Failure::not_found(&self.kind.resource(), &self.target.name)
    }

    fn header(&self, name: &str) -> &str {
        header(self.headers, name)
    }

    /// Who owns what this call writes.
    fn manager(&self) -> &str {
        managed::manager(self.query.get("fieldManager"), self.header("user-agent"))
    }
}

impl Api {
    /// Answers a request.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.handle(request).await.unwrap_or_else(|failure| answer::failure(&failure))
    }

    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        match path.as_str() {
            "/healthz" | "/livez" | "/readyz" => return Ok(answer::typed(200, "text/plain", "ok")),
            "/version" | "/version/" => return Ok(answer::json(200, version().to_string())),
            _ => {}
        }
        let user = self.user(&parts.headers).ok_or_else(Failure::unauthorized)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let Some(target) = path::target(&path) else { return self.index(&path, &query, &parts.headers) };
        let kind = self.store.kinds().at(&target.group, &target.version, &target.plural).ok_or_else(Failure::no_such_path)?;
        if !target.subresource.is_empty() && !kind.has(&target.subresource) {
            return Err(Failure::no_such_path());
        }
        let body = Limited::new(body, BODY_MAX).collect().await;
        let body = body.map_err(|_| Failure::new(413, "RequestEntityTooLarge", "the request's body is too large or broke off"))?.to_bytes();
        let body = match header(&parts.headers, "content-type") {
            sent if sent.starts_with(protobuf::CONTENT_TYPE) && !body.is_empty() => {
                let object = protobuf::object(&body);
                Bytes::from(object.map_err(|why| Failure::bad_request(format!("the object provided is unrecognized: {why}")))?.to_string())
            }
            _ => body,
        };
        let mode = mode(&parts.method, &query, &body);
        let call = Call { kind, target, query: &query, headers: &parts.headers, body, user: &user, mode };
        self.resource(&parts.method, &call)
    }

    fn user(&self, headers: &HeaderMap) -> Option<User> {
        let (scheme, token) = headers.get("authorization")?.to_str().ok()?.split_once(' ')?;
        let audiences = [ISSUER.to_owned()];
        let found = auth::authenticate(token.trim(), &audiences, &self.tokens, &self.signer, &self.store);
        found.filter(|_| scheme.eq_ignore_ascii_case("bearer")).map(|(user, _)| user)
    }

    /// Paths that name no resource: discovery and OpenAPI.
    fn index(&self, path: &str, query: &Query, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
        let kinds = self.store.kinds();
        let accept = header(headers, "accept");
        let parts = path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>();
        let found = match parts.as_slice() {
            ["api" | "apis"] if accept.contains("as=APIGroupDiscoveryList") => {
                let core = if parts == ["api"] { Core::Yes } else { Core::No };
                let (version, content_type) = if accept.contains("v=v2;") || accept.ends_with("v=v2") {
                    ("v2", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
                } else {
                    ("v2beta1", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList")
                };
                return Ok(answer::typed(200, content_type, discovery::aggregated(&kinds, core, version).to_string()));
            }
            ["openapi", rest @ ..] => return self.documents.answer(&kinds, rest, query, headers),
            ["api"] => Some(discovery::core_versions(&self.address)),
            ["apis"] => Some(discovery::groups(&kinds)),
            ["apis", group] => discovery::group(&kinds, group),
            ["api", version] => discovery::resources(&kinds, "", version),
            ["apis", group, version] => discovery::resources(&kinds, group, version),
            _ => None,
        };
        found.map(|body| answer::json(200, body.to_string())).ok_or_else(Failure::no_such_path)
    }

    fn resource(&self, method: &Method, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        let Target { namespace, name, subresource, .. } = &call.target;
        if call.kind.stored == Stored::Answered {
            return if method == Method::POST { self.review(call) } else { Err(not_allowed()) };
        }
        match subresource.as_str() {
            "" | "status" | "finalize" => {}
            _ => return self.subresource(method, call),
        }
        let accept = call.header("accept");
        match (method, name.is_empty()) {
            (&Method::GET, true) => {
                let selection = Selection::of(Arc::clone(&call.kind), namespace, call.query, accept)?;
                if call.query.is("watch") {
                    read::watch(&self.store, selection, call.query)
                } else {
                    read::list(&self.store, &selection, call.query)
                }
            }
            (&Method::GET, false) => {
                let found = self.store.get(&call.key()).ok_or_else(|| call.not_found())?;
                Ok(self.shown(200, call, &found.value))
            }
            (&Method::POST, true) => {
                let new = parse(&call.body)?;
                let unknown = unknown_fields(call, &new)?;
                let created = self.write(call, |tx| write::create(tx, &self.place(call), new))?;
                Ok(answer::warned(self.shown(201, call, &created), &unknown))
            }
            (&Method::PUT, false) => {
                let new = parse(&call.body)?;
                let unknown = unknown_fields(call, &new)?;
                let written = self.write(call, |tx| write::update(tx, &self.place(call), new))?;
                Ok(answer::warned(self.shown(200, call, &written), &unknown))
            }
            (&Method::PATCH, false) => self.patch(call),
            (&Method::DELETE, false) => self.delete(call),
            (&Method::DELETE, true) => self.delete_all(call),
            _ => Err(not_allowed()),
        }
    }

    fn delete(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        let options = delete_options(call)?;
        let deleted = self.write(call, |tx| write::delete(tx, &call.key(), &options))?;
        Ok(match deleted {
            Deleted::Marked(object) => self.shown(200, call, &object),
            Deleted::Gone(object) => answer::json(200, gone(&call.kind, &object).to_string()),
        })
    }

    fn delete_all(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        let options = delete_options(call)?;
        let selection = Selection::of(Arc::clone(&call.kind), &call.target.namespace, call.query, "")?;
        let items = self.write(call, |tx| {
            let chosen = tx.list(&call.kind.resource(), &call.target.namespace);
            let chosen = chosen.into_iter().filter(|stored| selection.matches(stored)).collect::<Vec<_>>();
            for stored in &chosen {
                write::delete(tx, &stored.key, &options)?;
            }
            Ok(chosen)
        })?;
        let items = items.iter().map(|stored| read::in_version(&call.kind, &stored.value)).collect::<Vec<_>>();
        let list = json!({
            "kind": format!("{}List", call.kind.kind), "apiVersion": call.kind.api_version(),
            "metadata": {"resourceVersion": self.store.version().to_string()}, "items": items,
        });
        Ok(answer::json(200, list.to_string()))
    }

    /// Runs a write and what follows from it.
    fn write<T>(&self, call: &Call<'_>, decide: impl FnOnce(&mut Tx<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        self.store.write(call.mode, |tx| {
            let done = decide(tx)?;
            lifecycle::settle(tx, &self.rules)?;
            Ok(done)
        })
    }

    fn place<'a>(&'a self, call: &'a Call<'_>) -> Place<'a> {
        Place {
            kind: &call.kind,
            namespace: &call.target.namespace,
            name: &call.target.name,
            subresource: &call.target.subresource,
            rules: &self.rules,
            ownership: Ownership::Tracked { manager: call.manager(), through: &call.target.subresource },
        }
    }

    fn shown(&self, code: u16, call: &Call<'_>, object: &Value) -> Response<Body> {
        let form = Form::of(call.header("accept"), call.query);
        answer::json(code, form.show(&call.kind, &read::in_version(&call.kind, object)).to_string())
    }
}

/// Whether the write is only tried: the query says so, or the options in a deletion's body.
fn mode(method: &Method, query: &Query, body: &[u8]) -> Mode {
    let options = || serde_json::from_slice::<Value>(body).is_ok_and(|body| body["dryRun"] == json!(["All"]));
    if query.get("dryRun") == "All" || (method == Method::DELETE && options()) { Mode::DryRun } else { Mode::Commit }
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::bad_request(format!("the object provided is unrecognized: {error}")))
}

/// The fields that the kind does not have, to warn of; refused when the caller asks for strictness.
fn unknown_fields(call: &Call<'_>, object: &Value) -> Result<Vec<String>, Failure> {
    let validation = call.query.get("fieldValidation");
    if validation == "Ignore" {
        return Ok(Vec::new());
    }
    let unknown = validate::unknown(&call.kind, object);
    let unknown = unknown.iter().map(|field| format!("unknown field {field:?}")).collect::<Vec<_>>();
    if validation != "Strict" || unknown.is_empty() {
        return Ok(unknown);
    }
    let (kind, version, told) = (&call.kind.kind, &call.kind.version, unknown.join(", "));
    Err(Failure::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {told}")))
}

fn delete_options(call: &Call<'_>) -> Result<DeleteOptions, Failure> {
    let mut options = if call.body.is_empty() { DeleteOptions::default() } else { DeleteOptions::of(&parse(&call.body)?) };
    if let Ok(grace) = call.query.get("gracePeriodSeconds").parse() {
        options.grace = Some(grace);
    }
    if !call.query.get("propagationPolicy").is_empty() {
        options.propagation = call.query.get("propagationPolicy").to_owned();
    }
    Ok(options)
}

fn gone(kind: &Kind, object: &Value) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": object::name(object), "group": kind.group, "kind": kind.plural, "uid": object::uid(object)},
    })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn not_allowed() -> Failure {
    Failure::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}

/// What the server says it is: the API that it serves is that of this release.
fn version() -> Value {
    json!({
        "major": "1", "minor": "35", "gitVersion": "v1.35.0+isthmus", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// The largest request body, as the real server has it.
const BODY_MAX: usize = 3 << 20;
