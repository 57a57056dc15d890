//! The cgroup of each pod, below the node's: `<parent>/kubepods[/<class>]/pod<uid>`, in v1 and v2 trees alike.
//!
//! Where controllers are mounted is read from mountinfo, never assumed. A limit that cannot be set is reported and
//! passed over: containers still have their own, set by the runtime.

use std::fs;
use std::path::{Path, PathBuf};

use crate::resources::{PodLimits, Qos};

/// Mounted trees, found once.
#[derive(Debug, Clone, Default)]
pub struct Cgroups {
    trees: Vec<Tree>,
    parent: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tree {
    mount: PathBuf,
    /// v2.
    unified: bool,
    /// Controllers of a v1 tree that we set limits in; the runtime makes pods' cgroups in all the others too.
    controllers: Vec<String>,
}

impl Cgroups {
    /// Reads the mounts of this process. `parent` is the path pods live below.
    pub fn observe(parent: &str) -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self { trees: parse(&table), parent: parent.trim_end_matches('/').to_string() }
    }

    /// Path of a pod's cgroup, as runtimes want it.
    pub fn path(&self, qos: Qos, uid: &str) -> String {
        let class = match qos {
            Qos::Guaranteed => "",
            Qos::Burstable => "/burstable",
            Qos::BestEffort => "/besteffort",
        };
        format!("{}/kubepods{class}/pod{uid}", self.parent)
    }

    /// Makes a pod's cgroup with its limits.
    pub fn ensure(&self, limits: &PodLimits, uid: &str) {
        let path = self.path(limits.qos, uid);
        for tree in self.trees.iter().filter(|t| t.unified || !t.controllers.is_empty()) {
            let dir = tree.mount.join(path.trim_start_matches('/'));
            if let Err(error) = tree.make(&dir) {
                tracing::debug!(path = %dir.display(), %error, "cgroup of the pod is left to the runtime");
                continue;
            }
            for (file, value) in tree.settings(limits) {
                if let Err(error) = fs::write(dir.join(file), &value) {
                    tracing::debug!(path = %dir.display(), file, value, %error, "pod limit not set");
                }
            }
        }
    }

    /// Removes what is left of a pod's cgroups.
    pub fn remove(&self, uid: &str) {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            let path = self.path(qos, uid);
            for tree in &self.trees {
                remove_tree(&tree.mount.join(path.trim_start_matches('/')));
            }
        }
    }
}

fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // Fails while a process lives there; the next pod's removal does not depend on it.
    let _ = fs::remove_dir(dir);
}

impl Tree {
    fn make(&self, dir: &Path) -> std::io::Result<()> {
        fs::create_dir_all(dir)?;
        if self.unified {
            // v2: a controller reaches a child only when every ancestor hands it down.
            let below = dir.strip_prefix(&self.mount).unwrap_or(dir);
            let mut at = self.mount.clone();
            for part in below.components() {
                for controller in ["+cpu", "+memory", "+pids"] {
                    let _ = fs::write(at.join("cgroup.subtree_control"), controller);
                }
                at.push(part);
            }
        }
        Ok(())
    }

    fn settings(&self, limits: &PodLimits) -> Vec<(&'static str, String)> {
        let has = |name: &str| self.controllers.iter().any(|c| c == name);
        let mut out = Vec::new();
        if self.unified {
            // The kernel documents weights 1..10000 with default 100; shares 2..262144 map linearly, as runc does.
            let weight = 1 + (limits.cpu_shares - 2) * 9999 / 262_142;
            out.push(("cpu.weight", weight.to_string()));
            out.extend(limits.cpu_quota_us.map(|q| ("cpu.max", format!("{q} {}", limits.cpu_period_us))));
            out.extend(limits.memory_bytes.map(|m| ("memory.max", m.to_string())));
        }
        if has("cpu") {
            out.push(("cpu.shares", limits.cpu_shares.to_string()));
            if let Some(quota) = limits.cpu_quota_us {
                out.push(("cpu.cfs_period_us", limits.cpu_period_us.to_string()));
                out.push(("cpu.cfs_quota_us", quota.to_string()));
            }
        }
        if has("memory") {
            out.extend(limits.memory_bytes.map(|m| ("memory.limit_in_bytes", m.to_string())));
        }
        out
    }
}

/// All cgroup trees of a mount table.
fn parse(table: &str) -> Vec<Tree> {
    let mut trees: Vec<Tree> = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else {
            continue;
        };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
        if !matches!(kind, "cgroup" | "cgroup2") {
            continue;
        }
        let unified = kind == "cgroup2";
        let ours = options.split(',').filter(|o| !unified && matches!(*o, "cpu" | "memory"));
        // A later mount on the same point hides the earlier one.
        trees.retain(|t| t.mount != mount);
        trees.push(Tree { mount, unified, controllers: ours.map(str::to_string).collect() });
    }
    trees
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_both_kinds_are_found_where_they_are_mounted() {
        let table = "1 0 0:1 / / rw - ext4 /dev/vda rw\n\
            30 1 0:2 / /cg/memory rw,nosuid - cgroup cgroup rw,memory\n\
            31 1 0:3 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            33 1 0:5 / /cg/blkio rw - cgroup cgroup rw,blkio\n\
            32 1 0:4 / /cg/unified rw - cgroup2 none rw\n";
        let mounts: Vec<_> = parse(table).into_iter().map(|t| (t.mount, t.controllers.len())).collect();
        let want = [("/cg/memory", 1), ("/cg/cpu", 1), ("/cg/blkio", 0), ("/cg/unified", 0)]
            .map(|(p, n)| (PathBuf::from(p), n));
        assert_eq!(mounts, want);
    }

    #[test]
    fn classes_have_cgroups_of_their_own_below_the_nodes() {
        let cgroups = Cgroups { trees: vec![], parent: "/penstock/n".into() };
        assert_eq!(cgroups.path(Qos::Burstable, "u"), "/penstock/n/kubepods/burstable/podu");
        assert_eq!(cgroups.path(Qos::Guaranteed, "u"), "/penstock/n/kubepods/podu");
    }
}
