//! Every task has an owner, every queue a limit, and no test sleeps (STYLE.md, rules 8 and 12). Tests may spawn, since their runtime
//! ends what they started when they end.

use super::tokens::{Token, find};
use super::tree::{Finding, Tree, is_test_file};

/// Tasks without an owner and queues without a limit, as tokens.
const LOOSE: &[(&str, &str)] = &[
    ("tokio :: spawn", "spawn it on a JoinSet or on mesh_runtime's tasks, which end and report what they own"),
    ("task :: spawn (", "spawn it on a JoinSet or on mesh_runtime's tasks, which end and report what they own"),
    ("task :: spawn_local (", "spawn it on a JoinSet or on mesh_runtime's tasks, which end and report what they own"),
    ("unbounded_channel", "use a bounded channel, and say in a comment what happens past its limit"),
    ("mpsc :: channel ( )", "use `sync_channel`, and say in a comment what happens past its limit"),
];

/// Files that may, each with its reason.
const ALLOWED: &[(&str, &str)] = &[
    ("runtime/src/tasks.rs", "this is where tasks get their owner"),
    ("proxy/src/local.rs", "hyper's own executor: each task that hyper starts ends with its connection, which is owned"),
];

/// Calls that make a test wait for time instead of for what it asserts.
const SLEEPS: &[&str] = &["sleep (", "sleep_until ("];

/// The helpers that may pause, each with what it is for.
const PAUSES: &[(&str, &str)] = &[
    ("eventually", "polls a condition until a deadline"),
    ("until", "polls a condition until a deadline"),
    ("time_passes", "for a test about time itself: that nothing happens meanwhile, or that load is borne that long"),
];

/// Checks every Rust file.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in tree.rust() {
        let Ok(tokens) = file.tokens() else { continue };
        let in_test = |at: usize| is_test_file(path) || tokens[at].place.test;
        if !ALLOWED.iter().any(|(allowed, _)| *allowed == path) {
            for (pattern, mend) in LOOSE {
                let found = find(tokens, pattern).filter(|at| !in_test(*at) && !is_owned(tokens, *at));
                findings.extend(found.map(|at| Finding::new(path, tokens[at].line, format!("`{}`", pattern.replace(' ', "")), *mend)));
            }
        }
        if path.starts_with("bench/") {
            continue;
        }
        let sleeps = SLEEPS.iter().flat_map(|pattern| find(tokens, pattern)).filter(|at| in_test(*at) && waits(tokens, *at));
        let mend = "poll the condition with a deadline, in `eventually` or `until`; pause the clock; or call `time_passes` where time is what is tested";
        findings.extend(sleeps.map(|at| Finding::new(path, tokens[at].line, "a test sleeps", mend)));
    }
    findings
}

/// Whether the task that is spawned at `at` is given to `AbortOnDropHandle::new(…)` there and then: whoever holds that is its owner.
fn is_owned(tokens: &[Token], at: usize) -> bool {
    let first =
        (0..at).rev().find(|before| !matches!(tokens[*before].text.as_str(), "::" | "tokio" | "task")).map_or(0, |before| before + 1);
    tokens[..first].iter().rev().map(|token| token.text.as_str()).take(4).eq(["(", "new", "::", "AbortOnDropHandle"])
}

/// Whether the word at `at` is a call that takes real time: no method, no definition, not under a paused clock, not in a poll.
fn waits(tokens: &[Token], at: usize) -> bool {
    let before = at.checked_sub(1).map_or("", |before| tokens[before].text.as_str());
    let place = &tokens[at].place;
    !matches!(before, "." | "fn")
        && !place.virtual_time
        && !place.functions.iter().any(|function| PAUSES.iter().any(|(pause, _)| pause == function))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::expect_findings;

    fn check(path: &str, text: &str, expected: &Expect) {
        expect_findings(super::check, &[(path, text)], expected);
    }

    #[test]
    fn a_loose_task_and_an_endless_queue_are_found() {
        check(
            "proxy/src/accept.rs",
            "fn f() {\n tokio::spawn(g());\n let _ = mpsc::unbounded_channel::<u8>();\n let _ = std::sync::mpsc::channel();\n}",
            &expect![[r#"
                proxy/src/accept.rs:2: `tokio::spawn`: spawn it on a JoinSet or on mesh_runtime's tasks, which end and report what they own
                proxy/src/accept.rs:3: `unbounded_channel`: use a bounded channel, and say in a comment what happens past its limit
                proxy/src/accept.rs:4: `mpsc::channel()`: use `sync_channel`, and say in a comment what happens past its limit
            "#]],
        );
    }

    #[test]
    fn owned_tasks_bounded_queues_and_tests_are_well() {
        check(
            "proxy/src/accept.rs",
            "fn f() { connections.spawn_local(g()); mpsc::channel(8); }\n#[cfg(test)]\nmod tests { fn f() { tokio::spawn(g()); } }",
            &expect![""],
        );
        check("proxy/src/accept.rs", "fn f() { AbortOnDropHandle::new(tokio::task::spawn_local(g())); }", &expect![""]);
        check("runtime/src/tasks.rs", "fn f() { tokio::spawn(g()); }", &expect![""]);
    }

    #[test]
    fn a_test_that_sleeps_is_found() {
        check(
            "tests/specs/a.rs",
            "#[test]\nfn f() {\n std::thread::sleep(d);\n tokio::time::sleep(d).await;\n}",
            &expect![[r#"
                tests/specs/a.rs:3: a test sleeps: poll the condition with a deadline, in `eventually` or `until`; pause the clock; or call `time_passes` where time is what is tested
                tests/specs/a.rs:4: a test sleeps: poll the condition with a deadline, in `eventually` or `until`; pause the clock; or call `time_passes` where time is what is tested
            "#]],
        );
    }

    #[test]
    fn a_poll_a_paused_clock_and_live_code_may_pause() {
        check("tests/src/load.rs", "async fn time_passes(d: Duration) { sleep(d).await; }", &expect![""]);
        check("tests/src/world.rs", "async fn eventually() { loop { tokio::time::sleep(d).await; } }", &expect![""]);
        check(
            "a/src/lib.rs",
            "#[cfg(test)]\nmod tests { #[tokio::test(start_paused = true)]\nasync fn f() { sleep(d).await; } }",
            &expect![""],
        );
        check("a/src/lib.rs", "async fn f() { sleep(d).await; }", &expect![""]);
    }
}
