//! What a Link and a ServiceExport say of themselves. Pure.

use std::collections::BTreeSet;

use mesh_api::crd::Said;
use mesh_api::crd::link::{REFUSED_MAX, RefusedImport};
use mesh_names::ServiceId;
use mesh_topology::LinkHealth;

use crate::linked::LinkTold;
use crate::model::{Import, NotExported, SeenLink};
use crate::plan::{Conflict, ExportSays, Refusal};

/// What a Link is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSays {
    /// One word for people.
    pub state: &'static str,
    /// How many services are imported; nothing before the first complete listing, so that what was said stays.
    pub imported: Option<usize>,
    /// What is not imported.
    pub refused: Vec<RefusedImport>,
    /// Its conditions.
    pub conditions: Vec<Said>,
}

/// What a Link whose spec can't be used says.
#[must_use]
pub fn of_unusable(why: &str) -> LinkSays {
    let ready = said("Ready", Some(false), "InvalidSpec", why.to_owned());
    LinkSays { state: "Invalid", imported: None, refused: Vec::new(), conditions: vec![ready] }
}

/// What a Link says.
#[must_use]
pub fn of_link(
    link: &SeenLink,
    told: &LinkTold,
    health: LinkHealth,
    imported: Option<usize>,
    refused: Option<&BTreeSet<(ServiceId, Refusal)>>,
) -> LinkSays {
    let connected = connected(told);
    let trust = trust_current(link, told);
    let path = data_path(health);
    let ready = ready(told, &connected, &path);
    let refused = refused.into_iter().flatten().take(REFUSED_MAX);
    LinkSays {
        state: state(told, health),
        imported,
        refused: refused.map(|(id, why)| RefusedImport { service: id.to_string(), reason: why.reason().to_owned() }).collect(),
        conditions: vec![connected, path, ready, trust],
    }
}

/// What a ServiceExport says (KEP-1645). Peers pull what is exported, so what is ready is `Ready`, not `Exported`.
#[must_use]
pub fn of_export(says: &ExportSays) -> Vec<Said> {
    if let Some(why) = says.invalid {
        let text = match why {
            NotExported::NoService => "there is no Service of this name: make it, or delete this export",
            NotExported::InvalidServiceType => "a Service of type ExternalName can't be exported",
        };
        let pending = "nothing is exported before the export is valid";
        let none = said("Conflict", Some(false), "NoConflicts", "an export that is not valid takes part in nothing".to_owned());
        let valid = said("Valid", Some(false), why.reason(), text.to_owned());
        return vec![valid, said("Ready", Some(false), "Pending", pending.to_owned()), none];
    }
    let ready = match says.failed {
        Some(why) => said("Ready", Some(false), "Failed", why.message().to_owned()),
        None => said("Ready", Some(true), "Ready", "peers that may import it can".to_owned()),
    };
    let mut all = vec![said("Valid", Some(true), "Valid", "the Service can be exported".to_owned()), ready];
    all.extend(says.conflicts.as_ref().map(conflict));
    all
}

fn conflict(conflicts: &BTreeSet<Conflict>) -> Said {
    let reasons: Vec<&str> = conflicts.iter().map(|conflict| conflict.reason()).collect();
    if reasons.is_empty() {
        return said("Conflict", Some(false), "NoConflicts", "all exports of this name in the cluster set are alike".to_owned());
    }
    let text = "the exports of this name in the cluster set differ; the oldest decides".to_owned();
    said("Conflict", Some(true), &reasons.join(","), text)
}

/// What a ServiceImport says (KEP-1645). It never says `IPFamilyNotSupported`: gateways carry between the families.
#[must_use]
pub fn of_import(import: &Import) -> Said {
    if import.ready {
        return said("Ready", Some(true), "Ready", "the service can be called".to_owned());
    }
    said("Ready", Some(false), "Pending", import.pending.0.unwrap_or_default().to_owned())
}

fn state(told: &LinkTold, health: LinkHealth) -> &'static str {
    if told.held.is_some() {
        return "Held";
    }
    match health {
        LinkHealth::Unreachable => "Unreachable",
        LinkHealth::Drained => "Drained",
        _ if told.exports.is_none() => "Pending",
        LinkHealth::Unknown => "Unknown",
        LinkHealth::Healthy => "Healthy",
        LinkHealth::Degraded => "Degraded",
    }
}

fn connected(told: &LinkTold) -> Said {
    match &told.connected {
        None => said("Connected", None, "Connecting", "no answer yet".to_owned()),
        Some(Ok(())) => said("Connected", Some(true), "Connected", "the peer's control says what it exports".to_owned()),
        Some(Err(why)) => said("Connected", Some(false), "NotConnected", why.clone()),
    }
}

fn trust_current(link: &SeenLink, told: &LinkTold) -> Said {
    if told.refused {
        let text = format!("the peer is not who its bundle says: run mesh multicluster link again for {}", link.name);
        return said("TrustCurrent", Some(false), "Refused", text);
    }
    match told.bundle_sequence {
        None => said("TrustCurrent", None, "Unknown", "the peer has not said its bundle yet".to_owned()),
        Some(sequence) if sequence > link.bundle.sequence() => {
            said("TrustCurrent", Some(false), "Behind", "the peer has a newer bundle".to_owned())
        }
        Some(_) => said("TrustCurrent", Some(true), "Current", String::new()),
    }
}

