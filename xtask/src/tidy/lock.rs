//! One HTTP stack and one TLS provider. A second version of hyper or rustls compiles well and then holds types that do not fit, or a
//! provider nobody installed, so the lock file is checked before anything is built. `ring` stands in the lock file as other crates'
//! switched-off option; whether something builds it, only `cargo tree` tells.

use toml::{Table, Value};

use super::tree::{Finding, Tree, line_where};

/// Crates whose types cross our own boundaries.
const SINGLE: &[&str] = &[
    "hyper",
    "http",
    "h2",
    "http-body",
    "hyper-util",
    "rustls",
    "tokio-rustls",
    "rustls-webpki",
    "prost",
    "tonic",
    "tower",
    "axum",
    "tokio",
    "kube",
    "k8s-openapi",
];

/// Checks Cargo.lock.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text("Cargo.lock") else { return Vec::new() };
    let Ok(lock) = text.parse::<Table>() else {
        return vec![Finding::new("Cargo.lock", 1, "does not parse as TOML", "take it from the last commit and run `cargo check`")];
    };
    let packages = lock.get("package").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let versions = |name: &str| -> Vec<String> {
        let named = packages.iter().filter(|package| package.get("name").and_then(Value::as_str) == Some(name));
        named.filter_map(|package| Some(package.get("version")?.as_str()?.to_owned())).collect()
    };
    let doubled = SINGLE.iter().map(|name| (name, versions(name))).filter(|(_, found)| found.len() > 1);
    doubled
        .map(|(name, found)| {
            let line = line_where(text, |line| line == format!("name = \"{name}\""));
            let mend = format!("see who brings the second with `cargo tree --workspace -i {name}@{}`", found[0]);
            Finding::new("Cargo.lock", line, format!("`{name}` in {} versions ({})", found.len(), found.join(", ")), mend)
        })
        .collect()
}

/// Judges what `cargo tree -i ring` printed: nothing, when nothing builds it.
pub(crate) fn ring(printed: &str) -> Option<Finding> {
    let used = printed.lines().nth(1).map_or("", |line| line.trim_start_matches(['└', '├', '─', ' ']));
    let mend = "aws-lc-rs is the one provider: set `default-features = false` where the feature comes from (`cargo tree --workspace -i ring -e features`)";
    (!printed.trim().is_empty()).then(|| Finding::new("Cargo.lock", 1, format!("`ring` is built, for `{used}`"), mend))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::expect_findings;

    fn check(packages: &[(&str, &str)], expected: &Expect) {
        let package = |(name, version): &(&str, &str)| format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
        let lock: String = packages.iter().map(package).collect();
        expect_findings(super::check, &[("Cargo.lock", &lock)], expected);
    }

    #[test]
    fn a_second_http_stack_is_found() {
        check(&[("hyper", "1.12.0"), ("rand", "0.9.0"), ("rand", "0.10.0")], &expect![""]);
        check(
            &[("hyper", "0.14.0"), ("hyper", "1.12.0")],
            &expect![[r#"
                Cargo.lock:2: `hyper` in 2 versions (0.14.0, 1.12.0): see who brings the second with `cargo tree --workspace -i hyper@0.14.0`
            "#]],
        );
    }

    #[test]
    fn a_second_tls_provider_is_found() {
        assert_eq!(super::ring(""), None);
        let found = super::ring("ring v0.17.14\n└── rustls v0.23.46\n").map(|finding| finding.to_string()).unwrap_or_default();
        assert!(found.contains("`ring` is built, for `rustls v0.23.46`"), "{found}");
    }
}
