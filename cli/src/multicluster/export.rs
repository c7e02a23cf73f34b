//! `mesh multicluster export` and `unexport`: a ServiceExport for a Service, and its end.

use std::process::ExitCode;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::Kubeconfig;
use mesh_api::crd::ServiceExport;
use mesh_api::crd::mcs::ServiceExportSpec;
use mesh_names::ServiceId;
use serde_json::json;

use crate::args::{Global, Output};
use crate::{clusters, output};

/// Flags of `mesh multicluster export` and `unexport`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mesh multicluster export catalog -n shop --context east\n  mesh multicluster unexport catalog -n shop --context east"
)]
pub(crate) struct Flags {
    #[command(flatten)]
    global: Global,
    /// The Service
    service: String,
    /// Its namespace [default: the context's]
    #[arg(short, long)]
    namespace: Option<String>,
}

/// Exports.
///
/// # Errors
/// When there is no such Service, or the cluster refuses.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let (context, id, client) = target(flags).await?;
    let namespace = id.namespace().as_str();
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = services.get_opt(&flags.service).await.with_context(|| format!("could not read Service {id} of cluster {context}"))?;
    let service = service
        .with_context(|| format!("cluster {context} has no Service {id}: see kubectl --context {context} -n {namespace} get services"))?;
    let external = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    anyhow::ensure!(!external, "Service {id} of cluster {context} is an ExternalName, which can't be exported: export one with a selector");
    let exports: Api<ServiceExport> = Api::namespaced(client, namespace);
    let export = ServiceExport::new(id.name().as_str(), ServiceExportSpec::default());
    let result = match exports.create(&PostParams::default(), &export).await {
        Ok(_) => "exported",
        Err(kube::Error::Api(status)) if status.code == 409 => "was exported",
        Err(error) => return Err(error).with_context(|| format!("could not export {id} of cluster {context}")),
    };
    print(&flags.global, &context, &id, result)
}

/// Takes an export back.
///
/// # Errors
/// When the cluster refuses.
pub(crate) async fn undo(flags: &Flags) -> anyhow::Result<ExitCode> {
    let (context, id, client) = target(flags).await?;
    let exports: Api<ServiceExport> = Api::namespaced(client, id.namespace().as_str());
    let result = match exports.delete(id.name().as_str(), &DeleteParams::default()).await {
        Ok(_) => "not exported any more",
        Err(kube::Error::Api(status)) if status.code == 404 => "was not exported",
        Err(error) => return Err(error).with_context(|| format!("could not take back the export of {id} of cluster {context}")),
    };
    print(&flags.global, &context, &id, result)
}

async fn target(flags: &Flags) -> anyhow::Result<(String, ServiceId, Client)> {
    let kubeconfig = flags.global.read()?;
    let context = flags.global.context_of(&kubeconfig)?;
    let namespace = flags.namespace.clone().or_else(|| namespace_of(&kubeconfig, &context)).unwrap_or_else(|| "default".to_owned());
    let id = ServiceId::parse(&namespace, &flags.service)?;
    let client = clusters::client(&kubeconfig, &context).await?;
    Ok((context, id, client))
}

fn namespace_of(kubeconfig: &Kubeconfig, context: &str) -> Option<String> {
    let context = kubeconfig.contexts.iter().find(|known| known.name == context)?;
    context.context.as_ref()?.namespace.clone()
}

fn print(global: &Global, context: &str, id: &ServiceId, result: &str) -> anyhow::Result<ExitCode> {
    match global.output {
        Output::Table => output::say(&format!("{id} of {context}: {result}\n")),
        Output::Json => output::say_json(&json!({ "cluster": context, "service": id, "result": result }))?,
    }
    Ok(ExitCode::SUCCESS)
}
