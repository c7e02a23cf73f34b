//! The root that a cluster's processes see: the cached Debian read-only, and folders of its own. Made in a mount namespace of its own, with
//! which every mount goes.
//!
//! The machine's files are out of sight, so that nothing of the machine's own kubelet, containerd or CNI state can be touched.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_remount, unmount,
};
use rustix::process::pivot_root;

use super::plan::{Cluster, Plan};

/// Makes the root of `cluster` and moves this process into it.
///
/// # Errors
/// When a mount is refused.
pub fn enter(plan: &Plan, cluster: &Cluster) -> anyhow::Result<()> {
    let root = plan.root(cluster);
    for folder in OWN {
        let path = root.join(folder);
        fs::create_dir_all(&path).with_context(|| format!("could not make {}", path.display()))?;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount_bind(&root, &root).context("could not mount the root")?;
    for folder in SHARED {
        let path = root.join(folder);
        fs::create_dir_all(&path)?;
        read_only(&plan.tools.node_root.join(folder), &path)?;
    }
    for (program, path) in [(&plan.tools.kc, KC), (&plan.tools.kubectl, KUBECTL)] {
        let path = root.join(path.trim_start_matches('/'));
        fs::write(&path, "")?;
        read_only(program, &path)?;
    }
    mount("proc", root.join("proc"), "proc", MountFlags::empty(), None).context("could not mount /proc")?;
    mount("sysfs", root.join("sys"), "sysfs", MountFlags::empty(), None).context("could not mount /sys")?;
    mount_bind_recursive("/sys/fs/cgroup", root.join("sys/fs/cgroup")).context("could not mount /sys/fs/cgroup")?;
    mount_bind_recursive("/dev", root.join("dev")).context("could not mount /dev")?;
    for (setting, value) in SETTINGS {
        let file = root.join("etc/settings").join(setting.replace('/', "."));
        fs::write(&file, value)?;
        let path = root.join("proc/sys").join(setting);
        mount_bind(&file, &path).with_context(|| format!("could not mount over {setting}"))?;
    }
    fs::write(root.join("etc/resolv.conf"), "")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("etc/machine-id"), format!("{:032x}\n", u128::from(cluster.number)))?;

    std::env::set_current_dir(&root)?;
    pivot_root(".", ".").context("could not change the root")?;
    unmount(".", UnmountFlags::DETACH).context("could not leave the machine's root")?;
    std::env::set_current_dir("/")?;
    // Pods that share mounts with the node ask for it.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    Ok(())
}

fn read_only(from: &Path, to: &Path) -> anyhow::Result<()> {
    mount_bind(from, to).with_context(|| format!("could not mount {}", from.display()))?;
    mount_remount(to, MountFlags::BIND | MountFlags::RDONLY, c"").with_context(|| format!("could not protect {}", from.display()))
}

/// The Kubernetes components, in the root.
pub const KC: &str = "/opt/kc";
/// kubectl, in the root.
pub const KUBECTL: &str = "/opt/kubectl";

/// What is the same for every node.
const SHARED: &[&str] = &["bin", "lib", "lib64", "sbin", "usr"];

/// What each node has for itself.
const OWN: &[&str] = &[
    "dev",
    "etc/cni/net.d",
    "etc/kubernetes",
    "etc/settings",
    "opt",
    "proc",
    "root",
    "run/netns",
    "sys",
    "tmp",
    "var/lib/containerd",
    "var/lib/kubelet",
    "var/log/pods",
    "var/run",
];

/// Settings of the whole machine as kubelet wants them, laid over the real ones: it then leaves those alone.
const SETTINGS: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1\n"),
    ("vm/panic_on_oom", "0\n"),
    ("kernel/panic", "10\n"),
    ("kernel/panic_on_oops", "1\n"),
    ("kernel/keys/root_maxkeys", "1000000\n"),
    ("kernel/keys/root_maxbytes", "25000000\n"),
];
