//! Which way dependencies point (STYLE.md): a crate uses lower rows only, the pure rows have nothing that acts, and every version is
//! chosen once, in the workspace. Read from the manifests alone, so that it holds for what nobody has compiled yet.

use toml::{Table, Value};

use super::tree::{Finding, Tree, line_where};

/// Each folder and its row, as STYLE.md draws them.
const ROWS: &[(&str, u8)] = &[
    ("names", 0),
    ("trust", 1),
    ("topology", 1),
    ("failover", 2),
    ("runtime", 3),
    ("api", 4),
    ("transport", 4),
    ("proxy", 5),
    ("gateway", 5),
    ("dns", 5),
    ("control", 5),
    ("mirror-controller", 5),
    ("apiserver", 5),
    ("demo", 5),
    ("manifests", 5),
    ("cli", 6),
    ("tests", 6),
    ("tests/kubernetes", 6),
    ("xtask", 6),
    ("bench", 6),
];

/// The last row that decides and never acts.
const PURE: u8 = 2;

/// What the pure rows may not have: whatever brings a runtime, a socket, a Kubernetes client or chance. A trailing `-` means every
/// crate whose name starts so. (`trust` makes keys through `rcgen`; that is its one exception and no crate of this list.)
const IMPURE: &[&str] =
    &["tokio", "tokio-", "kube", "k8s-openapi", "hyper", "hyper-", "socket2", "rand", "axum", "tonic", "mio", "getrandom"];

/// What a pure crate's clippy.toml says, since it replaces the root's: the root's own settings, and the calls that it forbids.
const PURE_CLIPPY: &[&str] = &["too-many-lines-threshold = 60", "std::time::Instant::now", "std::time::SystemTime::now", "std::env::var"];

/// Checks every crate's manifest, and the clippy.toml of the pure ones.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in tree.all().filter(|(path, _)| path.ends_with("/Cargo.toml") && !path.starts_with("fuzz/")) {
        let folder = path.trim_end_matches("/Cargo.toml");
        let Ok(manifest) = file.text.parse::<Table>() else {
            findings.push(Finding::new(path, 1, "does not parse as TOML", "run `cargo metadata` for the reason"));
            continue;
        };
        let Some(row) = row_of(folder) else {
            findings.push(Finding::new(
                path,
                1,
                format!("folder `{folder}` has no row"),
                "give it one in STYLE.md and in xtask/src/tidy/manifests.rs",
            ));
            continue;
        };
        let own = Own { path, folder, row, text: &file.text };
        findings.extend(own.lints(&manifest));
        findings.extend(dependencies(&manifest).iter().flat_map(|dependency| own.dependency(dependency)));
        if row <= PURE {
            findings.extend(own.clippy(tree));
        }
    }
    findings
}

/// One line of a manifest's dependencies.
struct Dependency<'a> {
    name: &'a str,
    value: &'a Value,
    dev: bool,
}

/// The crate whose manifest is being checked.
struct Own<'a> {
    path: &'a str,
    folder: &'a str,
    row: u8,
    text: &'a str,
}

impl Own<'_> {
    fn dependency(&self, dependency: &Dependency<'_>) -> Vec<Finding> {
        let name = dependency.name;
        let mut findings = Vec::new();
        let mut say = |what: String, mend: &str| findings.push(Finding::new(self.path, self.line(name), what, mend));
        if dependency.value.get("workspace").and_then(Value::as_bool) != Some(true) {
            say(format!("`{name}` has a version of its own"), "name it in [workspace.dependencies] and write `workspace = true` here");
        }
        if self.row <= PURE && IMPURE.iter().any(|impure| if impure.ends_with('-') { name.starts_with(impure) } else { name == *impure }) {
            say(
                format!("row {} is pure and uses `{name}`", self.row),
                "take what it gives as an argument, or move the code to a row that acts",
            );
        }
        let Some(folder) = folder_of(name) else { return findings };
        match row_of(folder) {
            Some(lower) if lower < self.row => {}
            Some(row) => say(
                format!("row {} uses `{name}` of row {row}", self.row),
                "a crate uses lower rows only: move what both need down, or hand it in as an argument",
            ),
            None => say(format!("`{name}` has no row"), "give it one in STYLE.md and in xtask/src/tidy/manifests.rs"),
        }
        if self.folder == "apiserver" && folder != "runtime" && !dependency.dev {
            say(format!("the API server uses `{name}`"), "it knows Kubernetes and not the mesh: hand it what it needs as plain objects");
        }
        if folder == "apiserver" && !matches!(self.folder, "cli" | "tests") {
            say(format!("`{}` starts the API server", self.folder), "only the demo, through the list that `cli` gives it, and `tests` do");
        }
        findings
    }

    fn lints(&self, manifest: &Table) -> Option<Finding> {
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool) == Some(true);
        (!inherits).then(|| Finding::new(self.path, 1, "the workspace's lints are not inherited", "add `[lints]` with `workspace = true`"))
    }

    fn clippy(&self, tree: &Tree) -> Vec<Finding> {
        let path = format!("{}/clippy.toml", self.folder);
        let text = tree.text(&path).unwrap_or_default();
        let missing = PURE_CLIPPY.iter().filter(|setting| !text.contains(**setting));
        missing
            .map(|setting| Finding::new(&path, 1, format!("a pure crate's clippy.toml lacks `{setting}`"), "copy names/clippy.toml"))
            .collect()
    }

    fn line(&self, name: &str) -> usize {
        line_where(self.text, |line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '='])))
    }
}

