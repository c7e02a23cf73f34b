//! The peers: HAProxy and Envoy pairs with mTLS between them, configured alike: HTTP/1.1 in and out, HTTP/2 between.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use crate::certs::{Files, NAME};
use crate::load::Target;

/// A running pair, ended when dropped.
pub(crate) struct Pair {
    children: Vec<Child>,
    /// What the load connects to.
    pub(crate) target: Target,
}

impl Pair {
    /// The processes whose CPU and memory count.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where the two sides of a pair listen.
pub(crate) struct Addresses {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) backend: SocketAddr,
}

/// Starts an HAProxy pair, two threads each.
pub(crate) fn haproxy(program: &Path, dir: &Path, at: &Addresses, files: &Files) -> anyhow::Result<Pair> {
    let (both, authority) = (files.both.display(), files.authority.display());
    let common = "global\n  nbthread 2\n  maxconn 4000\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n  ssl-default-server-options ssl-min-ver TLSv1.3\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  http-reuse always\n";
    let client = format!(
        "{common}frontend in\n  bind {}\n  default_backend out\nbackend out\n  server s {} ssl crt {both} ca-file {authority} verify required verifyhost {NAME} alpn h2\n",
        at.client, at.server
    );
    let server = format!(
        "{common}frontend in\n  bind {} ssl crt {both} ca-file {authority} verify required alpn h2\n  default_backend out\nbackend out\n  server s {}\n",
        at.server, at.backend
    );
    let mut children = Vec::new();
    for (name, config) in [("haproxy-server.cfg", server), ("haproxy-client.cfg", client)] {
        let path = dir.join(name);
        std::fs::write(&path, config)?;
        children.push(start(Command::new(program).arg("-db").arg("-f").arg(&path))?);
    }
    Ok(Pair { children, target: target(at.client) })
}

/// Starts an Envoy pair, two workers each.
pub(crate) fn envoy(program: &Path, dir: &Path, at: &Addresses, files: &Files) -> anyhow::Result<Pair> {
    let mut children = Vec::new();
    let sides = [("server", at.server, at.backend, Side::Server), ("client", at.client, at.server, Side::Client)];
    for (id, (name, listen, to, side)) in sides.into_iter().enumerate() {
        let path = dir.join(format!("envoy-{name}.json"));
        std::fs::write(&path, serde_json::to_vec_pretty(&envoy_config(listen, to, side, files))?)?;
        let base = (std::process::id() % 10_000 * 2 + u32::try_from(id)?).to_string();
        children.push(start(Command::new(program).args(["--concurrency", "2", "-l", "off", "--base-id", &base, "-c"]).arg(&path))?);
    }
    Ok(Pair { children, target: target(at.client) })
}

#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

fn envoy_config(listen: SocketAddr, to: SocketAddr, side: Side, files: &Files) -> serde_json::Value {
    use serde_json::json;
    let address = |at: SocketAddr| json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
    let tls = json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificates": [{"certificate_chain": {"filename": files.certificate}, "private_key": {"filename": files.key}}],
        "validation_context": {"trusted_ca": {"filename": files.authority}},
    });
    let socket = |kind: &str, extra: serde_json::Value| {
        let mut config =
            json!({"@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}"), "common_tls_context": tls});
        if let (Some(config), Some(extra)) = (config.as_object_mut(), extra.as_object()) {
            config.extend(extra.clone());
        }
        json!({"name": "tls", "typed_config": config})
    };
    let mut chain = json!({"filters": [{"name": "http", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "codec_type": "AUTO",
        "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "out"}}]}]},
    }}]});
    let mut cluster = json!({"name": "out", "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "out", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(to)}}]}]}});
    match side {
        Side::Server => chain["transport_socket"] = socket("DownstreamTlsContext", json!({"require_client_certificate": true})),
        Side::Client => {
            cluster["transport_socket"] = socket("UpstreamTlsContext", json!({"sni": NAME}));
            cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}});
        }
    }
    json!({"static_resources": {"listeners": [{"name": "in", "address": address(listen), "filter_chains": [chain]}], "clusters": [cluster]}})
}

fn start(command: &mut Command) -> anyhow::Result<Child> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().with_context(|| format!("could not start {shown}"))
}

fn target(address: SocketAddr) -> Target {
    Target { address, uri: "/".to_owned(), host: NAME.to_owned() }
}
