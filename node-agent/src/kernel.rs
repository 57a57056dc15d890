//! What the data plane needs of the machine before it can load: a bpf file system and the node's cgroup.
//!
//! It exists because neither is where one expects it on every machine: cgroup v2 may sit beside v1, and no bpf file
//! system may be mounted at all. It must not know the programs.

mod mounts;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// The agent's directory on the bpf file system.
pub const PIN_DIR: &str = "penstock";

/// Mounts a bpf file system at `path` unless one is there.
pub fn ensure_bpffs(path: &Path) -> anyhow::Result<()> {
    let is_bpf = || statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if is_bpf() {
        return Ok(());
    }
    fs::create_dir_all(path)
        .with_context(|| format!("the directory {} for the bpf file system", path.display()))?;
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting a bpf file system at {} (needs root)", path.display()))
}

/// The node's directory in the cgroup v2 tree, made if it is not there.
pub fn ensure_cgroup(parent: &str) -> anyhow::Result<PathBuf> {
    let table = fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
    let root = mounts::cgroup_v2(&table).context(
        "no cgroup v2 hierarchy is mounted, and socket programs attach to one; mount it: \
         mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
    )?;
    let node = root.join(parent.trim_start_matches('/'));
    fs::create_dir_all(&node).with_context(|| format!("making the node's cgroup {}", node.display()))?;
    Ok(node)
}
