//! Which clusters a command means: contexts of a kubeconfig, as kubectl has them, and a client for each.

use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::args::Global;

impl Global {
    /// The kubeconfig that was named, else the one that the environment names.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub(crate) fn read(&self) -> anyhow::Result<Kubeconfig> {
        match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file).with_context(|| format!("could not read kubeconfig {}", file.display())),
            None => Kubeconfig::read().context("found no kubeconfig: name one with --kubeconfig, or set KUBECONFIG"),
        }
    }

    /// The context that was named, else the kubeconfig's current one.
    ///
    /// # Errors
    /// When neither is there.
    pub(crate) fn context_of(&self, kubeconfig: &Kubeconfig) -> anyhow::Result<String> {
        let context = self.context.clone().or_else(|| kubeconfig.current_context.clone());
        context.context("the kubeconfig has no current context: name one with --context")
    }
}

/// The names of every context.
#[must_use]
pub(crate) fn contexts(kubeconfig: &Kubeconfig) -> Vec<String> {
    kubeconfig.contexts.iter().map(|context| context.name.clone()).collect()
}

/// A client for one context. It gives up soon: a cluster that is away must not hold a command up.
///
/// # Errors
/// When the kubeconfig has no such context, or what it names cannot be read.
pub(crate) async fn client(kubeconfig: &Kubeconfig, context: &str) -> anyhow::Result<Client> {
    let known = contexts(kubeconfig);
    anyhow::ensure!(known.iter().any(|name| name == context), "the kubeconfig has no context {context}: it has {}", known.join(", "));
    let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig.clone(), &options)
        .await
        .with_context(|| format!("context {context} names no cluster to talk to"))?;
    config.connect_timeout = Some(CONNECT_MAX);
    config.read_timeout = Some(READ_MAX);
    config.proxy_url = None;
    Client::try_from(config).with_context(|| format!("could not make a client for context {context}"))
}

const CONNECT_MAX: Duration = Duration::from_secs(3);
const READ_MAX: Duration = Duration::from_secs(10);
