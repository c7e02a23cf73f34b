//! Where Kubernetes and generated types may appear (STYLE.md): in the crates that translate them and in the files that read or write
//! the world. Everything else sees plain values, so that a decision can be tested without a cluster and a new Kubernetes version
//! touches few files. An error may carry a `kube::Error` as its source anywhere.

use super::tokens::{Token, find};
use super::tree::{Finding, Tree, is_test_file};

/// Crates that may use them in every file.
const CRATES: &[&str] = &["api/", "apiserver/", "demo/", "manifests/", "tests/", "fuzz/"];

/// Names of files or folders that may use them, in every crate.
const NAMES: &[&str] = &["observe", "apply", "publish", "serve", "issue", "link"];

/// Files and folders of the command line whose whole work is talking to clusters.
const CLI: &[&str] = &["cli/src/multicluster", "cli/src/check", "cli/src/clusters", "cli/src/install"];

/// Single files beyond these rules, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("control/src/run.rs", "opens the process's one client, and hands it to observe, publish and issue"),
    ("cli/src/trust/show.rs", "prints what one ConfigMap of a cluster holds: reading it is the whole file"),
];

/// Checks every Rust file.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in tree.rust().filter(|(path, _)| !may_use(path)) {
        let Ok(tokens) = file.tokens() else { continue };
        for at in uses(tokens).into_iter().filter(|at| !tokens[*at].place.test) {
            let mend = "move it to a file named observe, apply, publish, serve, issue or link, and hand plain values on";
            findings.push(Finding::new(path, tokens[at].line, format!("`{}` outside its places", tokens[at].text), mend));
        }
    }
    for (path, _) in EXCEPTIONS.iter().filter(|(path, _)| tree.len() > 100 && !tree.has(path)) {
        findings.push(Finding::new(path, 1, "an exception for a file that is gone", "delete it from xtask/src/tidy/places.rs"));
    }
    findings
}

fn may_use(path: &str) -> bool {
    let stems = path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
    CRATES.iter().any(|folder| path.starts_with(folder))
        || CLI.iter().any(|start| path.strip_prefix(start).is_some_and(|rest| rest.starts_with(['/', '.'])))
        || EXCEPTIONS.iter().any(|(exception, _)| *exception == path)
        || is_test_file(path)
        || stems.into_iter().any(|stem| NAMES.contains(&stem))
}

/// The tokens that name what is kept to its places.
fn uses(tokens: &[Token]) -> Vec<usize> {
    let outermost = |at: &usize| *at == 0 || tokens[*at - 1].text != "::" || *at == 1 || !is_word(&tokens[*at - 2].text);
    let next = |at: usize, by: usize| tokens.get(at + by).map_or("", |token| token.text.as_str());
    let kube = find(tokens, "kube ::").filter(|at| !matches!(next(*at, 2), "Error" | "error")).filter(outermost);
    let openapi = find(tokens, "k8s_openapi ::").filter(outermost);
    let proto = find(tokens, "mesh_api :: proto").filter(outermost);
    let grouped = find(tokens, "mesh_api :: {").filter(|at| names_in_group(&tokens[*at + 3..]).any(|name| name == "proto"));
    kube.chain(openapi).chain(proto).chain(grouped).collect()
}

/// The first words of each part of a `use …::{ … }` whose braces have just been opened.
fn names_in_group(tokens: &[Token]) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    let mut first = true;
    let group = tokens.iter().take_while(move |token| {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        depth >= 0
    });
    let mut inside = 0_i32;
    group.filter_map(move |token| {
        let text = token.text.as_str();
        match text {
            "{" => inside += 1,
            "}" => inside -= 1,
            "," if inside == 0 => first = true,
            _ if inside == 0 && first => {
                first = false;
                return Some(text);
            }
            _ => {}
        }
        None
    })
}

fn is_word(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::expect_findings;

    fn check(path: &str, text: &str, expected: &Expect) {
        expect_findings(super::check, &[(path, text)], expected);
    }

    const USES: &str = "//! Head.\nuse kube::Client;\nuse mesh_api::{crd, proto::{A, B}};\n";

    #[test]
    fn a_decision_sees_no_kubernetes_type() {
        check(
            "control/src/build.rs",
            USES,
            &expect![[r#"
                control/src/build.rs:2: `kube` outside its places: move it to a file named observe, apply, publish, serve, issue or link, and hand plain values on
                control/src/build.rs:3: `mesh_api` outside its places: move it to a file named observe, apply, publish, serve, issue or link, and hand plain values on
            "#]],
        );
    }

    #[test]
    fn the_files_that_read_and_write_the_world_may() {
        for path in [
            "control/src/observe.rs",
            "control/src/publish/slices.rs",
            "cli/src/multicluster/plan.rs",
            "cli/src/check.rs",
            "demo/src/node.rs",
        ] {
            check(path, USES, &expect![""]);
        }
    }

    #[test]
    fn an_error_may_carry_its_source_and_a_test_may_use_what_it_likes() {
        check(
            "control/src/error.rs",
            "//! Head.\nstruct E { source: kube::Error }\n#[cfg(test)]\nmod tests { use kube::Client; }\n",
            &expect![""],
        );
    }

    #[test]
    fn a_path_of_ours_that_ends_alike_is_not_meant() {
        check("control/src/build.rs", "//! Head.\nuse crate::kube::x;\nuse mesh_api::{crd, client::proto};\n", &expect![""]);
    }
}
