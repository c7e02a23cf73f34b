//! `mesh uninstall`: takes the mesh out of a cluster so that nothing that runs notices.
//!
//! The order is the point. First the injector goes, so that what is restarted comes back without a proxy; then every pod with a proxy must
//! be gone; then links and what they made; and at the very end what proxies, clients and peers talk to: DNS, gateways, control.

use std::collections::BTreeSet;
use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::{Client, ResourceExt as _};
use mesh_api::crd::{ClusterProperty, Link, Peer, ServiceImport};
use mesh_api::well_known::{INJECTED, MANAGED_BY, MANAGED_BY_ISTHMUS, MIRROR, MIRROR_ACCOUNT};
use mesh_manifests::{Install, Object};
use mesh_runtime::clock;
use serde::Serialize;
use serde_json::json;

use super::flags::UninstallFlags;
use super::observe::api_of;
use crate::args::Output;
use crate::{clusters, output};

/// Uninstalls, or says what that would delete.
///
/// # Errors
/// When the cluster does not answer, refuses, or something takes too long; the same command goes on from there.
pub(crate) async fn uninstall(flags: &UninstallFlags) -> anyhow::Result<ExitCode> {
    let kubeconfig = flags.global.read()?;
    let client = clusters::client(&kubeconfig, &flags.global.context_of(&kubeconfig)?).await?;
    let removal = Removal { client, deadline: clock::now() + flags.timeout.0 };
    let meshed = removal.meshed().await?;
    if flags.dry_run {
        return removal.say(flags, &meshed).await;
    }
    removal.delete_all(order(Stage::Injector, flags)).await?;
    if !meshed.is_empty() && !flags.force {
        if !flags.restart_workloads {
            return Ok(refused(&meshed));
        }
        removal.restart(&meshed).await?;
        removal.until_none_is_meshed().await?;
    }
    removal.links_and_mirrors().await?;
    removal.delete_all(order(Stage::Components, flags)).await?;
    removal.delete_all(order(Stage::Rest, flags)).await?;
    anstream::eprintln!("nothing of the mesh is left");
    Ok(ExitCode::SUCCESS)
}

fn refused(meshed: &[Meshed]) -> ExitCode {
    anstream::eprintln!("mesh: these pods still have a proxy, so control, DNS and gateways stay (the injector is gone):");
    for pod in meshed.iter().take(SHOWN) {
        anstream::eprintln!("  {pod}");
    }
    if meshed.len() > SHOWN {
        anstream::eprintln!("  and {} more", meshed.len() - SHOWN);
    }
    anstream::eprintln!("next: mesh uninstall --restart-workloads, or restart them yourself and run mesh uninstall again");
    ExitCode::from(REFUSED)
}

/// A part of the removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What asks control about new pods.
    Injector,
    /// What others talk to, in the order in which nobody needs it any more.
    Components,
    /// Everything that is left.
    Rest,
}

/// What a stage deletes, in order. Pure: the names of an installation's objects are the same whatever was chosen.
fn order(stage: Stage, flags: &UninstallFlags) -> Vec<Object> {
    let Ok(any) = "any".parse().map(Install::new) else { return Vec::new() };
    let all = mesh_manifests::objects(&any);
    match stage {
        Stage::Injector => all.into_iter().filter(|object| object.kind() == "MutatingWebhookConfiguration").collect(),
        Stage::Components => {
            let places = ["mesh-dns", "mesh-gateway", "mesh-control"];
            let mut deployments: Vec<(usize, Object)> = all
                .into_iter()
                .filter(|object| object.kind() == "Deployment")
                .filter_map(|object| Some((places.iter().position(|name| *name == object.name())?, object)))
                .collect();
            deployments.sort_by_key(|(place, _)| *place);
            deployments.into_iter().map(|(_, object)| object).collect()
        }
        Stage::Rest => {
            let last = |object: &Object| match object.kind() {
                "Namespace" => 1,
                "CustomResourceDefinition" => 2,
                _ => 0,
            };
            let mut rest: Vec<Object> = all
                .into_iter()
                .filter(|object| !object.of().namespaced && object.kind() != "MutatingWebhookConfiguration")
                .filter(|object| !flags.keep_definitions || object.kind() != "CustomResourceDefinition")
                .collect();
            rest.sort_by_key(last);
            rest
        }
    }
}