fn data_path(health: LinkHealth) -> Said {
    let of = |status, reason, text: &str| said("DataPath", status, reason, text.to_owned());
    match health {
        LinkHealth::Healthy => of(Some(true), "Healthy", "every gateway answers"),
        LinkHealth::Degraded => of(Some(true), "Degraded", "some gateways do not answer from here"),
        LinkHealth::Unreachable => of(Some(false), "Unreachable", "no gateway answers from here"),
        LinkHealth::Drained => of(Some(false), "Drained", "a person took the link out"),
        LinkHealth::Unknown => of(None, "Probing", "the gateways have not been asked long enough"),
    }
}

fn ready(told: &LinkTold, connected: &Said, path: &Said) -> Said {
    if let Some(why) = &told.held {
        return said("Ready", Some(false), "Held", why.to_string());
    }
    if told.exports.is_none() {
        return said("Ready", Some(false), "Pending", "the peer's first listing is not complete".to_owned());
    }
    if path.status == Some(false) {
        return Said { kind: "Ready", ..path.clone() };
    }
    if connected.status == Some(false) {
        let text = "imports stay as they were last told; calls go on".to_owned();
        return said("Ready", Some(true), "NotConnected", text);
    }
    said("Ready", Some(true), "Ready", String::new())
}

fn said(kind: &'static str, status: Option<bool>, reason: &str, message: String) -> Said {
    Said { kind, status, reason: reason.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Failed;
    use crate::plan::tests::world::{link, listed};
    use expect_test::{Expect, expect};

    fn check(told: &LinkTold, health: LinkHealth, expected: Expect) {
        let says = of_link(&link("east"), told, health, Some(1), None);
        expected.assert_eq(&format!("{}: {}", says.state, show(&says.conditions)));
    }

    fn show(conditions: &[Said]) -> String {
        let status =
            |said: &Said| format!("{}={} {}", said.kind, said.status.map_or("?", |yes| if yes { "yes" } else { "no" }), said.reason);
        conditions.iter().map(status).collect::<Vec<_>>().join(", ")
    }

    fn check_export(says: &ExportSays, expected: Expect) {
        expected.assert_eq(&show(&of_export(says)));
    }

    #[test]
    fn an_export_says_whether_it_is_valid_and_ready_and_what_it_conflicts_in() {
        let good = ExportSays { invalid: None, failed: None, conflicts: Some(BTreeSet::new()) };
        check_export(&good, expect!["Valid=yes Valid, Ready=yes Ready, Conflict=no NoConflicts"]);
        let conflicts = Some([Conflict::Labels, Conflict::Ports].into());
        check_export(
            &ExportSays { conflicts, ..good.clone() },
            expect!["Valid=yes Valid, Ready=yes Ready, Conflict=yes PortConflict,LabelsConflict"],
        );
        check_export(&ExportSays { conflicts: None, ..good.clone() }, expect!["Valid=yes Valid, Ready=yes Ready"]);
        check_export(
            &ExportSays { failed: Some(Failed::NoPorts), ..good.clone() },
            expect!["Valid=yes Valid, Ready=no Failed, Conflict=no NoConflicts"],
        );
        for (invalid, expected) in [
            (NotExported::NoService, expect!["Valid=no NoService, Ready=no Pending, Conflict=no NoConflicts"]),
            (NotExported::InvalidServiceType, expect!["Valid=no InvalidServiceType, Ready=no Pending, Conflict=no NoConflicts"]),
        ] {
            check_export(&ExportSays { invalid: Some(invalid), ..good.clone() }, expected);
        }
    }

    #[test]
    fn a_link_is_visible_before_anything_is_known() {
        check(
            &LinkTold::default(),
            LinkHealth::Unknown,
            expect!["Pending: Connected=? Connecting, DataPath=? Probing, Ready=no Pending, TrustCurrent=? Unknown"],
        );
    }

    #[test]
    fn a_link_that_works_says_so() {
        let told = LinkTold {
            exports: Some(listed("east", &["shop/web"])),
            connected: Some(Ok(())),
            bundle_sequence: Some(1),
            ..LinkTold::default()
        };
        check(
            &told,
            LinkHealth::Healthy,
            expect!["Healthy: Connected=yes Connected, DataPath=yes Healthy, Ready=yes Ready, TrustCurrent=yes Current"],
        );
        check(
            &told,
            LinkHealth::Unreachable,
            expect!["Unreachable: Connected=yes Connected, DataPath=no Unreachable, Ready=no Unreachable, TrustCurrent=yes Current"],
        );
    }

    #[test]
    fn losing_the_peer_s_control_alone_makes_no_link_unready() {
        let told = LinkTold {
            exports: Some(listed("east", &["shop/web"])),
            connected: Some(Err("gone".into())),
            bundle_sequence: Some(2),
            ..LinkTold::default()
        };
        check(
            &told,
            LinkHealth::Degraded,
            expect!["Degraded: Connected=no NotConnected, DataPath=yes Degraded, Ready=yes NotConnected, TrustCurrent=no Behind"],
        );
    }
}
