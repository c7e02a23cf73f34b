//! The steps of ci and what each runs. Pure: a step and the environment give a list of commands, which a test can read.

use std::fmt;
use std::path::PathBuf;

/// One step. In this order: first what is quick to fail, then what needs everything built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Step {
    /// Fetch what tests use.
    Tools,
    /// Formatting.
    Fmt,
    /// Lints, warnings denied.
    Clippy,
    /// Documentation, warnings denied.
    Rustdoc,
    /// Every crate by itself.
    Alone,
    /// Every test, the fuzz targets' corpora included.
    Test,
    /// Licences, bans and sources.
    Deny,
    /// Unused dependencies.
    Machete,
    /// Our own rules.
    Tidy,
}

/// What a step is given.
pub(crate) struct Environment {
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// The workspace's packages.
    pub(crate) members: Vec<String>,
    /// Whether `CI` is set.
    pub(crate) in_ci: bool,
    /// `MESH_TOOLS_…`, once the tools are there.
    pub(crate) tools: Vec<(&'static str, String)>,
}

/// What a step does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Brings the tools, for the steps after it.
    Tools,
    /// Runs tidy in this process.
    Tidy,
    /// Writes the container images that tests load into that folder.
    Images { out: PathBuf },
    /// Copies a file of the repository.
    Copy { from: &'static str, to: &'static str },
    /// Runs a program; `None` is cargo.
    Run { program: Option<String>, arguments: Vec<String>, variables: Vec<(&'static str, String)> },
}

/// The steps that `only` and `skip` leave, in their own order whatever the order of the flags.
pub(crate) fn chosen(only: &[Step], skip: &[Step]) -> Vec<Step> {
    let wanted = |step: &Step| (only.is_empty() || only.contains(step)) && !skip.contains(step);
    <Step as clap::ValueEnum>::value_variants().iter().copied().filter(wanted).collect()
}

impl Step {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tools => "tools: what tests use, pinned and cached",
            Self::Fmt => "fmt: formatting",
            Self::Clippy => "clippy: lints, warnings denied",
            Self::Rustdoc => "rustdoc: documentation, warnings denied",
            Self::Alone => "alone: every crate checked by itself",
            Self::Test => "test: every test of the workspace",
            Self::Deny => "deny: bans, licences, sources",
            // With metadata, since a crate's name need not be its package's (rustls-webpki is `webpki`).
            Self::Machete => "machete: unused dependencies",
            Self::Tidy => "tidy: our own rules",
        }
    }

    /// Whether it runs something that `cargo xtask tools` brings.
    pub(crate) fn wants_tools(self) -> bool {
        matches!(self, Self::Test | Self::Deny | Self::Machete)
    }

    /// What it does.
    pub(crate) fn acts(self, environment: &Environment) -> Vec<Act> {
        let cargo = |words: &str| environment.cargo(words, &[]);
        match self {
            Self::Tools => vec![Act::Tools],
            Self::Fmt => vec![cargo("fmt --all --check")],
            Self::Clippy => vec![cargo("clippy --workspace --all-targets --locked -- -D warnings")],
            Self::Rustdoc => vec![environment.cargo("doc --workspace --no-deps --locked", &[("RUSTDOCFLAGS", "-D warnings".to_owned())])],
            // What compiles together may miss a feature alone, which the next user of that crate would find.
            Self::Alone => environment.members.iter().map(|member| cargo(&format!("check --quiet --locked -p {member}"))).collect(),
            Self::Test => {
                let mesh = environment.target.join("debug").join("mesh").display().to_string();
                let images = environment.target.join("images");
                let own = [("MESH_BIN", mesh), ("MESH_IMAGES", images.display().to_string())];
                let variables: Vec<_> = environment.tools.iter().cloned().chain(own).collect();
                vec![
                    // First, since the statically linked programs lie where the ordinary ones go, and `mesh` under test is the ordinary one.
                    Act::Images { out: images },
                    cargo("build --locked -p mesh"),
                    environment.cargo("test --workspace --locked", &variables),
                    // A workspace of its own with the product's versions: a lock file there would only drift.
                    Act::Copy { from: "Cargo.lock", to: "fuzz/Cargo.lock" },
                    cargo("test --quiet --manifest-path fuzz/Cargo.toml"),
                ]
            }
            // Advisories are left out: their database is fetched from where CI cannot reach (deny.toml says more).
            Self::Deny => vec![environment.tool("MESH_TOOLS_CARGO_DENY", "cargo-deny", "--locked check bans licenses sources")],
            // With metadata, since a crate's name need not be its package's (rustls-webpki is `webpki`).
            Self::Machete => vec![environment.tool("MESH_TOOLS_CARGO_MACHETE", "cargo-machete", "--with-metadata")],
            Self::Tidy => vec![Act::Tidy],
        }
    }
}

