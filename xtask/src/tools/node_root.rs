//! The root of a cluster's node: a small Debian of its own, unpacked into the cache, with containerd, runc and the CNI plugins, what
//! kubelet and kube-proxy call, and the programs of the images that tests use.
//!
//! A whole root rather than wrappers (as [`super::debian`] makes): runc and containerd's shim start themselves again through
//! `/proc/self/exe`, which the loader's trick would break, and nothing of the machine's own files is then seen or written by a cluster.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::cache::Cache;
use super::debian::{self, Apt, Pin};

/// What is in it.
const PINS: &[Pin] = &[
    Pin { package: "containerd", version: "1." },
    Pin { package: "runc", version: "1." },
    Pin { package: "containernetworking-plugins", version: "1." },
    Pin { package: "nftables", version: "1." },
    Pin { package: "iptables", version: "1." },
    Pin { package: "conntrack", version: "1." },
    Pin { package: "iproute2", version: "6." },
    Pin { package: "mount", version: "2." },
    Pin { package: "util-linux", version: "2." },
    Pin { package: "dash", version: "0." },
    Pin { package: "busybox", version: "1." },
    Pin { package: "socat", version: "1." },
    Pin { package: "netcat-openbsd", version: "1." },
    Pin { package: "bind9-dnsutils", version: "9." },
    Pin { package: "tcpdump", version: "4." },
];

/// What Debian takes for granted: the C library and its company, which a root of its own must bring.
const BASE: &[&str] = &["libc6", "libgcc-s1", "libcrypt1", "libpam0g", "zlib1g"];

/// Names that Debian's packages make while they are installed, which these are not.
const LINKS: &[(&str, &str)] = &[
    ("usr/sbin/iptables", "xtables-nft-multi"),
    ("usr/sbin/iptables-save", "xtables-nft-multi"),
    ("usr/sbin/iptables-restore", "xtables-nft-multi"),
    ("usr/sbin/ip6tables", "xtables-nft-multi"),
    ("usr/sbin/ip6tables-save", "xtables-nft-multi"),
    ("usr/sbin/ip6tables-restore", "xtables-nft-multi"),
    ("usr/bin/nc", "../../bin/nc.openbsd"),
    ("bin/sh", "dash"),
];

/// Folders that belong to the node itself, made empty for each.
const OWN: &[&str] = &["etc", "var", "run", "tmp", "dev", "proc", "sys", "root", "home"];

/// What must be there when all is unpacked.
const MUST: &[&str] = &[
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr",
    "usr/sbin/runc",
    "usr/lib/cni/bridge",
    "usr/sbin/nft",
    "usr/sbin/xtables-nft-multi",
    "usr/sbin/conntrack",
    "bin/ip",
    "bin/mount",
    "usr/bin/nsenter",
    "bin/dash",
    "bin/busybox",
    "usr/bin/socat",
    "bin/nc.openbsd",
    "usr/bin/dig",
    "usr/bin/nslookup",
];

/// Everything that the unpacked folder depends on, as text.
pub(super) fn pins() -> String {
    let pins = PINS.iter().map(|pin| format!("{} {}\n", pin.package, pin.version));
    let links = LINKS.iter().map(|(from, to)| format!("{from} {to}\n"));
    pins.chain(BASE.iter().map(|name| format!("{name}\n"))).chain(links).collect()
}

/// Fills `stage` with `root/` and `packages.txt`.
pub(super) fn fetch(stage: &Path, cache: &Cache) -> Result<()> {
    let root = debian::unpack(&Apt::ready(cache)?, PINS, BASE, stage)?;
    for (from, to) in LINKS {
        let path = root.join(from);
        if path.symlink_metadata().is_err() {
            symlink(to, &path).with_context(|| format!("could not link {from} to {to}"))?;
        }
    }
    for folder in OWN {
        let path = root.join(folder);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
    }
    for folder in ["usr/share/doc", "usr/share/man", "usr/share/locale"] {
        let path = root.join(folder);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
    }
    if let Some(missing) = MUST.iter().find(|file| root.join(file).symlink_metadata().is_err()) {
        bail!("Debian's packages have no {missing} here: mend xtask/src/tools/node_root.rs");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_pin_base_or_link_is_another_folder() {
        let text = pins();
        for part in ["containerd 1.", "libc6", "bin/sh dash"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
