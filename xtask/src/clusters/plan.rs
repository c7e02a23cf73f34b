//! What `cargo xtask clusters` calls. Pure.

use std::ffi::OsString;
use std::path::PathBuf;

/// A command of the program `clusters`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) arguments: Vec<OsString>,
}

pub(crate) fn up(flat: bool, archives: &[PathBuf]) -> Call {
    let images = archives.iter().flat_map(|archive| [OsString::from("--image"), archive.into()]);
    Call { name: "up", arguments: flat.then(|| "--flat".into()).into_iter().chain(images).collect() }
}

pub(crate) fn load(archives: &[PathBuf]) -> Call {
    // The clusters' program has a working folder of its own.
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).into();
    Call { name: "load", arguments: archives.iter().map(absolute).collect() }
}

pub(crate) fn kubeconfig() -> Call {
    Call { name: "kubeconfig", arguments: Vec::new() }
}

pub(crate) fn down() -> Call {
    Call { name: "down", arguments: Vec::new() }
}

/// What `mesh` is called with to install in each cluster: under the context's name, with gateways behind a port of the node, since there is
/// no load balancer. What follows the dashes comes last.
pub(crate) fn install(kubeconfig: &str, more: &[String]) -> Vec<Vec<String>> {
    let one = |(cluster, number): (&&str, u8)| {
        let (pods, services) = (format!("10.{}.0.0/24", 10 + number), format!("10.{}.0.0/16", 110 + number));
        let where_to = ["install", "--apply", "--wait", "--kubeconfig", kubeconfig, "--context", cluster, "--cluster", cluster];
        words(&[&where_to[..], &["--gateway-type", "NodePort", "--range", &pods, "--range", &services]].concat(), more)
    };
    CLUSTERS.iter().zip(1..).map(one).collect()
}

/// What `mesh` is called with to link them, both ways.
pub(crate) fn link(kubeconfig: &str, more: &[String]) -> Vec<Vec<String>> {
    let [east, west] = CLUSTERS;
    vec![words(&["multicluster", "link", "--mutual", "--kubeconfig", kubeconfig, "--context", west, "--to", east], more)]
}

fn words(first: &[&str], more: &[String]) -> Vec<String> {
    first.iter().map(|word| (*word).to_owned()).chain(more.iter().cloned()).collect()
}

const CLUSTERS: &[&str; 2] = &["east", "west"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_dashes_goes_to_each_call_of_mesh() {
        let calls = install("/k", &["--dry-run".to_owned()]);
        assert_eq!(calls.len(), 2);
        assert!(calls.iter().all(|call| call.last().is_some_and(|word| word == "--dry-run")), "{calls:?}");
        assert!(
            calls[0].windows(2).any(|pair| pair == ["--context", "east"]) && calls[1].windows(2).any(|pair| pair == ["--context", "west"])
        );
    }

    #[test]
    fn a_cluster_is_installed_under_its_name_with_its_own_ranges() {
        let calls = install("/k", &[]);
        for (call, name, pods, services) in
            [(&calls[0], "east", "10.11.0.0/24", "10.111.0.0/16"), (&calls[1], "west", "10.12.0.0/24", "10.112.0.0/16")]
        {
            for pair in [["--cluster", name], ["--gateway-type", "NodePort"], ["--range", pods], ["--range", services]] {
                assert!(call.windows(2).any(|words| words == pair), "{pair:?} is not in {call:?}");
            }
        }
    }

    #[test]
    fn one_call_links_both_ways() {
        let expected = ["multicluster", "link", "--mutual", "--kubeconfig", "/k", "--context", "west", "--to", "east", "--force"];
        assert_eq!(link("/k", &["--force".to_owned()]), [expected]);
    }

    #[test]
    fn every_archive_is_an_image_of_its_own() {
        let call = up(true, &["/a.tar".into(), "/b.tar".into()]);
        assert_eq!(call.arguments, ["--flat", "--image", "/a.tar", "--image", "/b.tar"]);
    }
}