impl Environment {
    fn cargo(&self, words: &str, variables: &[(&'static str, String)]) -> Act {
        Act::Run { program: None, arguments: split(words), variables: self.variables(variables) }
    }

    fn tool(&self, variable: &str, name: &str, words: &str) -> Act {
        let program = self.tools.iter().find(|(known, _)| *known == variable).map_or_else(|| name.to_owned(), |(_, path)| path.clone());
        Act::Run { program: Some(program), arguments: split(words), variables: self.variables(&[]) }
    }

    /// Every command gets the same target folder. A clone that CI throws away gains nothing from incremental files.
    fn variables(&self, more: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
        let mut variables = vec![("CARGO_TARGET_DIR", self.target.display().to_string())];
        if self.in_ci {
            variables.push(("CARGO_INCREMENTAL", "0".to_owned()));
        }
        variables.extend(more.iter().cloned());
        variables
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

fn split(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        let tools = vec![("MESH_TOOLS_DIG", "/cache/dig".to_owned()), ("MESH_TOOLS_CARGO_DENY", "/cache/cargo-deny".to_owned())];
        Environment { target: "/target".into(), members: vec!["mesh-names".to_owned(), "mesh".to_owned()], in_ci: true, tools }
    }

    fn variables(act: &Act) -> Vec<(&'static str, String)> {
        match act {
            Act::Run { variables, .. } => variables.clone(),
            other => panic!("{other:?} runs nothing"),
        }
    }

    #[test]
    fn all_steps_run_in_their_own_order_whatever_the_order_of_the_flags() {
        assert_eq!(chosen(&[], &[]).len(), 9);
        assert_eq!(chosen(&[Step::Tidy, Step::Fmt], &[]), [Step::Fmt, Step::Tidy]);
        assert_eq!(chosen(&[Step::Tidy, Step::Fmt], &[Step::Fmt]), [Step::Tidy]);
        assert_eq!(chosen(&[], &[Step::Tools]).first(), Some(&Step::Fmt));
    }

    #[test]
    fn tests_are_told_where_the_binary_and_the_tools_are() {
        let acts = Step::Test.acts(&environment());
        assert_eq!(acts[0], Act::Images { out: "/target/images".into() });
        let given = variables(&acts[2]);
        assert!(given.contains(&("MESH_IMAGES", "/target/images".to_owned())), "{given:?}");
        assert!(given.contains(&("MESH_BIN", "/target/debug/mesh".to_owned())), "{given:?}");
        assert!(given.contains(&("MESH_TOOLS_DIG", "/cache/dig".to_owned())), "{given:?}");
    }

    #[test]
    fn every_crate_is_checked_alone() {
        assert_eq!(Step::Alone.acts(&environment()).len(), 2);
    }

    #[test]
    fn every_command_shares_one_target_folder_and_ci_builds_without_incremental_files() {
        for step in chosen(&[], &[Step::Tools, Step::Tidy]) {
            for act in step.acts(&environment()).iter().filter(|act| matches!(act, Act::Run { .. })) {
                let given = variables(act);
                assert!(
                    given.contains(&("CARGO_TARGET_DIR", "/target".to_owned())) && given.contains(&("CARGO_INCREMENTAL", "0".to_owned())),
                    "{act:?}"
                );
            }
        }
        let person = Environment { in_ci: false, ..environment() };
        assert!(!variables(&Step::Clippy.acts(&person)[0]).iter().any(|(name, _)| *name == "CARGO_INCREMENTAL"));
    }
}
