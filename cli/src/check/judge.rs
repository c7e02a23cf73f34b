//! Decides how each check of a cluster came out. Pure.

use std::time::{Duration, SystemTime};

use super::observe::{LinkSeen, Seen};
use super::{Finding, State};

/// The findings about one cluster; when it could not be read, the one that says so.
pub(super) fn judge(cluster: &str, seen: &anyhow::Result<Seen>, now: SystemTime) -> Vec<Finding> {
    let said = |id, state, message: String| Finding { cluster: cluster.to_owned(), id, state, object: None, message };
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            let cause = error.root_cause().to_string();
            let message = if cause == error.to_string() { cause } else { format!("{error}: {cause}") };
            return vec![said("K8S-001", State::Fail, message)];
        }
    };
    let sound = |held| if held { State::Ok } else { State::Fail };
    let mut findings = vec![said("K8S-001", State::Ok, String::new())];
    let (state, message) = life(seen.authorities_until, now, 60);
    findings.push(said("TRUST-001", state, message));
    let (state, message) = life(Some(seen.issuer_until), now, 7);
    findings.push(said("TRUST-002", state, message));
    findings.push(said("TRUST-003", sound(seen.issuer_fits), if seen.issuer_fits { String::new() } else { "it does not".to_owned() }));
    findings.push(said("CTRL-001", sound(seen.controls_ready > 0), format!("{} ready", seen.controls_ready)));
    findings.push(said("GW-001", sound(!seen.gateway_addresses.is_empty()), seen.gateway_addresses.join(", ")));
    findings.push(said("GW-002", sound(seen.gateways_ready > 0), format!("{} ready", seen.gateways_ready)));
    for link in &seen.links {
        let about = |(id, state, message)| Finding { object: Some(link.name.clone()), ..said(id, state, message) };
        findings.push(about(condition("MC-LINK-001", link, "Connected")));
        findings.push(about(condition("MC-LINK-002", link, "DataPath")));
        findings.push(about(condition("MC-LINK-003", link, "TrustCurrent")));
        let mutual = seen.peers.contains(&link.name);
        let (state, message) =
            if mutual { (State::Ok, String::new()) } else { (State::Warn, format!("{} may not import from here", link.name)) };
        findings.push(about(("MC-LINK-004", state, message)));
    }
    findings
}

fn life(until: Option<SystemTime>, now: SystemTime, wanted_days: u64) -> (State, String) {
    let Some(until) = until else { return (State::Fail, "there are none".to_owned()) };
    match until.duration_since(now) {
        Err(_) => (State::Fail, "expired".to_owned()),
        Ok(left) => {
            let state = if left < Duration::from_secs(wanted_days * DAY) { State::Warn } else { State::Ok };
            (state, format!("{} d left", left.as_secs() / DAY))
        }
    }
}

fn condition(id: &'static str, link: &LinkSeen, kind: &str) -> (&'static str, State, String) {
    match link.conditions.iter().find(|(held, ..)| held == kind) {
        None => (id, State::Warn, "not known yet".to_owned()),
        Some((_, status, message)) => {
            let state = match status.as_str() {
                "True" => State::Ok,
                "False" => State::Fail,
                _ => State::Warn,
            };
            (id, state, if state == State::Ok { String::new() } else { message.clone() })
        }
    }
}

const DAY: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn sound() -> Seen {
        let later = |days| SystemTime::UNIX_EPOCH + Duration::from_secs(days * DAY);
        Seen {
            authorities_until: Some(later(400)),
            issuer_until: later(30),
            issuer_fits: true,
            controls_ready: 2,
            gateway_addresses: vec!["127.10.0.31".into()],
            gateways_ready: 2,
            links: vec![LinkSeen {
                name: "east".into(),
                conditions: ["Connected", "DataPath", "TrustCurrent"]
                    .map(|kind| (kind.to_owned(), "True".to_owned(), String::new()))
                    .into(),
            }],
            peers: ["east".to_owned()].into(),
        }
    }

    fn check(seen: anyhow::Result<Seen>, expected: &Expect) {
        let findings = judge("west", &seen, SystemTime::UNIX_EPOCH);
        let unsound = findings.iter().filter(|finding| finding.state != State::Ok);
        expected.assert_eq(
            &unsound.map(|finding| format!("{} {} {}\n", finding.state.word(), finding.id, finding.message)).collect::<String>(),
        );
    }

    #[test]
    fn a_sound_cluster_has_nothing_to_tell() {
        check(Ok(sound()), &expect![""]);
    }

    #[test]
    fn what_is_broken_is_named_and_what_will_break_warns() {
        let mut seen = sound();
        seen.issuer_until = SystemTime::UNIX_EPOCH + Duration::from_secs(2 * DAY);
        seen.gateways_ready = 0;
        seen.links[0].conditions[1] = ("DataPath".into(), "False".into(), "no gateway answers".into());
        seen.peers.clear();
        check(
            Ok(seen),
            &expect![[r#"
            WARN TRUST-002 2 d left
            FAIL GW-002 0 ready
            FAIL MC-LINK-002 no gateway answers
            WARN MC-LINK-004 east may not import from here
        "#]],
        );
    }

    #[test]
    fn a_cluster_that_is_away_is_one_failure() {
        check(
            Err(anyhow::anyhow!("connection refused")),
            &expect![[r#"
            FAIL K8S-001 connection refused
        "#]],
        );
    }
}
