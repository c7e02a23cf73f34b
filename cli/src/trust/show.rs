//! `mesh trust show`: the authorities of a bundle and the life of an issuer.

use std::time::SystemTime;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use mesh_api::well_known;
use mesh_names::TrustDomain;
use mesh_trust::{Bundle, Issuer};
use serde_json::json;

use super::ShowFlags;
use crate::args::Output;
use crate::{clusters, output};

/// What a cluster trusts, as its API has it.
#[derive(Debug)]
pub(crate) struct ClusterTrust {
    /// Its bundle.
    pub(crate) bundle: Bundle,
    /// Its issuer.
    pub(crate) issuer: Issuer,
}

impl ClusterTrust {
    /// Reads it.
    ///
    /// # Errors
    /// When the cluster has no mesh installed, or what it holds does not parse.
    pub(crate) async fn read(client: &Client) -> anyhow::Result<Self> {
        let maps = Api::<ConfigMap>::namespaced(client.clone(), well_known::SYSTEM_NAMESPACE);
        let field = |map: ConfigMap, key: &str| {
            map.data
                .unwrap_or_default()
                .remove(key)
                .with_context(|| format!("ConfigMap {} has no {key}", map.metadata.name.unwrap_or_default()))
        };
        let facts = maps.get_opt(well_known::FACTS).await.context("the cluster's facts could not be read")?;
        let facts = facts.context("there is no ConfigMap isthmus-system/isthmus: is the mesh installed in this cluster?")?;
        let trust_domain: TrustDomain = field(facts, "trustDomain")?.parse()?;
        let held = field(maps.get(well_known::BUNDLE).await.context("the cluster's bundle could not be read")?, well_known::BUNDLE_KEY)?;
        let bundle = Bundle::from_spiffe_json(trust_domain, held.as_bytes()).context("the cluster's bundle does not parse")?;
        let secrets = Api::<Secret>::namespaced(client.clone(), well_known::SYSTEM_NAMESPACE);
        let secret = secrets.get(well_known::ISSUER).await.context("the cluster's issuer could not be read")?;
        let part = |key: &str| {
            secret
                .data
                .as_ref()
                .and_then(|data| data.get(key))
                .map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
                .unwrap_or_default()
        };
        let issuer = Issuer::from_pem(&part("tls.crt"), &part("tls.key")).context("the cluster's issuer does not parse")?;
        Ok(Self { bundle, issuer })
    }
}

pub(super) async fn run(flags: &ShowFlags) -> anyhow::Result<()> {
    let (bundle, issuer) = match (&flags.file, &flags.trust_domain) {
        (Some(file), Some(trust_domain)) => {
            let text = std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
            let bundle =
                Bundle::from_spiffe_json(trust_domain.clone(), &text).with_context(|| format!("{} is no bundle", file.display()))?;
            (bundle, None)
        }
        _ => {
            let kubeconfig = flags.global.read()?;
            let client = clusters::client(&kubeconfig, &flags.global.context_of(&kubeconfig)?).await?;
            let trust = ClusterTrust::read(&client).await?;
            (trust.bundle, Some(trust.issuer))
        }
    };
    say(&bundle, issuer.as_ref(), flags.global.output)
}

fn say(bundle: &Bundle, issuer: Option<&Issuer>, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let authorities = bundle.authorities().iter().map(|authority| {
            json!({ "trustDomain": authority.trust_domain(), "notBefore": date(authority.not_before()), "notAfter": date(authority.not_after()) })
        });
        let issuer = issuer.map(|issuer| json!({ "trustDomain": issuer.trust_domain(), "notAfter": date(issuer.expires_at()) }));
        return output::say_json(&json!({
            "trustDomain": bundle.trust_domain(), "sequence": bundle.sequence(), "authorities": authorities.collect::<Vec<_>>(), "issuer": issuer,
        }));
    }
    let kind = |of: Option<&TrustDomain>| of.map_or_else(|| "any below".to_owned(), ToString::to_string);
    let mut rows: Vec<[String; 4]> = vec![];
    for authority in bundle.authorities() {
        rows.push(["authority".to_owned(), kind(authority.trust_domain()), date(authority.not_after()), left(authority.not_after())]);
    }
    if let Some(issuer) = issuer {
        rows.push(["issuer".to_owned(), kind(issuer.trust_domain()), date(issuer.expires_at()), left(issuer.expires_at())]);
    }
    output::say(&format!("trust domain {}, bundle {}\n", bundle.trust_domain(), bundle.sequence()));
    output::say(&output::table(["KIND", "TRUST DOMAIN", "NOT AFTER", "LEFT"], rows));
    Ok(())
}

/// A moment as RFC 3339 in UTC.
pub(super) fn date(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).and_then(|at| at.round(jiff::Unit::Second)).map_or_else(|_| "unknown".to_owned(), |at| at.to_string())
}

fn left(until: SystemTime) -> String {
    match until.duration_since(mesh_runtime::clock::wall()) {
        Ok(left) => format!("{} d", left.as_secs() / (24 * 3600)),
        Err(_) => "expired".to_owned(),
    }
}
