//! Removing a cluster: its processes by cgroup, then namespaces, links, routes, mounts, cgroups and files.
//!
//! Every step may find its work done already and none stops the next; what could not be removed is said at the end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::host_network;
use super::layout::Layout;
use crate::command::words;
use crate::preflight;

/// How long the supervisor may take to stop its processes before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Removes the cluster; with `keep_data` the store, the keys and the administrator's kubeconfig stay.
pub fn remove(layout: &Layout, keep_data: bool) -> Result<()> {
    let mut problems = Vec::new();
    let mut attempt = |what: &str, outcome: Result<()>| {
        if let Err(error) = outcome {
            problems.push(format!("{what}: {error:#}"));
        }
    };
    attempt("stopping the supervisor", stop_supervisor(layout));
    attempt("killing what is left", kill_cgroup(layout));
    attempt("unmounting", unmount_below(&[layout.run(), layout.data()]));
    for line in host_network::plan_removal(layout) {
        // What is not there needs no removal; what stays is found by the check below.
        let _ = words(&line);
    }
    attempt("removing cgroups", remove_cgroups(layout));
    for link in layout.nodes().into_iter().map(|node| node.host_link).chain([layout.bridge()]) {
        attempt("removing links", check_link_is_gone(&link));
    }
    if keep_data {
        for folder in [layout.data().join("nodes"), layout.logs()] {
            attempt("removing node data", remove_folder(&folder));
        }
    } else {
        attempt("removing the data", remove_folder(&layout.data()));
    }
    attempt("removing run files", remove_folder(&layout.run()));
    for parent in [layout.run(), layout.data()] {
        // The folder that clusters share goes with the last of them.
        let _ = parent.parent().map(std::fs::remove_dir);
    }
    unmount_empty_netns_folder();
    if problems.is_empty() {
        return Ok(());
    }
    bail!("the cluster {} is not removed completely:\n  {}", layout.name, problems.join("\n  "))
}

/// Process id of the cluster's supervisor, if it is alive.
pub fn supervisor(layout: &Layout) -> Option<Pid> {
    let text = std::fs::read_to_string(layout.run().join("supervisor.pid")).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?);
    // A pid may have been given to somebody else since: the supervisor lives in the cluster's cgroup.
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    cgroups.contains(&format!("{}/", layout.cgroup())).then_some(pid)
}

fn stop_supervisor(layout: &Layout) -> Result<()> {
    let Some(pid) = supervisor(layout) else {
        return Ok(());
    };
    kill(pid, Signal::SIGTERM).context("cannot signal it")?;
    // Not stopping in time is no failure: the cgroup is killed next.
    wait_until(STOP_TIMEOUT, || supervisor(layout).is_none());
    Ok(())
}

/// Kills every process in the cluster's cgroup, containers and their shims included.
fn kill_cgroup(layout: &Layout) -> Result<()> {
    let folder = in_tree(&preflight::cgroup_v2_mount()?, &layout.cgroup());
    if !folder.exists() {
        return Ok(());
    }
    std::fs::write(folder.join("cgroup.kill"), "1")
        .with_context(|| format!("cannot kill {}", folder.display()))?;
    let empty = || {
        std::fs::read_to_string(folder.join("cgroup.events")).is_ok_and(|text| text.contains("populated 0"))
    };
    if !wait_until(KILL_TIMEOUT, empty) {
        bail!("processes in {} survive SIGKILL", folder.display());
    }
    Ok(())
}

/// `ip netns add` mounts `/run/netns` on itself; with the last namespace gone the mount has no use.
fn unmount_empty_netns_folder() {
    let folder = Path::new("/run/netns");
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()) {
        // Fails when nothing is mounted there, which is as good.
        let _ = nix::mount::umount2(folder, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn unmount_below(folders: &[PathBuf]) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut below: Vec<PathBuf> =
        points.filter(|point| folders.iter().any(|it| point.starts_with(it))).collect();
    below.reverse();
    for point in below {
        nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

fn remove_cgroups(layout: &Layout) -> Result<()> {
    let mut trees = preflight::cgroup_v1_mounts()?;
    trees.push(preflight::cgroup_v2_mount()?);
    for tree in trees {
        let folder = in_tree(&tree, &layout.cgroup());
        wait_until(KILL_TIMEOUT, || remove_cgroup_tree(&folder).is_ok());
        remove_cgroup_tree(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        let _ = folder.parent().map(std::fs::remove_dir);
    }
    Ok(())
}

fn remove_cgroup_tree(folder: &Path) -> std::io::Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(folder)
}

fn in_tree(tree: &Path, cgroup: &str) -> PathBuf {
    tree.join(cgroup.trim_start_matches('/'))
}

fn check_link_is_gone(link: &str) -> Result<()> {
    if Path::new("/sys/class/net").join(link).exists() {
        bail!("{link} is still there");
    }
    Ok(())
}

fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn wait_until(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::layout::{Families, NodeLayout, StoreKind};
    use crate::cluster::{containerd, node_namespaces};

    /// What of this cluster is to be seen on the host; others may be at work on it meanwhile.
    fn traces(layout: &Layout) -> Vec<String> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let seen = [
            words("ip -o link show").unwrap(),
            words("ip route show").unwrap(),
            words("ip -6 route show").unwrap(),
            words("ip netns list").unwrap(),
            mounts,
        ];
        let range = layout.cluster_cidrs().remove(0);
        let marks =
            [layout.name.as_str(), &layout.bridge(), "ps7n", range.trim_end_matches("/16"), "fd00:244:7::"];
        let lines = seen.iter().flat_map(|text| text.lines());
        lines.filter(|line| marks.iter().any(|mark| line.contains(mark))).map(str::to_owned).collect()
    }

    fn make(layout: &Layout, node: &NodeLayout) -> Result<()> {
        layout.save()?;
        host_network::create(layout)?;
        node_namespaces::create(node)?;
        containerd::write_config(node)
    }

    #[test]
    fn a_node_is_made_and_removed_without_a_trace() {
        if !nix::unistd::Uid::effective().is_root() || !crate::command::is_on_path("unshare") {
            println!("SKIPPED: making a node needs root and util-linux");
            return;
        }
        let binaries = PathBuf::from("/nonexistent");
        let name = "trace-test".to_owned();
        let layout = Layout {
            name,
            index: 7,
            node_count: 1,
            port: 6443,
            store: StoreKind::Embedded,
            families: if crate::preflight::has_ipv6() { Families::Both } else { Families::V4 },
            spare_count: 0,
            control_flags: Vec::new(),
            binaries,
            kube_proxy: None,
        };
        let node = layout.nodes().remove(0);
        let made = make(&layout, &node);
        let while_up = traces(&layout).len();
        let hostname = made.is_ok().then(|| {
            let mut argv = node_namespaces::enter(&node);
            argv.push("hostname".to_owned());
            words(&argv.join(" ")).unwrap_or_default()
        });
        remove(&layout, false).unwrap();
        made.unwrap();
        assert_eq!(hostname.as_deref(), Some("node-1"));
        assert!(while_up >= 4, "only {while_up} traces: this test does not see what it is to find gone");
        assert_eq!(traces(&layout), Vec::<String>::new());
        assert!(!layout.run().exists() && !layout.data().exists());
    }
}
