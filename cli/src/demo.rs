//! `mesh demo`: gives the demo its programs, which are this one, and its way to link.

use std::process::ExitCode;

use mesh_demo::supervise::{Component, Flags, Hooks, Linking, Program, main};

use crate::args::{Global, Output};
use crate::multicluster::{self, link::Request};
use crate::output;

/// Runs the demo until it is ended.
///
/// # Errors
/// When it could not be started.
pub(crate) fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let all = [Component::Apiserver, Component::Control, Component::MirrorController, Component::Gateway, Component::Dns, Component::Node];
    let words = |component: Component| vec!["internal".to_owned(), component.as_str().to_owned()];
    let program = Program { binary: std::env::current_exe()?, components: all.map(|component| (component, words(component))).into() };
    main(&flags, &Hooks { program, link: Box::new(|linking| Box::pin(link(linking))), say: output::say })?;
    Ok(ExitCode::SUCCESS)
}

async fn link(linking: Linking) -> anyhow::Result<()> {
    let global = Global { kubeconfig: Some(linking.kubeconfig), context: None, output: Output::Table };
    let kubeconfig = global.read()?;
    let request = Request { importer: linking.context, exporter: linking.to, mutual: false, gateways: vec![] };
    multicluster::link::link(&kubeconfig, &request).await?;
    Ok(())
}
