//! A node's mount and UTS namespaces, pinned to files so that they outlive every process in them.
//!
//! Each node sees a `/sys` of its own network, a BPF file system of its own, and private folders where Kubernetes
//! software expects the whole machine to be its own (`/var/lib/kubelet` and the like).

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::layout::{NodeLayout, make_private};
use crate::command::words;

/// Folders of the machine that every node has for itself, and where they lie in the node's data folder.
const PRIVATE_FOLDERS: &[(&str, &str)] = &[
    ("kubelet", "/var/lib/kubelet"),
    ("pod-logs", "/var/log/pods"),
    ("container-logs", "/var/log/containers"),
    ("cni-state", "/var/lib/cni"),
    ("cni-conf", "/etc/cni/net.d"),
    ("cni-bin", "/opt/cni/bin"),
];

/// Makes and pins the namespaces of a node whose network namespace is there.
pub fn create(node: &NodeLayout) -> Result<()> {
    let pins = node.run.join("ns");
    make_private(&pins)?;
    // Mount namespaces can only be pinned below a mount that does not propagate.
    words(&format!("mount --bind {0} {0}", pins.display()))?;
    words(&format!("mount --make-private {}", pins.display()))?;
    for kind in ["mnt", "uts"] {
        std::fs::write(node.namespace_file(kind), "")
            .context("cannot make the file a namespace is pinned to")?;
    }
    for (folder, target) in PRIVATE_FOLDERS {
        make_private(&node.data.join(folder))?;
        std::fs::create_dir_all(target).with_context(|| format!("cannot make {target}"))?;
    }
    make_private(&node.data.join("agent"))?;
    pin(node).with_context(|| format!("cannot make the namespaces of {}", node.name))
}

/// Makes the namespaces, on one CPU after another until one does: a mount namespace can only be pinned in one whose
/// number is lower, and Linux hands numbers out in batches, one for each CPU (6.18, `kernel/nstree.c`).
fn pin(node: &NodeLayout) -> Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut failed = None;
    for cpu in 0..cpus {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", node.netns))
            .args(["taskset", "--cpu-list", &cpu.to_string()])
            .arg("unshare")
            .arg(format!("--mount={}", node.namespace_file("mnt").display()))
            .arg(format!("--uts={}", node.namespace_file("uts").display()))
            .args(["--propagation", "private", "sh", "-euc"])
            .arg(set_up_script(node));
        match command.stdin(Stdio::null()).output().context("cannot run nsenter")? {
            output if output.status.success() => return Ok(()),
            output => failed = Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
    bail!("{}", failed.unwrap_or_default())
}

/// What runs inside the new namespaces. A fresh sysfs shows the node's own links but hides the cgroup trees, so these
/// are carried over. Shared propagation comes last: containers need it, and before it mounts would leak out.
fn set_up_script(node: &NodeLayout) -> String {
    let cgroups = node.run.join("cgroups");
    let mut script = format!(
        "mkdir -p {cg}\nmount --rbind /sys/fs/cgroup {cg}\nmount -t sysfs sysfs /sys\n\
         mount --rbind {cg} /sys/fs/cgroup\numount -l {cg}\nrmdir {cg}\n\
         mount -t bpf bpf /sys/fs/bpf\nmkdir -p /run/netns\nmount -t tmpfs -o mode=755 tmpfs /run/netns\n",
        cg = cgroups.display()
    );
    for (folder, target) in PRIVATE_FOLDERS {
        script.push_str(&format!("mount --bind {} {target}\n", node.data.join(folder).display()));
    }
    script.push_str(&format!("echo {} > /proc/sys/kernel/hostname\nmount --make-rshared /\n", node.name));
    script
}

/// The words that start a program inside the node.
pub fn enter(node: &NodeLayout) -> Vec<String> {
    vec![
        "nsenter".to_owned(),
        format!("--net=/run/netns/{}", node.netns),
        format!("--mount={}", node.namespace_file("mnt").display()),
        format!("--uts={}", node.namespace_file("uts").display()),
        "--".to_owned(),
    ]
}
