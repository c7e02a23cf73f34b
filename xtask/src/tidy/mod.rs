//! `cargo xtask tidy`: the rules of STYLE.md that no compiler checks. Each check is a pure function from the tree in memory to what
//! it found, and each finding says where, what, and how to mend it. Only [`run`] reads the disk and starts a process.

mod docs;
mod items;
mod lock;
mod manifests;
mod places;
mod sources;
mod tasks;
mod tokens;
mod tree;

use anyhow::{Result, bail};

use crate::shell;
use tree::{Finding, Tree};

/// Reads the repository, runs every check, prints what they found.
pub(crate) fn run() -> Result<()> {
    let tree = Tree::read(&shell::root())?;
    let mut findings = check(&tree);
    findings.extend(lock::ring(&who_builds_ring()?));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy found {} thing(s) to mend", findings.len());
    }
    println!("tidy: {} files, nothing to mend", tree.len());
    Ok(())
}

/// What `cargo tree` prints of ring's users: nothing when nothing builds it. A lock file without it is an error to cargo and fine by us.
fn who_builds_ring() -> Result<String> {
    let printed = shell::read(shell::cargo().args(["tree", "--workspace", "--locked", "-i", "ring", "-e", "normal,build"]));
    match printed {
        Err(error) if format!("{error:#}").contains("did not match any packages") => Ok(String::new()),
        other => other,
    }
}

fn check(tree: &Tree) -> Vec<Finding> {
    let checks: [fn(&Tree) -> Vec<Finding>; 7] =
        [manifests::check, sources::check, places::check, tasks::check, items::check, docs::check, lock::check];
    checks.iter().flat_map(|check| check(tree)).collect()
}

/// Runs one check over a tree that the test spells out, and compares what it found.
#[cfg(test)]
fn expect_findings(check: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)], expected: &expect_test::Expect) {
    let mut findings = check(&Tree::of(files));
    findings.sort();
    expected.assert_eq(&findings.iter().map(|finding| format!("{finding}\n")).collect::<String>());
}
