//! `deploy/` is what the code renders, and the real kustomize makes of it what `mesh install` prints.
//!
//! `cargo xtask generate` writes what the first test compares.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends here")]

mod support;

use expect_test::expect_file;
use mesh_manifests::{Install, helm, kustomize};
use support::{check, deploy, output, read, tool, wanted};

#[test]
fn deploy_is_what_the_code_renders() {
    let chart = helm::chart().into_iter().map(|(path, text)| (format!("helm/isthmus/{path}"), text));
    let base = kustomize::base().into_iter().map(|(path, text)| (format!("kustomize/base/{path}"), text));
    let east = kustomize::overlay("../base", &Install::new("east".parse().unwrap()));
    let example = [("kustomize/example/kustomization.yaml".to_owned(), east)];
    for (path, text) in chart.chain(base).chain(example) {
        expect_file![deploy(&path)].assert_eq(&text);
    }
}

#[test]
fn kustomize_renders_what_install_prints() {
    let east = Install::new("east".parse().unwrap());
    let rendered = output(tool("MESH_TOOLS_KUBECTL").arg("kustomize").arg(deploy("kustomize/example"))).unwrap();
    check(&read(&rendered), &wanted(&east, |_| true));
}