fn row_of(folder: &str) -> Option<u8> {
    ROWS.iter().find(|(known, _)| *known == folder).map(|(_, row)| *row)
}

/// The folder of one of our packages, or nothing for other people's.
fn folder_of(package: &str) -> Option<&str> {
    match package {
        "mesh" => Some("cli"),
        "xtask" => Some("xtask"),
        "mesh-kubernetes-tests" => Some("tests/kubernetes"),
        other => other.strip_prefix("mesh-"),
    }
}

/// Every dependency of every section, those of `[target.…]` included. A renamed one counts under its real name.
fn dependencies(manifest: &Table) -> Vec<Dependency<'_>> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values).filter_map(Value::as_table);
    let mut found = Vec::new();
    for table in std::iter::once(manifest).chain(targets) {
        for (section, dev) in [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)] {
            for (name, value) in table.get(section).and_then(Value::as_table).into_iter().flatten() {
                let name = value.get("package").and_then(Value::as_str).unwrap_or(name);
                found.push(Dependency { name, value, dev });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::expect_findings;

    fn check(path: &str, dependencies: &str, expected: &Expect) {
        let manifest = format!("[lints]\nworkspace = true\n[dependencies]\n{dependencies}\n");
        let clippy = super::PURE_CLIPPY.join("\n");
        let folder = path.trim_end_matches("/Cargo.toml");
        expect_findings(super::check, &[(path, &manifest), (&format!("{folder}/clippy.toml"), &clippy)], expected);
    }

    #[test]
    fn a_crate_may_use_what_lies_lower() {
        check("proxy/Cargo.toml", "mesh-transport.workspace = true\nmesh-names.workspace = true", &expect![""]);
        check("transport/Cargo.toml", "mesh-topology.workspace = true\nmesh-trust.workspace = true", &expect![""]);
    }

    #[test]
    fn a_crate_may_not_use_its_own_row_or_a_higher_one() {
        check(
            "proxy/Cargo.toml",
            "mesh-gateway.workspace = true",
            &expect![[r#"
                proxy/Cargo.toml:4: row 5 uses `mesh-gateway` of row 5: a crate uses lower rows only: move what both need down, or hand it in as an argument
            "#]],
        );
        check(
            "trust/Cargo.toml",
            "mesh-topology.workspace = true",
            &expect![[r#"
                trust/Cargo.toml:4: row 1 uses `mesh-topology` of row 1: a crate uses lower rows only: move what both need down, or hand it in as an argument
            "#]],
        );
    }

    #[test]
    fn the_pure_rows_have_nothing_that_acts() {
        check(
            "topology/Cargo.toml",
            "tokio-util.workspace = true\nrandom-looking.workspace = true",
            &expect![[r#"
                topology/Cargo.toml:4: row 1 is pure and uses `tokio-util`: take what it gives as an argument, or move the code to a row that acts
            "#]],
        );
    }

    #[test]
    fn the_api_server_knows_no_mesh_and_only_the_demo_and_tests_start_it() {
        check(
            "apiserver/Cargo.toml",
            "mesh-runtime.workspace = true\nmesh-api.workspace = true",
            &expect![[r#"
                apiserver/Cargo.toml:5: the API server uses `mesh-api`: it knows Kubernetes and not the mesh: hand it what it needs as plain objects
            "#]],
        );
        check("cli/Cargo.toml", "mesh-apiserver = { workspace = true, optional = true }", &expect![""]);
        check(
            "bench/Cargo.toml",
            "mesh-apiserver.workspace = true",
            &expect![[r#"
                bench/Cargo.toml:4: `bench` starts the API server: only the demo, through the list that `cli` gives it, and `tests` do
            "#]],
        );
    }

    #[test]
    fn a_version_is_chosen_once_in_the_workspace() {
        check(
            "dns/Cargo.toml",
            "bytes = \"1\"",
            &expect![[r#"
                dns/Cargo.toml:4: `bytes` has a version of its own: name it in [workspace.dependencies] and write `workspace = true` here
            "#]],
        );
    }

    #[test]
    fn a_new_folder_needs_a_row_and_every_crate_the_lints() {
        expect_findings(
            super::check,
            &[("helpers/Cargo.toml", ""), ("dns/Cargo.toml", "")],
            &expect![[r#"
                dns/Cargo.toml:1: the workspace's lints are not inherited: add `[lints]` with `workspace = true`
                helpers/Cargo.toml:1: folder `helpers` has no row: give it one in STYLE.md and in xtask/src/tidy/manifests.rs
            "#]],
        );
    }

    #[test]
    fn a_pure_crate_forbids_the_clock_and_the_environment() {
        expect_findings(
            super::check,
            &[
                ("names/Cargo.toml", "[lints]\nworkspace = true"),
                ("names/clippy.toml", "too-many-lines-threshold = 60\nstd::time::Instant::now std::env::var"),
            ],
            &expect![[r#"
                names/clippy.toml:1: a pure crate's clippy.toml lacks `std::time::SystemTime::now`: copy names/clippy.toml
            "#]],
        );
    }
}
