//! Which images there are and what is in each. Data only: a new image, or a program for one, is a line here.

/// One image.
#[derive(Debug)]
pub(crate) struct Image {
    /// As manifests call it, without registry and tag.
    pub(crate) name: &'static str,
    /// Who has a use for it.
    pub(crate) purpose: Purpose,
    /// The programs of this workspace in it, each at `/NAME`.
    pub(crate) programs: &'static [Program],
    /// Programs of the nodes' Debian root, with the libraries that they load.
    pub(crate) debian: &'static [&'static str],
    /// Folders of the Debian root that are taken whole: what programs open by name while they run. `MACHINE` stands for its triplet.
    pub(crate) folders: &'static [&'static str],
    /// Symbolic links: path and target.
    pub(crate) links: &'static [(&'static str, &'static str)],
    /// `uid:gid` that it runs as, unless the pod says otherwise.
    pub(crate) user: &'static str,
    /// What a container of it starts.
    pub(crate) entrypoint: &'static [&'static str],
}

/// Whether an image is part of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What users run.
    Product,
    /// What only clusters made for tests use.
    Tests,
}

/// A program of this workspace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) package: &'static str,
    pub(crate) binary: &'static str,
}

impl Image {
    /// Without the product's name.
    pub(crate) fn short_name(&self) -> &'static str {
        self.name.rsplit('/').next().unwrap_or(self.name)
    }
}

/// The image of that short name.
pub(crate) fn named(name: &str) -> Result<&'static Image, String> {
    let names = || IMAGES.iter().map(Image::short_name).collect::<Vec<_>>().join(", ");
    IMAGES.iter().find(|image| image.short_name() == name).ok_or_else(|| format!("the images are {}", names()))
}

/// An image with one of our programs and nothing else.
const fn single(name: &'static str, programs: &'static [Program], entrypoint: &'static [&'static str]) -> Image {
    Image { name, purpose: Purpose::Product, programs, debian: &[], folders: &[], links: &[], user: NOBODY, entrypoint }
}

/// All of them.
pub(crate) const IMAGES: &[Image] = &[
    single("isthmus/proxy", &[Program { package: "mesh-proxy", binary: "mesh-proxy" }], &["/mesh-proxy"]),
    single("isthmus/gateway", &[Program { package: "mesh-gateway", binary: "mesh-gateway" }], &["/mesh-gateway"]),
    single("isthmus/control", &[Program { package: "mesh-control", binary: "mesh-control" }], &["/mesh-control"]),
    single("isthmus/dns", &[Program { package: "mesh-dns", binary: "mesh-dns" }], &["/mesh-dns"]),
    single(
        "isthmus/mirror-controller",
        &[Program { package: "mesh-mirror-controller", binary: "mesh-mirror-controller" }],
        &["/mesh-mirror-controller"],
    ),
    single("isthmus/shop", &[Program { package: "mesh-demo", binary: "shop" }], &["/shop"]),
    // Sets the redirect rules of a pod, in its network namespace and as root there: nft, or iptables where a kernel has no nft.
    Image {
        name: "isthmus/init",
        purpose: Purpose::Product,
        programs: &[Program { package: "mesh-proxy", binary: "mesh-init" }],
        debian: &["usr/sbin/nft", "usr/sbin/xtables-nft-multi", "usr/sbin/xtables-legacy-multi"],
        folders: &["usr/lib/MACHINE/xtables"],
        links: IPTABLES,
        user: ROOT,
        entrypoint: &["/mesh-init"],
    },
    // What holds a pod's namespaces. kubelet ends it with SIGKILL.
    Image {
        name: "isthmus/pause",
        purpose: Purpose::Tests,
        programs: &[],
        debian: &["bin/busybox"],
        folders: &[],
        links: &[],
        user: NOBODY,
        entrypoint: &["/bin/busybox", "sleep", "2147483647"],
    },
    // A client for tests. dash is its shell: busybox's would take its own nc and nslookup before the real ones.
    Image {
        name: "isthmus/tools",
        purpose: Purpose::Tests,
        programs: &[],
        debian: &[
            "bin/dash",
            "bin/busybox",
            "bin/nc.openbsd",
            "bin/ip",
            "usr/bin/socat",
            "usr/bin/dig",
            "usr/bin/nslookup",
            "usr/bin/tcpdump",
            "usr/sbin/nft",
            "usr/sbin/xtables-nft-multi",
        ],
        folders: &["usr/lib/MACHINE/xtables"],
        links: TOOLS,
        user: ROOT,
        entrypoint: &["/bin/busybox", "sleep", "2147483647"],
    },
];

/// The group and user that nobody else has.
const NOBODY: &str = "65532:65532";
const ROOT: &str = "0:0";

const IPTABLES: &[(&str, &str)] = &[
    ("usr/sbin/iptables", "xtables-nft-multi"),
    ("usr/sbin/iptables-restore", "xtables-nft-multi"),
    ("usr/sbin/ip6tables", "xtables-nft-multi"),
    ("usr/sbin/ip6tables-restore", "xtables-nft-multi"),
    ("usr/sbin/iptables-legacy", "xtables-legacy-multi"),
    ("usr/sbin/iptables-legacy-restore", "xtables-legacy-multi"),
    ("usr/sbin/ip6tables-legacy", "xtables-legacy-multi"),
    ("usr/sbin/ip6tables-legacy-restore", "xtables-legacy-multi"),
];

const TOOLS: &[(&str, &str)] = &[
    ("bin/sh", "dash"),
    ("usr/bin/nc", "../../bin/nc.openbsd"),
    ("usr/sbin/iptables", "xtables-nft-multi"),
    ("bin/cat", "busybox"),
    ("bin/date", "busybox"),
    ("bin/echo", "busybox"),
    ("bin/env", "busybox"),
    ("bin/grep", "busybox"),
    ("bin/head", "busybox"),
    ("bin/hostname", "busybox"),
    ("bin/id", "busybox"),
    ("bin/kill", "busybox"),
    ("bin/ls", "busybox"),
    ("bin/ping", "busybox"),
    ("bin/printf", "busybox"),
    ("bin/ps", "busybox"),
    ("bin/sed", "busybox"),
    ("bin/sleep", "busybox"),
    ("bin/sort", "busybox"),
    ("bin/tail", "busybox"),
    ("bin/timeout", "busybox"),
    ("bin/true", "busybox"),
    ("bin/wget", "busybox"),
    ("bin/xargs", "busybox"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_mesh_is_alone_in_its_image_and_is_not_root() {
        for image in IMAGES.iter().filter(|image| image.debian.is_empty()) {
            assert_eq!(image.programs.len(), 1, "{}", image.name);
            assert_eq!(image.entrypoint, [format!("/{}", image.programs[0].binary)], "{}", image.name);
            assert_eq!((image.user, image.links), (NOBODY, [].as_slice()), "{}", image.name);
        }
        assert_eq!(IMAGES.iter().filter(|image| image.debian.is_empty()).count(), 6);
    }

    #[test]
    fn every_link_leads_to_what_is_in_the_image() {
        for image in IMAGES {
            for (path, target) in image.links {
                let name = target.rsplit('/').next().unwrap_or(target);
                assert!(image.debian.iter().any(|file| file.rsplit('/').next() == Some(name)), "{}: {path} -> {target}", image.name);
            }
        }
    }
}
