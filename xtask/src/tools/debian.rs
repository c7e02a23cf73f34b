//! Programs from Debian's packages, unpacked into the cache and run from there: nothing is installed, no root is needed.
//!
//! The pin is a package's name and upstream version up to its first number, not an exact version and hash: Debian's mirrors drop a
//! version the day its security fix appears, so an exact pin would break every fresh machine that day. What protects the bytes is
//! apt, which checks each package's SHA-256 against the signed release. What came is written to `packages.txt`, with version and
//! hash; a version outside the pin is taken with a warning, since these programs only observe.
//!
//! A program runs through the machine's own loader with the unpacked libraries given as an argument. (`LD_LIBRARY_PATH` would reach
//! the programs that `ip netns exec` starts.)

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cache::Cache;
use crate::shell;

/// A program that tests use.
pub(crate) struct Program {
    /// As it is called, and as it sees itself called.
    pub(crate) name: &'static str,
    /// The variable that holds its path.
    pub(crate) variable: &'static str,
    /// The file in its package.
    file: &'static str,
    package: &'static str,
    /// How the upstream version starts.
    version: &'static str,
}

/// All of them.
pub(crate) const PROGRAMS: &[Program] = &[
    Program { name: "dig", variable: "MESH_TOOLS_DIG", file: "usr/bin/dig", package: "bind9-dnsutils", version: "9." },
    Program { name: "tcpdump", variable: "MESH_TOOLS_TCPDUMP", file: "usr/bin/tcpdump", package: "tcpdump", version: "4." },
    Program { name: "ip", variable: "MESH_TOOLS_IP", file: "bin/ip", package: "iproute2", version: "6." },
    Program { name: "nft", variable: "MESH_TOOLS_NFT", file: "usr/sbin/nft", package: "nftables", version: "1." },
    Program { name: "iptables", variable: "MESH_TOOLS_IPTABLES", file: "usr/sbin/xtables-nft-multi", package: "iptables", version: "1." },
    Program { name: "nsenter", variable: "MESH_TOOLS_NSENTER", file: "usr/bin/nsenter", package: "util-linux", version: "2." },
    Program { name: "unshare", variable: "MESH_TOOLS_UNSHARE", file: "usr/bin/unshare", package: "util-linux", version: "2." },
    Program {
        name: "iptables-restore",
        variable: "MESH_TOOLS_IPTABLES_RESTORE",
        file: "usr/sbin/xtables-nft-multi",
        package: "iptables",
        version: "1.",
    },
    Program {
        name: "ip6tables-restore",
        variable: "MESH_TOOLS_IP6TABLES_RESTORE",
        file: "usr/sbin/xtables-nft-multi",
        package: "iptables",
        version: "1.",
    },
    Program { name: "haproxy", variable: "MESH_TOOLS_HAPROXY", file: "usr/sbin/haproxy", package: "haproxy", version: "2." },
];

/// Everything that the unpacked folder depends on, as text.
pub(crate) fn pins() -> String {
    PROGRAMS.iter().map(|program| format!("{} {} {} {}\n", program.name, program.file, program.package, program.version)).collect()
}

