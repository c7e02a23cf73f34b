//! The injector: answers the API server's question about each new pod, under a certificate of the cluster's own issuer.
//!
//! What is added to a pod is decided in [`mesh_api::inject`]. Here is who asks and who answers: the certificate is made, renewed and put
//! into the webhook's configuration by every replica by itself. They all have the same issuer, so they write the same. A new issuer is
//! first written there beside the old one and only then served under, so the API server never meets a certificate that it cannot check.

mod apply;
mod certificate;
mod review;
mod serve;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use mesh_api::inject::Settings;
use mesh_runtime::clock;
use mesh_runtime::drain::Drain;
use mesh_runtime::ready::Gate;
use mesh_runtime::tasks::Tasks;
use tokio::net::TcpListener;

use crate::issue::Authority;
use crate::observe::{Observer, pause};
use crate::observed::ObjectName;
pub(crate) use apply::Registration;
use certificate::WebCertificate;

/// What the injector is started with.
#[derive(Clone, Debug)]
pub struct InjectorConfig {
    /// Where the API server calls.
    pub listen: SocketAddr,
    /// The image of the proxy.
    pub proxy_image: String,
    /// The image of the init container.
    pub init_image: String,
}

/// An injector whose socket is open.
pub(crate) struct Injector {
    pub(crate) config: InjectorConfig,
    pub(crate) listener: TcpListener,
    pub(crate) registration: Registration,
    pub(crate) observer: Observer,
    /// Open while the API server can be answered, or does not ask.
    pub(crate) gate: Gate,
}

impl Injector {
    /// Runs until the drain starts.
    pub(crate) async fn run(self, drain: Drain) {
        let Self { config, listener, registration, observer, gate } = self;
        let held: Arc<ArcSwapOption<WebCertificate>> = Arc::default();
        let mut tasks = Tasks::new();
        tasks.spawn(keep_certificate(registration, observer.clone(), Arc::clone(&held), gate));
        serve::serve(listener, held, Arc::new(Answers { config, observer }), drain).await;
    }
}

/// What answers are made from.
pub(crate) struct Answers {
    config: InjectorConfig,
    observer: Observer,
}

impl Answers {
    /// What holds for a pod of this namespace now; none before control has read its cluster.
    fn settings(&self, namespace: &str) -> Option<Settings> {
        let observed = self.observer.now();
        let facts = observed.facts.only()?;
        let name = ObjectName { namespace: "".into(), name: namespace.into() };
        let own = observed.namespaces.get(&name).and_then(|namespace| namespace.inbound);
        Some(Settings {
            cluster: facts.cluster.clone(),
            trust_domain: facts.trust_domain.clone(),
            bundle: observed.bundle.only()?.0.clone(),
            proxy_image: self.config.proxy_image.clone(),
            init_image: self.config.init_image.clone(),
            inbound: own.unwrap_or(facts.inbound),
        })
    }
}

/// Keeps the certificate fresh, and the API server able to check it.
async fn keep_certificate(registration: Registration, observer: Observer, held: Arc<ArcSwapOption<WebCertificate>>, gate: Gate) {
    let mut changes = observer.changes();
    let mut failures = 0;
    loop {
        changes.borrow_and_update();
        let wait = match Authority::of(&observer.now()) {
            None => LOOK_EVERY,
            Some(authority) => match registration.trust(authority.issuer.certificate()).await {
                Ok(registered) => {
                    failures = 0;
                    renew(&authority, &held);
                    if held.load().is_some() || !registered {
                        gate.open();
                    }
                    LOOK_EVERY
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(error = crate::observe::brief(&error), failures, "could not write the injector's certificate");
                    pause(failures)
                }
            },
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Of everything that changes in a cluster, hardly anything is the issuer.
            changed = other_issuer(&mut changes, &observer, &held) => if !changed { return },
        }
    }
}

/// Returns when the issuer is another than the certificate's; `false` when nothing will change any more.
async fn other_issuer(changes: &mut tokio::sync::watch::Receiver<u64>, observer: &Observer, held: &ArcSwapOption<WebCertificate>) -> bool {
    loop {
        if changes.changed().await.is_err() {
            return false;
        }
        let issuer = Authority::of(&observer.now()).map(|authority| authority.issuer);
        if issuer.is_some_and(|issuer| held.load().as_ref().is_none_or(|held| !held.is_of(&issuer))) {
            return true;
        }
    }
}

fn renew(authority: &Authority, held: &ArcSwapOption<WebCertificate>) {
    let now = clock::wall();
    if held.load().as_ref().is_some_and(|held| held.is_of(&authority.issuer) && !held.is_due(now)) {
        return;
    }
    match WebCertificate::make(&authority.issuer, now) {
        Ok(made) => {
            tracing::info!("the injector has a new certificate");
            held.store(Some(Arc::new(made)));
        }
        Err(error) => tracing::error!(%error, "no certificate for the injector"),
    }
}

/// Somebody may have taken our certificate out of the configuration.
const LOOK_EVERY: Duration = Duration::from_secs(20);
