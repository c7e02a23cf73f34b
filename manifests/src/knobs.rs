//! The places of the manifests that a choice fills: with the choice itself, or, in a Helm template, with the expression that stands for it.
//!
//! So the same code writes both, and they cannot drift. An expression is a string between two characters of Unicode's private use area,
//! which no other string of ours contains; [`crate::yaml`] knows what to make of it.

use serde_json::{Value, json};

use crate::install::Install;

/// Begins an expression.
pub(crate) const OPEN: char = '\u{E000}';
/// Ends one.
pub(crate) const CLOSE: char = '\u{E001}';

/// Every place. Text may be part of a longer string; values stand alone.
#[derive(Clone, Debug)]
pub(crate) struct Knobs {
    pub(crate) cluster: String,
    pub(crate) trust_domain: String,
    pub(crate) registry: String,
    pub(crate) tag: String,
    pub(crate) replicas: Value,
    pub(crate) replicas_text: String,
    pub(crate) gateway: String,
    pub(crate) ranges: String,
    pub(crate) webhook: String,
    pub(crate) allow_unmeshed: String,
    pub(crate) inbound: String,
}

impl Knobs {
    /// The choices themselves.
    pub(crate) fn of(install: &Install) -> Self {
        let ranges: Vec<String> = install.ranges.iter().map(ToString::to_string).collect();
        Self {
            cluster: install.cluster.to_string(),
            trust_domain: install.trust_domain.to_string(),
            registry: install.images.registry.to_string(),
            tag: install.images.tag.to_string(),
            replicas: json!(install.replicas.get()),
            replicas_text: install.replicas.to_string(),
            gateway: install.gateway.as_str().to_owned(),
            ranges: ranges.join(" "),
            webhook: install.webhook.as_str().to_owned(),
            allow_unmeshed: install.allow_unmeshed.to_string(),
            inbound: install.inbound.as_str().to_owned(),
        }
    }

    /// The expressions of the Helm chart.
    pub(crate) fn helm() -> Self {
        let of = |expression: &str| format!("{OPEN}{expression}{CLOSE}");
        Self {
            cluster: of(".Values.cluster"),
            trust_domain: of(r#"default (printf "%s.mesh" .Values.cluster) .Values.trustDomain"#),
            registry: of(".Values.images.registry"),
            tag: of("default .Chart.AppVersion .Values.images.tag"),
            replicas: json!(of(".Values.replicas")),
            replicas_text: of(".Values.replicas | toString"),
            gateway: of(".Values.gateway.type"),
            ranges: of(r#"join " " .Values.ranges"#),
            webhook: of(".Values.webhook.failurePolicy"),
            allow_unmeshed: of(".Values.allowUnmeshed | toString"),
            inbound: of(".Values.inbound"),
        }
    }

    /// The image of a component.
    pub(crate) fn image(&self, component: &str) -> String {
        format!("{}/{component}:{}", self.registry, self.tag)
    }
}
