//! What `mesh` says, word for word: each file of `scripts/` is a session of commands and answers, held in a world of two clusters.
//!
//! A line that starts with `$ ` is typed, what follows is the answer on both outputs, and `(exit N)` ends one that was not a success. Ages,
//! ids and times are redacted, columns are drawn together. `UPDATE_EXPECT=1 cargo test -p mesh-tests --test specs -- transcripts` writes
//! the files anew; the difference is then read like any other change.

use std::path::Path;
use std::process::{Command, Stdio};

use expect_test::expect_file;
use mesh_tests::{World, eventually, tools};
use regex::Regex;

#[tokio::test]
async fn mesh_says_what_its_transcripts_say() {
    let (_alone, world) = crate::world(2).await;
    let scratch = tempfile::tempdir().unwrap();
    for script in ["multicluster", "check", "dns", "trust", "unlink"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script).with_extension("txt");
        settled(&world).await;
        let typed = std::fs::read_to_string(&path).unwrap();
        let commands = typed.lines().filter_map(|line| line.strip_prefix("$ "));
        let held: String = commands.map(|command| format!("$ {command}\n{}", answer(&world, scratch.path(), command))).collect();
        assert!(held.contains("$ mesh"), "{script} types nothing");
        expect_file![path].assert_eq(&held);
    }
}

/// Both links are ready and have been heard from, so that what is said does not depend on how fast the machine is.
async fn settled(world: &World) {
    for cluster in ["east", "west"] {
        let ready = ["wait", "links.isthmus.dev", "--all", "--for=condition=Ready", "--timeout=1s"];
        eventually("the links are ready", async || world.kubectl(cluster, &ready)).await;
    }
}

/// What a command answers, redacted.
fn answer(world: &World, scratch: &Path, command: &str) -> String {
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("mesh"), "{command}");
    let output = Command::new(tools::mesh())
        .args(words)
        .env("KUBECONFIG", &world.kubeconfig)
        .env("COLUMNS", "120")
        .current_dir(scratch)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let mut said = redacted(&String::from_utf8(said).unwrap(), world);
    if !output.status.success() {
        said.push_str(&format!("(exit {})\n", output.status.code().unwrap_or(-1)));
    }
    said
}

fn redacted(text: &str, world: &World) -> String {
    let text = text.replace(&*world.dir.to_string_lossy(), "<dir>");
    let text = REDACTIONS.iter().fold(text, |text, (pattern, word)| {
        let pattern = Regex::new(pattern).unwrap();
        pattern.replace_all(&text, *word).into_owned()
    });
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

const REDACTIONS: &[(&str, &str)] = &[
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uid>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"\b[0-9a-f]{16,}\b", "<hash>"),
    (r"\b127\.\d+\.128\.\d+", "<service-ip>"),
    (r"\b\d+(\.\d+)?(ms|s|m|h|d)\b", "<age>"),
    (r"(\S)  +", "$1  "),
];

#[test]
fn what_changes_from_run_to_run_is_redacted_and_nothing_else() {
    let redact = |text: &str| {
        REDACTIONS.iter().fold(text.to_owned(), |text, (pattern, word)| Regex::new(pattern).unwrap().replace_all(&text, *word).into_owned())
    };
    assert_eq!(redact("east     12s   id 0b0e7d8e-5b44-4d0e-9f3c-0a4f8e2d9c11"), "east  <age>  id <uid>");
    assert_eq!(redact("127.11.0.31:4143 since 2026-01-02T03:04:05Z"), "127.11.0.31:4143 since <time>");
}
