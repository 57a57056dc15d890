//! The node's network namespaces by the numbers that programs give them, and work done inside of them.
//!
//! The kernel finds no namespace by its cookie, so candidates are tried: where it was found last, those with a name
//! under /run/netns, those of the processes in the node's cgroup, which are all clients of the socket hooks, and those of
//! all other processes: one may have left the cgroup with its sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys;

const NAMED: &str = "/run/netns";
/// How many folders deep the node's cgroup is searched; runtimes use five.
const DEPTH_MAX: usize = 12;

/// Where namespaces are looked for, and where they were found.
#[derive(Debug)]
pub struct Namespaces {
    cgroup: PathBuf,
    known: BTreeMap<u64, PathBuf>,
}

impl Namespaces {
    /// Those of processes in this directory of the cgroup v2 tree, and the named ones.
    pub fn new(cgroup: &Path) -> Self {
        Self { cgroup: cgroup.to_owned(), known: BTreeMap::new() }
    }

    /// The same for another thread.
    pub fn again(&self) -> Self {
        Self { cgroup: self.cgroup.clone(), known: self.known.clone() }
    }

    /// Does something in each of these namespaces, on a thread of its own. One that is not found is left out: it has no
    /// process any more.
    pub fn visit(&mut self, wanted: BTreeSet<u64>, act: impl FnMut(u64) + Send) {
        let visit = || Visit { wanted, seen: BTreeSet::new(), act }.run(&self.cgroup, &mut self.known);
        // A panic inside is a defect of ours that must not end the agent; what was not done is logged by its absence.
        let outcome = std::thread::scope(|scope| scope.spawn(visit).join());
        if outcome.is_err() {
            tracing::error!("looking through network namespaces panicked");
        }
    }
}

/// One way through the namespaces, on a thread that nothing else runs on.
struct Visit<F> {
    /// Those still to be found.
    wanted: BTreeSet<u64>,
    /// Inode numbers of those entered.
    seen: BTreeSet<u64>,
    act: F,
}

impl<F: FnMut(u64)> Visit<F> {
    fn run(mut self, cgroup: &Path, known: &mut BTreeMap<u64, PathBuf>) {
        if let Ok(own) = sys::netns_cookie()
            && self.wanted.remove(&own)
        {
            (self.act)(own);
        }
        let cached: Vec<PathBuf> = self.wanted.iter().filter_map(|cookie| known.remove(cookie)).collect();
        let named = || fs::read_dir(NAMED).into_iter().flatten().flatten().map(|entry| entry.path());
        self.enter_all(cached.into_iter(), known);
        if !self.wanted.is_empty() {
            self.enter_all(named(), known);
        }
        self.enter_cgroup(cgroup, known, 0);
        if !self.wanted.is_empty() {
            let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
            let numbered = processes.filter(|entry| entry.file_name().as_bytes()[0].is_ascii_digit());
            self.enter_all(numbered.map(|entry| entry.path().join("ns/net")), known);
        }
    }

    fn enter_all(&mut self, paths: impl Iterator<Item = PathBuf>, known: &mut BTreeMap<u64, PathBuf>) {
        for path in paths {
            if self.wanted.is_empty() {
                return;
            }
            self.enter(path, known);
        }
    }

    fn enter(&mut self, path: PathBuf, known: &mut BTreeMap<u64, PathBuf>) {
        // Processes end and names go at any moment; what cannot be opened or entered is not there.
        let Ok(file) = File::open(&path) else { return };
        if !file.metadata().is_ok_and(|metadata| self.seen.insert(metadata.ino())) {
            return;
        }
        if sys::enter_netns(file.as_fd()).is_err() {
            return;
        }
        let Ok(cookie) = sys::netns_cookie() else { return };
        if self.wanted.remove(&cookie) {
            (self.act)(cookie);
            known.insert(cookie, path);
        }
    }

    fn enter_cgroup(&mut self, cgroup: &Path, known: &mut BTreeMap<u64, PathBuf>, depth: usize) {
        if self.wanted.is_empty() || depth > DEPTH_MAX {
            return;
        }
        let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        let paths = processes.lines().map(|process| PathBuf::from(format!("/proc/{process}/ns/net")));
        self.enter_all(paths, known);
        for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.enter_cgroup(&entry.path(), known, depth + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_s_own_namespace_is_found_and_one_that_nobody_has_is_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let own = sys::netns_cookie().expect("a number");
        let mut visited = Vec::new();
        Namespaces::new(folder.path()).visit(BTreeSet::from([own, u64::MAX]), |cookie| visited.push(cookie));
        assert_eq!(visited, [own]);
    }
}
