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
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};

use crate::sys;

const NAMED: &str = "/run/netns";
/// That of the thread that asks.
const OWN: &str = "/proc/thread-self/ns/net";
/// How many act at a time. More would take the processors from the clients that are to go on.
const ACTORS_MAX: usize = 4;
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

    /// Does something in each of these namespaces, on threads of its own: one finds them, others act in those that are
    /// found. One that is not found is left out: it has no process any more.
    pub fn visit(&mut self, wanted: BTreeSet<u64>, act: impl Fn(u64) + Sync) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let actors = wanted.len().min(processors).min(ACTORS_MAX);
        let (found, finds) = mpsc::channel();
        let (act, finds) = (&act, &Mutex::new(finds));
        let (cgroup, known) = (self.cgroup.as_path(), &mut self.known);
        std::thread::scope(|scope| {
            let mut threads: Vec<_> = (0..actors).map(|_| scope.spawn(|| act_in_found(finds, act))).collect();
            threads.push(scope.spawn(|| Visit { wanted, seen: BTreeSet::new(), found }.run(cgroup, known)));
            // A panic inside is a defect of ours that must not end the agent; what was not done is logged by its absence.
            // All are joined: the scope would panic itself for one that is not.
            if threads.into_iter().filter_map(|thread| thread.join().err()).count() > 0 {
                tracing::error!("looking through network namespaces panicked");
            }
        });
    }
}

/// A namespace by its number, to be entered.
type Find = (u64, File);

/// Acts in one namespace after the other, until no more are found.
fn act_in_found(finds: &Mutex<Receiver<Find>>, act: impl Fn(u64)) {
    hurry();
    loop {
        let find = finds.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((cookie, namespace)) = find else { return };
        if sys::enter_netns(namespace.as_fd()).is_ok() {
            act(cookie);
        }
    }
}

/// Lets this thread run first. Else every client that is woken takes the processor from those that are to wake the others.
/// Without the right to it the last of thousands waits some milliseconds longer.
fn hurry() {
    if let Err(error) = sys::raise_priority() {
        tracing::debug!(%error, "acting in network namespaces at ordinary priority");
    }
}

/// One way through the namespaces, on a thread that nothing else runs on.
struct Visit {
    /// Those still to be found.
    wanted: BTreeSet<u64>,
    /// Inode numbers of those entered.
    seen: BTreeSet<u64>,
    found: Sender<Find>,
}

impl Visit {
    fn run(mut self, cgroup: &Path, known: &mut BTreeMap<u64, PathBuf>) {
        hurry();
        if let Ok(own) = sys::netns_cookie()
            && self.wanted.remove(&own)
        {
            match File::open(OWN) {
                Ok(namespace) => self.hand_on(own, namespace),
                Err(error) => tracing::warn!(%error, "the agent's own network namespace cannot be opened"),
            }
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

    fn hand_on(&self, cookie: u64, namespace: File) {
        // Those who act are there as long as this looks, unless they panicked, which is logged.
        let _ = self.found.send((cookie, namespace));
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
            self.hand_on(cookie, file);
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
        let visited = Mutex::new(Vec::new());
        Namespaces::new(folder.path()).visit(BTreeSet::from([own, u64::MAX]), |cookie| {
            visited.lock().expect("nobody panics").push((cookie, sys::netns_cookie().expect("a number")));
        });
        assert_eq!(visited.into_inner().expect("nobody panics"), [(own, own)]);
    }
}