/// Fills `stage` with `bin/` (what to call), `root/` (the unpacked packages) and `packages.txt`.
pub(crate) fn fetch(stage: &Path, cache: &Cache) -> Result<()> {
    let pins: Vec<Pin> = PROGRAMS.iter().map(|program| Pin { package: program.package, version: program.version }).collect();
    let root = unpack(&Apt::ready(cache)?, &pins, &[], stage)?;

    let bin = stage.join("bin");
    fs::create_dir(&bin)?;
    for program in PROGRAMS {
        if !root.join(program.file).exists() {
            bail!("Debian's {} has no {} here: mend `file` in xtask/src/tools/debian.rs", program.package, program.file);
        }
        let path = bin.join(program.name);
        fs::write(&path, wrapper(program))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// A package, and how its upstream version starts.
pub(super) struct Pin {
    pub(super) package: &'static str,
    pub(super) version: &'static str,
}

/// Unpacks the packages of `pins`, the libraries that they need, and `more` into `root/` of `stage`, and records what came.
pub(super) fn unpack(apt: &Apt, pins: &[Pin], more: &[&str], stage: &Path) -> Result<PathBuf> {
    let wanted: BTreeSet<String> = pins.iter().map(|pin| pin.package.to_owned()).collect();
    let listed = shell::read(apt.cache().args(DEPENDS).args(&wanted))?;
    let packages: BTreeSet<String> = wanted.into_iter().chain(libraries(&listed)).chain(more.iter().map(|&name| name.to_owned())).collect();

    let debs = stage.join("debs");
    fs::create_dir(&debs)?;
    shell::read(apt.get().arg("download").args(&packages).current_dir(&debs))?;
    let mut files: Vec<_> = fs::read_dir(&debs)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    let root = stage.join("root");
    for deb in &files {
        shell::read(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&root))?;
    }
    let record = shell::read(Command::new("sha256sum").args(files.iter().filter_map(|file| file.file_name())).current_dir(&debs))?;
    record
        .lines()
        .filter_map(|line| outside_its_pin(line.split_whitespace().last()?, pins))
        .for_each(|warning| eprintln!("tools: warning: {warning}"));
    fs::write(stage.join("packages.txt"), record)?;
    fs::remove_dir_all(debs)?;
    Ok(root)
}

const DEPENDS: &[&str] =
    &["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"];

/// The libraries among what `apt-cache depends --recurse` lists. The C library and the loader stay the machine's own, since the two
/// must fit; what packages need only to be installed (debconf, PAM, Perl) is left out.
fn libraries(listed: &str) -> impl Iterator<Item = String> {
    // Lines that are indented say why the others came.
    let packages = listed.lines().filter(|line| line.starts_with("lib") || line.ends_with("-libs") && !line.starts_with(' '));
    let wanted = packages.filter(|name| {
        !["libc6", "libcrypt1", "libgcc-s1"].contains(name)
            && !["libpam", "libnewt", "libdebian"].iter().any(|start| name.starts_with(start))
    });
    wanted.filter(|name| !name.contains("perl") && !name.ends_with("-bin") && !name.ends_with("-common")).map(str::to_owned)
}

/// What to say when `file`, named `package_version_architecture.deb`, is not of the version that is pinned.
fn outside_its_pin(file: &str, pins: &[Pin]) -> Option<String> {
    let (package, rest) = file.split_once('_')?;
    let version = rest.split_once('_')?.0;
    // apt writes an epoch as `1%3a9.18`.
    let upstream = version.split_once("%3a").map_or(version, |(_, upstream)| upstream);
    let pin = pins.iter().find(|pin| pin.package == package)?;
    (!upstream.starts_with(pin.version))
        .then(|| format!("{package} {upstream} came, {}x is pinned: the tests that use it were not run with it", pin.version))
}

fn wrapper(program: &Program) -> String {
    let machine = std::env::consts::ARCH;
    let loader = if machine == "x86_64" { "/lib64/ld-linux-x86-64.so.2".to_owned() } else { format!("/lib/ld-linux-{machine}.so.1") };
    let (name, file) = (program.name, program.file);
    format!(
        "#!/bin/sh\n\
         # {name} from Debian's {package}, with its own libraries and the machine's C library.\n\
         root=$(dirname \"$(readlink -f \"$0\")\")/../root\n\
         libraries=$root/usr/lib/{machine}-linux-gnu:$root/lib/{machine}-linux-gnu\n\
         export XTABLES_LIBDIR=$root/usr/lib/{machine}-linux-gnu/xtables\n\
         exec {loader} --argv0 {name} --library-path \"$libraries\" \"$root/{file}\" \"$@\"\n",
        package = program.package,
    )
}

/// apt with lists and archives of its own, so that neither root nor the machine's state matters.
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    pub(super) fn ready(cache: &Cache) -> Result<Self> {
        let folder = cache.root().join("apt");
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let set = |name: &str, value: &str| ["-o".to_owned(), format!("{name}={value}")];
        let path = |part: &str| folder.join(part).display().to_string();
        let mut options = Vec::new();
        options.extend(set("Dir::State::Lists", &path("lists")));
        options.extend(set("Dir::Cache::Archives", &path("archives")));
        options.extend(set("Dir::Cache::pkgcache", ""));
        options.extend(set("Dir::Cache::srcpkgcache", ""));
        // The unprivileged user that apt downloads as may not write into somebody's home.
        options.extend(set("APT::Sandbox::User", ""));
        let apt = Self { options };
        shell::read(apt.get().args(["update", "--error-on=any"]))
            .context("apt reads Debian's signed package lists before anything else")?;
        Ok(apt)
    }

    fn get(&self) -> Command {
        self.command("apt-get")
    }

    fn cache(&self) -> Command {
        self.command("apt-cache")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).env("LC_ALL", "C");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_come_along_and_what_only_installing_needs_stays_out() {
        let listed = "bind9-dnsutils\n  Depends: libuv1\n  Depends: bind9-libs\nlibuv1\nlibc6\nlibperl5.36\nlibpam0g\nlibtirpc-common\nlibcap2-bin\nlibssl3\nbind9-libs\n<debconf-2.0>\n";
        assert_eq!(libraries(listed).collect::<Vec<_>>(), ["libuv1", "libssl3", "bind9-libs"]);
    }

    #[test]
    fn a_version_outside_its_pin_is_said() {
        let pins = [Pin { package: "bind9-dnsutils", version: "9." }, Pin { package: "haproxy", version: "2." }];
        assert_eq!(outside_its_pin("bind9-dnsutils_1%3a9.18.41-1_amd64.deb", &pins), None);
        assert_eq!(outside_its_pin("libssl3_3.0.17-1_amd64.deb", &pins), None);
        let said = outside_its_pin("haproxy_3.0.11-1_amd64.deb", &pins);
        assert!(said.as_ref().is_some_and(|said| said.contains("haproxy 3.0.11-1 came, 2.x is pinned")), "{said:?}");
    }

    #[test]
    fn a_program_sees_itself_under_its_own_name() {
        let iptables = PROGRAMS.iter().find(|program| program.name == "iptables").unwrap();
        assert!(wrapper(iptables).contains("--argv0 iptables") && wrapper(iptables).contains("$root/usr/sbin/xtables-nft-multi"));
    }
}
