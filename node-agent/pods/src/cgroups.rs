//! The cgroup of each pod, below the node's: `<parent>/kubepods[/<class>]/pod<uid>`, in v1 and v2 trees alike; and those of
//! the classes.
//!
//! Where controllers are mounted is read from mountinfo, never assumed. A limit that cannot be set is reported and
//! passed over: containers still have their own, set by the runtime.

use std::fs;
use std::path::{Path, PathBuf};

use crate::in_force::{Bound, CpuShare, InForce, weight};
use crate::resources::{CPU_PERIOD_US, Limits, Qos};

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

/// A limit that the kernel did not take.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {value} to {}", path.display())]
pub struct CgroupError {
    path: PathBuf,
    value: String,
    source: std::io::Error,
}

impl Cgroups {
    /// Reads the mounts of this process. `parent` is the path pods live below.
    pub fn observe(parent: &str) -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self { trees: parse(&table), parent: parent.trim_end_matches('/').to_string() }
    }

    /// Path of a pod's cgroup, as runtimes want it.
    pub fn path(&self, qos: Qos, uid: &str) -> String {
        format!("{}/pod{uid}", self.class_path(qos))
    }

    /// Path of the cgroup that holds a class's pods; that of guaranteed ones holds the other classes too.
    fn class_path(&self, qos: Qos) -> String {
        let class = match qos {
            Qos::Guaranteed => "",
            Qos::Burstable => "/burstable",
            Qos::BestEffort => "/besteffort",
        };
        format!("{}/kubepods{class}", self.parent)
    }

    /// Makes the cgroup of a class and says how much it weighs when processors are short.
    ///
    /// # Errors
    /// The first weight that the kernel did not take; the other trees' are set all the same.
    pub fn weigh(&self, qos: Qos, shares: i64) -> Result<(), CgroupError> {
        let path = self.class_path(qos);
        let mut first = Ok(());
        for (tree, dir) in self.dirs(&path) {
            if let Err(error) = tree.make(&dir) {
                tracing::debug!(path = %dir.display(), %error, "cgroup of a class is left to the runtime");
            }
            first = first.and(write_all(&dir, tree.cpu_share(shares)));
        }
        first
    }

    /// Makes a pod's cgroup with its limits; what cannot be set is logged.
    pub fn ensure(&self, qos: Qos, limits: &Limits, uid: &str) {
        let path = self.path(qos, uid);
        for (tree, dir) in self.dirs(&path) {
            if let Err(error) = tree.make(&dir) {
                tracing::debug!(path = %dir.display(), %error, "cgroup of the pod is left to the runtime");
            }
        }
        if let Err(error) = self.set(qos, limits, uid) {
            tracing::debug!(%error, "pod limit not set");
        }
    }

    /// Sets the limits of a pod whose cgroup is there.
    ///
    /// # Errors
    /// The first limit that the kernel did not take; the others are set all the same.
    pub fn set(&self, qos: Qos, limits: &Limits, uid: &str) -> Result<(), CgroupError> {
        let path = self.path(qos, uid);
        let mut first = Ok(());
        for (tree, dir) in self.dirs(&path) {
            first = first.and(write_all(&dir, tree.settings(limits)));
        }
        first
    }

    /// What the kernel holds the pod to, or the container of this id in it.
    pub fn read(&self, qos: Qos, uid: &str, container: Option<&str>) -> InForce {
        let pod = self.path(qos, uid);
        let path = container.map_or(pod.clone(), |id| format!("{pod}/{id}"));
        let mut seen = InForce::default();
        for (tree, dir) in self.dirs(&path) {
            let here = tree.read(&dir);
            seen = InForce {
                cpu: seen.cpu.or(here.cpu),
                cpu_quota_us: seen.cpu_quota_us.or(here.cpu_quota_us),
                memory: seen.memory.or(here.memory),
                memory_used: seen.memory_used.or(here.memory_used),
            };
        }
        seen
    }

    /// The processes of the pod.
    pub fn processes(&self, qos: Qos, uid: &str) -> Vec<u32> {
        let path = self.path(qos, uid);
        // Every tree that has the pod has all of them.
        let trees = self.dirs(&path).map(|(_, dir)| processes_in(&dir));
        trees.max_by_key(Vec::len).unwrap_or_default()
    }

    /// The trees that can hold limits, each with its directory of this path.
    fn dirs<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a Tree, PathBuf)> {
        let trees = self.trees.iter().filter(|t| t.unified || !t.controllers.is_empty());
        trees.map(move |tree| (tree, tree.mount.join(path.trim_start_matches('/'))))
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

/// Writes to the files of a cgroup that are there; all of them, whichever fails first.
fn write_all(
    dir: &Path,
    settings: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<(), CgroupError> {
    let mut first = Ok(());
    for (file, value) in settings {
        let path = dir.join(file);
        // Absent: this tree does not have the controller here.
        if path.exists()
            && let Err(source) = fs::write(&path, &value)
        {
            first = first.and(Err(CgroupError { path, value, source }));
        }
    }
    first
}

fn processes_in(dir: &Path) -> Vec<u32> {
    let here = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    // A process of another PID namespace than ours is shown as 0.
    let mut all: Vec<u32> =
        here.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(processes_in(&entry.path()));
        }
    }
    all
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

    fn settings(&self, limits: &Limits) -> Vec<(&'static str, String)> {
        let mut out: Vec<_> = self.cpu_share(limits.cpu_shares).into_iter().collect();
        let or = |value: Option<i64>, none: &str| value.map_or(none.to_string(), |v| v.to_string());
        if self.unified {
            out.push(("cpu.max", format!("{} {CPU_PERIOD_US}", or(limits.cpu_quota_us, "max"))));
            out.push(("memory.max", or(limits.memory_bytes, "max")));
        }
        if self.has("cpu") {
            out.push(("cpu.cfs_period_us", CPU_PERIOD_US.to_string()));
            out.push(("cpu.cfs_quota_us", or(limits.cpu_quota_us, "-1")));
        }
        if self.has("memory") {
            out.push(("memory.limit_in_bytes", or(limits.memory_bytes, "-1")));
        }
        out
    }

    /// The file that says how much a cgroup weighs, and what it says for so many shares.
    fn cpu_share(&self, shares: i64) -> Option<(&'static str, String)> {
        if self.unified {
            return Some(("cpu.weight", weight(shares).to_string()));
        }
        self.has("cpu").then(|| ("cpu.shares", shares.to_string()))
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }

    fn read(&self, dir: &Path) -> InForce {
        let text = |file: &str| fs::read_to_string(dir.join(file)).ok();
        let number = |file: &str| text(file)?.trim().parse::<i64>().ok();
        let used = |usage: Option<i64>, cache: &str| {
            let stat = text("memory.stat")?;
            let cache = stat.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse::<i64>().ok());
            Some((usage? - cache.unwrap_or(0)).max(0))
        };
        let mut seen = InForce::default();
        if self.unified {
            seen.cpu = number("cpu.weight").map(CpuShare::Weight);
            seen.cpu_quota_us = text("cpu.max").and_then(|line| parse_cpu_max(&line));
            seen.memory = text("memory.max").and_then(|line| parse_bound(&line));
            seen.memory_used = used(number("memory.current"), "inactive_file ");
        }
        if self.has("cpu") {
            seen.cpu = number("cpu.shares").map(CpuShare::Shares);
            seen.cpu_quota_us = quota(number("cpu.cfs_quota_us"), number("cpu.cfs_period_us"));
        }
        if self.has("memory") {
            seen.memory = text("memory.limit_in_bytes").and_then(|line| parse_bound(&line));
            seen.memory_used = used(number("memory.usage_in_bytes"), "total_inactive_file ");
        }
        seen
    }
}

