//! `cargo xtask images`: container images without Docker. Each is an archive that any container engine imports ([`archive`]), with programs
//! linked statically, so that the image of a program of the mesh holds one file and no shell.
//!
//! One build makes all programs, with the features that `mesh` has, so that other people's crates are built once for tests and images. Only
//! the programs' own thin `main`s are special: a wrapper around rustc links them statically ([`WRAPPER`]).

mod archive;
mod debian;
mod plan;
mod tar;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::tools::{self, Tool};
use crate::{ci, shell};
use plan::{Image, Purpose};
use tar::Entries;

/// Which images, of what, and where to.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the archives are written, one `NAME.tar` per image [default: images/ in the target folder].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The build profile: tests take `dev`, which is built anyway.
    #[arg(long, value_name = "PROFILE", default_value = "dev", conflicts_with = "release")]
    profile: String,
    /// As users get them: the profile `dist` (optimised, stripped).
    #[arg(long)]
    release: bool,
    /// The tag, beside `latest`.
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Also the images that only test clusters use.
    #[arg(long)]
    tests: bool,
    /// Only this one (may be given several times), such as `proxy`.
    #[arg(long, value_name = "NAME", value_parser = plan::named)]
    only: Vec<&'static Image>,
}

/// Builds and writes the chosen images, and prints the archives' paths.
pub(crate) fn run(options: &Options) -> Result<()> {
    let out = match &options.out {
        Some(out) => std::path::absolute(out)?,
        None => ci::target()?.join("images"),
    };
    let profile = if options.release { "dist" } else { &options.profile };
    let tags = [options.tag.clone(), "latest".to_owned()];
    let wanted = |image: &&Image| options.tests || image.purpose == Purpose::Product;
    let chosen = if options.only.is_empty() { plan::IMAGES.iter().filter(wanted).collect() } else { options.only.clone() };
    for path in write(&chosen, profile, &tags, &out)? {
        println!("{}", path.display());
    }
    Ok(())
}

/// Every image, as tests use them, in `out`.
pub(crate) fn for_tests(out: &Path) -> Result<()> {
    let tags = [env!("CARGO_PKG_VERSION").to_owned(), "latest".to_owned()];
    write(&plan::IMAGES.iter().collect::<Vec<_>>(), "dev", &tags, out).map(drop)
}

fn write(images: &[&Image], profile: &str, tags: &[String], out: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(out).with_context(|| format!("could not make {}", out.display()))?;
    let root = debian::Root::at(tools::bring(&[Tool::NodeRoot])?)?;
    let programs = build(images, profile)?;
    images
        .iter()
        .map(|image| {
            let layer = layer(image, &programs, &root).with_context(|| format!("could not fill {}", image.name))?;
            let path = out.join(format!("{}.tar", image.short_name()));
            // Under its name when it is whole: somebody may be importing the last one.
            let partial = path.with_extension("partial");
            fs::write(&partial, archive::archive(image, &layer, tags)?)?;
            fs::rename(&partial, &path).with_context(|| format!("could not write {}", path.display()))?;
            Ok(path)
        })
        .collect()
}

fn layer(image: &Image, programs: &Path, root: &debian::Root) -> Result<Entries> {
    let mut entries = Entries::default();
    for program in image.programs {
        let built = programs.join(program.binary);
        let content = fs::read(&built).with_context(|| format!("could not read {}", built.display()))?;
        // An image without a loader can't run anything else.
        ensure!(!debian::needs_loader(&content), "{} is not linked statically", built.display());
        entries.file(program.binary, 0o755, content);
    }
    for program in image.debian {
        root.program(program, &mut entries)?;
    }
    for folder in image.folders {
        root.folder(folder, &mut entries)?;
    }
    for (path, to) in image.links {
        entries.link(path, to);
    }
    entries.folder("tmp", 0o1777);
    Ok(entries)
}

/// Builds the programs of `images`, linked statically and without debug information, and answers the folder that they are in.
fn build(images: &[&Image], profile: &str) -> Result<PathBuf> {
    let target = ci::target()?;
    let wrapper = target.join("link-statically");
    fs::create_dir_all(&target)?;
    if fs::read_to_string(&wrapper).ok().as_deref() != Some(WRAPPER) {
        fs::write(&wrapper, WRAPPER)?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    }
    let folder = target.join(if profile == "dev" { "debug" } else { profile });
    if images.iter().all(|image| image.programs.is_empty()) {
        return Ok(folder);
    }
    let mut cargo = shell::cargo();
    cargo.env("CARGO_TARGET_DIR", &target).env("RUSTC_WORKSPACE_WRAPPER", &wrapper);
    // `mesh` for its features alone: what is built with other features is built once more.
    cargo.args(["build", "--quiet", "--locked", "--bins", "--profile", profile, "--package", "mesh"]);
    for program in images.iter().flat_map(|image| image.programs) {
        cargo.args(["--package", program.package]);
    }
    shell::show(&mut cargo)?;
    Ok(folder)
}

/// What cargo calls instead of rustc for the crates of this workspace: the same, but that programs are linked statically. (A build script
/// is a program too, and none of ours.)
const WRAPPER: &str = r#"#!/bin/sh
case " $* " in
    *" --crate-name build_script_"*) ;;
    *" --crate-name ___ "*) ;;
    *" --crate-type bin "*) exec "$@" -C target-feature=+crt-static -C strip=debuginfo ;;
esac
exec "$@"
"#;