/// A pod with a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Meshed {
    namespace: String,
    name: String,
    #[serde(skip)]
    owner: Option<(String, String)>,
}

impl fmt::Display for Meshed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Meshed {
    fn of(pod: &Pod) -> Option<Self> {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let runs = !matches!(phase, "Succeeded" | "Failed");
        let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        (runs && pod.annotations().get(INJECTED).is_some_and(|value| value == "true")).then(|| Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            owner: owner.map(|owner| (owner.kind.clone(), owner.name.clone())),
        })
    }
}

struct Removal {
    client: Client,
    deadline: std::time::Instant,
}

impl Removal {
    async fn meshed(&self) -> anyhow::Result<Vec<Meshed>> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let pods = pods.list(&ListParams::default()).await.context("could not list pods")?;
        Ok(pods.items.iter().filter_map(Meshed::of).collect())
    }

    async fn until_none_is_meshed(&self) -> anyhow::Result<()> {
        let mut left = usize::MAX;
        loop {
            let meshed = self.meshed().await?;
            if meshed.is_empty() {
                return Ok(());
            }
            if meshed.len() != left {
                left = meshed.len();
                anstream::eprintln!("waiting    {left} pod(s) still have a proxy, {} among them", meshed[0]);
            }
            self.pause(|| format!("{} still has a proxy: restart or delete it, and run the same command again", meshed[0])).await?;
        }
    }

    /// Restarts whatever owns the pods, as `kubectl rollout restart` does: each by its own rules of how many may be gone at a time.
    async fn restart(&self, meshed: &[Meshed]) -> anyhow::Result<()> {
        let mut owners = BTreeSet::new();
        for pod in meshed {
            let Some((kind, name)) = &pod.owner else { continue };
            owners.extend(self.top(&pod.namespace, kind, name).await?.map(|(kind, name)| (pod.namespace.clone(), kind, name)));
        }
        let at = jiff::Timestamp::now().to_string();
        let patch = Patch::Merge(json!({ "spec": { "template": { "metadata": { "annotations": { RESTARTED: at } } } } }));
        for (namespace, kind, name) in owners {
            anstream::eprintln!("restart    {kind} {namespace}/{name}");
            let client = || self.client.clone();
            let params = PatchParams::default();
            let done = match kind.as_str() {
                "Deployment" => Api::<Deployment>::namespaced(client(), &namespace).patch(&name, &params, &patch).await.map(drop),
                "StatefulSet" => Api::<StatefulSet>::namespaced(client(), &namespace).patch(&name, &params, &patch).await.map(drop),
                _ => Api::<DaemonSet>::namespaced(client(), &namespace).patch(&name, &params, &patch).await.map(drop),
            };
            done.with_context(|| format!("could not restart {kind} {namespace}/{name}"))?;
        }
        Ok(())
    }

    /// The object whose template makes such pods; none for what nobody makes again, and for Jobs, which end by themselves.
    async fn top(&self, namespace: &str, kind: &str, name: &str) -> anyhow::Result<Option<(String, String)>> {
        match kind {
            "ReplicaSet" => {
                let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
                let set = sets.get_opt(name).await.with_context(|| format!("could not read ReplicaSet {namespace}/{name}"))?;
                let owner = set.and_then(|set| set.owner_references().iter().find(|owner| owner.kind == "Deployment").cloned());
                Ok(owner.map(|owner| (owner.kind, owner.name)))
            }
            "StatefulSet" | "DaemonSet" => Ok(Some((kind.to_owned(), name.to_owned()))),
            _ => Ok(None),
        }
    }

    /// Ends every link and peer, stops who would make mirrors again, and deletes the mirrors.
    async fn links_and_mirrors(&self) -> anyhow::Result<()> {
        self.sweep::<Link>(&ListParams::default()).await?;
        self.sweep::<Peer>(&ListParams::default()).await?;
        let controller = mesh_manifests::objects(&Install::new("any".parse()?));
        let controller = controller.into_iter().filter(|object| object.kind() == "Deployment" && object.name() == MIRROR_ACCOUNT);
        self.delete_all(controller.collect()).await?;
        let mirrors = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGED_BY_ISTHMUS},{MIRROR}"));
        self.sweep::<Service>(&mirrors).await?;
        self.sweep::<EndpointSlice>(&mirrors).await?;
        self.sweep::<ServiceImport>(&mirrors).await?;
        self.sweep::<ClusterProperty>(&ListParams::default().labels(&format!("{MANAGED_BY}={MANAGED_BY_ISTHMUS}"))).await
    }

    /// Deletes everything of a kind that is selected, wherever it lies. A kind that is not served has nothing.
    async fn sweep<K>(&self, selected: &ListParams) -> anyhow::Result<()>
    where
        K: kube::Resource<DynamicType = ()> + Clone + fmt::Debug + serde::de::DeserializeOwned,
    {
        let kind = K::kind(&());
        let objects = match Api::<K>::all(self.client.clone()).list(selected).await {
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => return Ok(()),
            listed => listed.with_context(|| format!("could not list {kind}s"))?.items,
        };
        for object in objects {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            let scope = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
            let (group, version, plural) = (K::group(&()), K::version(&()), K::plural(&()));
            let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
            let request = kube::core::Request::new(format!("{root}{scope}/{plural}")).delete(&name, &background())?;
            anstream::eprintln!("delete     {kind} {namespace}{}{name}", if namespace.is_empty() { "" } else { "/" });
            match self.client.request_text(request).await {
                Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {}
                done => drop(done.with_context(|| format!("could not delete {kind} {namespace}/{name}"))?),
            }
        }
        Ok(())
    }

    /// Deletes objects one after the other, each only when the one before is gone. A standard definition that somebody else installed stays.
    async fn delete_all(&self, objects: Vec<Object>) -> anyhow::Result<()> {
        for object in objects {
            let api = api_of(&self.client, &object);
            let what = format!("{} {}", object.kind(), object.name());
            let Some(held) = api.get_opt(object.name()).await.with_context(|| format!("could not read {what}"))? else { continue };
            let ours = held.labels().get(MANAGED_BY).is_some_and(|by| by == MANAGED_BY_ISTHMUS);
            if object.kind() == "CustomResourceDefinition" && !ours {
                anstream::eprintln!("keep       {what}: somebody else installed it");
                continue;
            }
            anstream::eprintln!("delete     {what}");
            let params = if object.kind() == "Deployment" { foreground() } else { background() };
            api.delete(object.name(), &params).await.with_context(|| format!("could not delete {what}"))?;
            while api.get_opt(object.name()).await.with_context(|| format!("could not read {what}"))?.is_some() {
                self.pause(|| {
                    format!("{what} does not go: see its finalizers with kubectl get {} {} -o yaml", object.of().plural, object.name())
                })
                .await?;
            }
        }
        Ok(())
    }

    async fn pause(&self, what: impl FnOnce() -> String) -> anyhow::Result<()> {
        anyhow::ensure!(clock::now() < self.deadline, "{} (--timeout is over)", what());
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }

    async fn say(&self, flags: &UninstallFlags, meshed: &[Meshed]) -> anyhow::Result<ExitCode> {
        let mut rows = Vec::new();
        for stage in [Stage::Injector, Stage::Components, Stage::Rest] {
            for object in order(stage, flags) {
                if api_of(&self.client, &object).get_opt(object.name()).await?.is_some() {
                    rows.push([object.kind().to_owned(), object.name().to_owned()]);
                }
            }
        }
        match flags.global.output {
            Output::Table => {
                output::say(&output::table(["KIND", "NAME"], rows));
                anstream::eprintln!("and every Link, Peer and mirror. Pods with a proxy: {}", meshed.len());
            }
            Output::Json => {
                let rows: Vec<_> = rows.iter().map(|[kind, name]| json!({ "kind": kind, "name": name })).collect();
                output::say_json(&json!({ "delete": rows, "meshed": meshed }))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What an object owns goes by itself.
fn background() -> DeleteParams {
    DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() }
}

/// An object goes only when what it owns is gone: a Deployment when its pods have ended.
fn foreground() -> DeleteParams {
    DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() }
}

const RESTARTED: &str = "isthmus.dev/restarted-at";
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Pods named before the rest is only counted.
const SHOWN: usize = 10;
const NOT_FOUND: u16 = 404;
/// The exit code of what was refused.
const REFUSED: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use expect_test::{Expect, expect};

    #[derive(Parser)]
    struct Uninstall {
        #[command(flatten)]
        flags: UninstallFlags,
    }

    fn check(arguments: &[&str], stages: &[Stage], expected: &Expect) {
        let flags = Uninstall::try_parse_from([&["x"], arguments].concat()).unwrap().flags;
        let objects = stages.iter().flat_map(|stage| order(*stage, &flags));
        expected.assert_eq(&objects.map(|object| format!("{} {}\n", object.kind(), object.name())).collect::<String>());
    }

    #[test]
    fn the_injector_goes_first_and_what_others_talk_to_last() {
        check(
            &[],
            &[Stage::Injector, Stage::Components],
            &expect![[r#"
            MutatingWebhookConfiguration isthmus-injector
            Deployment mesh-dns
            Deployment mesh-gateway
            Deployment mesh-control
        "#]],
        );
    }

    #[test]
    fn roles_go_before_the_namespace_and_definitions_at_the_very_end_or_not_at_all() {
        check(
            &[],
            &[Stage::Rest],
            &expect![[r#"
            ClusterRole isthmus-control
            ClusterRoleBinding isthmus-control
            ClusterRole isthmus-mirror-controller
            ClusterRoleBinding isthmus-mirror-controller
            ClusterRole isthmus-view
            ClusterRole isthmus-edit
            Namespace isthmus-system
            CustomResourceDefinition links.isthmus.dev
            CustomResourceDefinition peers.isthmus.dev
            CustomResourceDefinition serviceexports.multicluster.x-k8s.io
            CustomResourceDefinition serviceimports.multicluster.x-k8s.io
            CustomResourceDefinition clusterproperties.about.k8s.io
        "#]],
        );
        check(
            &["--keep-definitions"],
            &[Stage::Rest],
            &expect![[r#"
            ClusterRole isthmus-control
            ClusterRoleBinding isthmus-control
            ClusterRole isthmus-mirror-controller
            ClusterRoleBinding isthmus-mirror-controller
            ClusterRole isthmus-view
            ClusterRole isthmus-edit
            Namespace isthmus-system
        "#]],
        );
    }

    #[test]
    fn a_pod_that_has_ended_has_no_proxy_any_more() {
        let pod = |phase: &str, mark: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": { "name": "a", "namespace": "shop", "annotations": { INJECTED: mark },
                    "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a-1", "uid": "1", "controller": true }] },
                "status": { "phase": phase },
            }))
            .unwrap()
        };
        let meshed = Meshed::of(&pod("Running", "true")).unwrap();
        assert_eq!((meshed.to_string().as_str(), meshed.owner), ("shop/a", Some(("ReplicaSet".to_owned(), "a-1".to_owned()))));
        assert!(Meshed::of(&pod("Succeeded", "true")).is_none() && Meshed::of(&pod("Running", "false")).is_none());
    }
}