/// A quota as µs each [`CPU_PERIOD_US`], whatever the period is.
fn quota(quota_us: Option<i64>, period_us: Option<i64>) -> Option<Bound> {
    match (quota_us?, period_us.filter(|p| *p > 0)?) {
        (quota, _) if quota < 0 => Some(Bound::Unlimited),
        (quota, period) => quota.checked_mul(CPU_PERIOD_US).map(|scaled| Bound::At(scaled / period)),
    }
}

fn parse_cpu_max(line: &str) -> Option<Bound> {
    let (quota_us, period_us) = line.trim().split_once(' ')?;
    match quota_us {
        "max" => Some(Bound::Unlimited),
        number => quota(number.parse().ok(), period_us.parse().ok()),
    }
}

/// `max` in v2; in v1 the largest number of pages there could be.
fn parse_bound(line: &str) -> Option<Bound> {
    match line.trim() {
        "max" => Some(Bound::Unlimited),
        number => {
            let number: u64 = number.parse().ok()?;
            Some(i64::try_from(number).ok().filter(|n| *n < 1 << 62).map_or(Bound::Unlimited, Bound::At))
        }
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

    /// A directory of files such as the kernel would show, gone with the value.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str, files: &[(impl AsRef<Path>, &str)]) -> Self {
            let dir = std::env::temp_dir().join(format!("penstock-cgroups-{name}-{}", std::process::id()));
            for (file, text) in files {
                let path = dir.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(dir)
        }

        fn cgroups(&self, trees: &[(&str, bool, &[&str])]) -> Cgroups {
            let tree = |(mount, unified, controllers): &(&str, bool, &[&str])| Tree {
                mount: self.0.join(mount),
                unified: *unified,
                controllers: controllers.iter().map(ToString::to_string).collect(),
            };
            Cgroups { trees: trees.iter().map(tree).collect(), parent: "/n".into() }
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_processes_of_a_pod_are_those_of_all_its_containers_in_the_tree_that_has_them() {
        let pod = "n/kubepods/burstable/podu";
        let at = |tree: &str, below: &str| format!("{tree}/{pod}/{below}cgroup.procs");
        let files = [
            (at("cpu", ""), ""),
            (at("cpu", "a/"), "7\n9\n"),
            (at("cpu", "b/"), "0\n8\n"),
            (at("v2", ""), ""),
        ];
        let files = Files::new("processes", &files);
        let cgroups = files.cgroups(&[("v2", true, &[]), ("cpu", false, &["cpu"])]);
        let mut found = cgroups.processes(Qos::Burstable, "u");
        found.sort_unstable();
        assert_eq!(found, [7, 8, 9]);
        assert!(cgroups.processes(Qos::Burstable, "another").is_empty());
    }

    #[test]
    fn what_is_in_force_reads_the_same_from_v1_and_from_v2() {
        let pod = "n/kubepods/burstable/podu/c";
        let at = |tree: &str, file: &str| format!("{tree}/{pod}/{file}");
        let v1 = [
            (at("cpu", "cpu.shares"), "512\n"),
            (at("cpu", "cpu.cfs_quota_us"), "25000\n"),
            (at("cpu", "cpu.cfs_period_us"), "50000\n"),
            (at("memory", "memory.limit_in_bytes"), "67108864\n"),
            (at("memory", "memory.usage_in_bytes"), "5000\n"),
            (at("memory", "memory.stat"), "cache 9\ntotal_inactive_file 1000\n"),
        ];
        let files = Files::new("v1", &v1);
        let cgroups =
            files.cgroups(&[("cpu", false, &["cpu"]), ("memory", false, &["memory"]), ("v2", true, &[])]);
        let common = InForce {
            cpu: Some(CpuShare::Shares(512)),
            cpu_quota_us: Some(Bound::At(50_000)),
            memory: Some(Bound::At(64 << 20)),
            memory_used: Some(4000),
        };
        assert_eq!(cgroups.read(Qos::Burstable, "u", Some("c")), common);
        let v2 = [
            (at("v2", "cpu.weight"), "20\n"),
            (at("v2", "cpu.max"), "50000 100000\n"),
            (at("v2", "memory.max"), "67108864\n"),
            (at("v2", "memory.current"), "5000\n"),
            (at("v2", "memory.stat"), "anon 9\ninactive_file 1000\n"),
        ];
        let files = Files::new("v2", &v2);
        let want = InForce { cpu: Some(CpuShare::Weight(20)), ..common };
        assert_eq!(files.cgroups(&[("v2", true, &[])]).read(Qos::Burstable, "u", Some("c")), want);
    }

    #[test]
    fn no_limit_reads_as_none_in_both() {
        for line in ["max\n", "9223372036854771712\n", "18446744073709551615"] {
            assert_eq!(parse_bound(line), Some(Bound::Unlimited), "{line}");
        }
        assert_eq!(parse_cpu_max("max 100000\n"), Some(Bound::Unlimited));
        assert_eq!(quota(Some(-1), Some(100_000)), Some(Bound::Unlimited));
    }

    #[test]
    fn limits_are_written_to_the_files_that_are_there() {
        let pod = "n/kubepods/podu";
        let (max, shares) = (format!("v2/{pod}/memory.max"), format!("cpu/{pod}/cpu.shares"));
        let files = Files::new("set", &[(&max, "1"), (&shares, "1")]);
        let cgroups = files.cgroups(&[("cpu", false, &["cpu"]), ("v2", true, &[])]);
        let limits = Limits { cpu_shares: 512, cpu_quota_us: Some(50_000), memory_bytes: None };
        cgroups.set(Qos::Guaranteed, &limits, "u").unwrap();
        assert_eq!(fs::read_to_string(files.0.join(max)).unwrap(), "max");
        assert_eq!(fs::read_to_string(files.0.join(shares)).unwrap(), "512");
        assert!(!files.0.join(format!("v2/{pod}/cpu.max")).exists());
    }

    #[test]
    fn a_class_is_weighed_in_both_kinds_of_tree_and_keeps_the_rest() {
        let (weight, shares) =
            ("v2/n/kubepods/besteffort/cpu.weight", "cpu/n/kubepods/besteffort/cpu.shares");
        let (burstable, max) = ("v2/n/kubepods/burstable/cpu.weight", "v2/n/kubepods/burstable/cpu.max");
        let files = Files::new(
            "weigh",
            &[(weight, "100"), (shares, "1024"), (burstable, "100"), (max, "max 100000")],
        );
        let cgroups =
            files.cgroups(&[("cpu", false, &["cpu"]), ("memory", false, &["memory"]), ("v2", true, &[])]);
        cgroups.weigh(Qos::BestEffort, 2).unwrap();
        cgroups.weigh(Qos::Burstable, 3584).unwrap();
        let text = |file: &str| fs::read_to_string(files.0.join(file)).unwrap();
        assert_eq!((text(weight), text(shares), text(burstable)), ("1".into(), "2".into(), "137".into()));
        assert_eq!(text(max), "max 100000");
    }

    /// On the machine's own trees: what is written is what the kernel then says. Needs root, and says so.
    #[test]
    fn the_kernel_takes_the_weights_of_classes() {
        let parent = format!("/penstock-test-weights-{}", std::process::id());
        let cgroups = Cgroups::observe(&parent);
        let made = Made(&cgroups, parent.trim_start_matches('/'));
        for (qos, shares) in [(Qos::BestEffort, 2), (Qos::Burstable, 1500)] {
            cgroups.weigh(qos, shares).unwrap();
        }
        let shares = |qos| {
            let path = cgroups.class_path(qos);
            let mut all = cgroups.dirs(&path).filter_map(|(tree, dir)| tree.read(&dir).cpu);
            all.next()
        };
        let Some(best_effort) = shares(Qos::BestEffort) else {
            eprintln!(
                "skipped: no cgroup with the CPU controller could be made, which needs root and such a tree"
            );
            return;
        };
        let weighs = |share: CpuShare, shares: i64| match share {
            CpuShare::Shares(is) => assert_eq!(is, shares),
            CpuShare::Weight(is) => assert_eq!(is, weight(shares)),
        };
        weighs(best_effort, 2);
        weighs(shares(Qos::Burstable).expect("the other class"), 1500);
        // Again, as when a pod comes.
        cgroups.weigh(Qos::Burstable, 3000).unwrap();
        weighs(shares(Qos::Burstable).expect("the other class"), 3000);
        drop(made);
        assert_eq!(shares(Qos::BestEffort), None, "the test removes what it made");
    }

    /// Cgroups of a test, gone with the value.
    struct Made<'a>(&'a Cgroups, &'a str);

    impl Drop for Made<'_> {
        fn drop(&mut self) {
            for tree in &self.0.trees {
                remove_tree(&tree.mount.join(self.1));
            }
        }
    }

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
