//! What the real Helm makes of our chart is what `mesh install` prints, and it refuses what is no value of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends here")]

mod support;

use mesh_manifests::{FailurePolicy, GatewayType, Images, Inbound, Install, Object};
use support::{check, deploy, output, read, tool, wanted};

fn template(sets: &[&str]) -> Result<String, String> {
    let mut helm = tool("MESH_TOOLS_HELM");
    helm.args(["template", "isthmus"]).arg(deploy("helm/isthmus")).args(["--namespace", "isthmus-system"]);
    output(helm.args(sets.iter().flat_map(|set| ["--set", set])))
}

/// Helm makes the namespace itself.
fn in_the_chart(object: &Object) -> bool {
    object.kind() != "Namespace"
}

#[test]
fn helm_renders_what_install_prints() {
    let west = Install::new("west".parse().unwrap());
    check(&read(&template(&["cluster=west"]).unwrap()), &wanted(&west, in_the_chart));

    let other = Install {
        trust_domain: "east.example".parse().unwrap(),
        images: Images { registry: "r.example:5000/mesh".parse().unwrap(), tag: "v1.2-rc.3".parse().unwrap() },
        replicas: "3".parse().unwrap(),
        gateway: GatewayType::NodePort,
        ranges: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/48".parse().unwrap()],
        webhook: FailurePolicy::Ignore,
        allow_unmeshed: true,
        inbound: Inbound::Strict,
        ..Install::new("east".parse().unwrap())
    };
    let sets = [
        "cluster=east",
        "trustDomain=east.example",
        "images.registry=r.example:5000/mesh",
        "images.tag=v1.2-rc.3",
        "replicas=3",
        "gateway.type=NodePort",
        "ranges={10.0.0.0/8,fd00::/48}",
        "webhook.failurePolicy=Ignore",
        "allowUnmeshed=true",
        "inbound=strict",
    ];
    check(&read(&template(&sets).unwrap()), &wanted(&other, in_the_chart));
}

#[test]
fn helm_refuses_what_is_no_value_of_the_chart() {
    for (set, said) in [
        ("clutser=west", "clutser"),
        ("replicas=0", "replicas"),
        ("replicas=two", "replicas"),
        ("gateway.type=ClusterIP", "type"),
        ("inbound=open", "inbound"),
        ("images.tag=a b", "tag"),
        ("cluster=West", "cluster"),
    ] {
        let error = template(&["cluster=west", set]).expect_err(set);
        assert!(error.contains(said), "{set}: {error}");
    }
    assert!(template(&[]).unwrap_err().contains("cluster"), "a cluster has a name");
    let mut elsewhere = tool("MESH_TOOLS_HELM");
    elsewhere.args(["template", "isthmus"]).arg(deploy("helm/isthmus")).args(["--namespace", "default", "--set", "cluster=west"]);
    assert!(output(&mut elsewhere).unwrap_err().contains("--namespace isthmus-system"));
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    let mut helm = tool("MESH_TOOLS_HELM");
    helm.arg("lint").arg(deploy("helm/isthmus")).args(["--strict", "--namespace", "isthmus-system", "--set", "cluster=west"]);
    output(&mut helm).unwrap();
}
