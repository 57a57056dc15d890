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
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};

use crate::sys;

const NAMED: &str = "/run/netns";
/// That of the thread that asks.
const OWN: &str = "/proc/thread-self/ns/net";
/// How many act at a time. More would take the processors from the clients that are to go on.
const ACTORS_MAX: usize = 4;
/// Up to so many namespaces one does all: threads take longer to start than it takes.
const ALONE_MAX: usize = 2;
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

    /// Does something in each of these namespaces: one thread finds them, and with more than a few others act in those that
    /// are found. One that is not found is left out: it has no process any more. To be called on a thread that ends
    /// then, for it is left somewhere.
    pub fn visit(&mut self, wanted: BTreeSet<u64>, act: impl Fn(u64) + Sync) {
        hurry();
        let visit = Visit { wanted, seen: BTreeSet::new() };
        let (cgroup, known) = (self.cgroup.as_path(), &mut self.known);
        if visit.wanted.len() <= ALONE_MAX {
            visit.run(cgroup, known, |cookie, _| act(cookie));
            return;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (found, finds) = mpsc::channel();
        let (act, finds) = (&act, &Mutex::new(finds));
        std::thread::scope(|scope| {
            let others = processors.min(ACTORS_MAX) - 1;
            let others: Vec<_> = (0..others).map(|_| scope.spawn(|| act_in_found(finds, act))).collect();
            visit.run(cgroup, known, move |cookie, namespace| {
                // Whoever receives is there as long as this runs.
                let _ = found.send((cookie, namespace));
            });
            act_in_found(finds, act);
            // A panic inside is a defect of ours that must not end the agent; what was not done is logged by its absence.
            // All are joined: the scope would panic itself for one that is not.
            if others.into_iter().filter_map(|thread| thread.join().err()).count() > 0 {
                tracing::error!("acting in network namespaces panicked");
            }
        });
    }
}

/// A namespace by its number, to be entered.
type Find = (u64, File);

/// Acts in one namespace after the other, until no more are found.
fn act_in_found(finds: &Mutex<Receiver<Find>>, act: impl Fn(u64)) {
    loop {
        let find = finds.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((cookie, namespace)) = find else { return };
        if sys::enter_netns(namespace.as_fd()).is_ok() {
            act(cookie);
        }
    }
}

/// Lets this thread run first, and those that it starts. Else every client that is woken takes the processor from those that are to wake the others.
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
}

impl Visit {
    /// Hands on each that it finds, while it is in it.
    fn run(mut self, cgroup: &Path, known: &mut BTreeMap<u64, PathBuf>, mut found: impl FnMut(u64, File)) {
        let found = &mut found;
        if let Ok(own) = sys::netns_cookie()
            && self.wanted.remove(&own)
        {
            match File::open(OWN) {
                Ok(namespace) => found(own, namespace),
                Err(error) => tracing::warn!(%error, "the agent's own network namespace cannot be opened"),
            }
        }
        let cached: Vec<PathBuf> = self.wanted.iter().filter_map(|cookie| known.remove(cookie)).collect();
        let named = || fs::read_dir(NAMED).into_iter().flatten().flatten().map(|entry| entry.path());
        self.enter_all(cached.into_iter(), known, found);
        if !self.wanted.is_empty() {
            self.enter_all(named(), known, found);
        }
        self.enter_cgroup(cgroup, known, found, 0);
        if !self.wanted.is_empty() {
            let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
            let numbered = processes.filter(|entry| entry.file_name().as_bytes()[0].is_ascii_digit());
            self.enter_all(numbered.map(|entry| entry.path().join("ns/net")), known, found);
        }
    }

    fn enter_all(
        &mut self,
        paths: impl Iterator<Item = PathBuf>,
        known: &mut BTreeMap<u64, PathBuf>,
        found: &mut impl FnMut(u64, File),
    ) {
        for path in paths {
            if self.wanted.is_empty() {
                return;
            }
            self.enter(path, known, found);
        }
    }

    fn enter(
        &mut self,
        path: PathBuf,
        known: &mut BTreeMap<u64, PathBuf>,
        found: &mut impl FnMut(u64, File),
    ) {
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
            found(cookie, file);
            known.insert(cookie, path);
        }
    }

    fn enter_cgroup(
        &mut self,
        cgroup: &Path,
        known: &mut BTreeMap<u64, PathBuf>,
        found: &mut impl FnMut(u64, File),
        depth: usize,
    ) {
        if self.wanted.is_empty() || depth > DEPTH_MAX {
            return;
        }
        let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        let paths = processes.lines().map(|process| PathBuf::from(format!("/proc/{process}/ns/net")));
        self.enter_all(paths, known, found);
        for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.enter_cgroup(&entry.path(), known, found, depth + 1);
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
        for wanted in [&[own, u64::MAX][..], &[own, u64::MAX, u64::MAX - 1]] {
            let act = |cookie| {
                let here = sys::netns_cookie().expect("a number");
                visited.lock().expect("nobody panics").push((cookie, here));
            };
            let mut namespaces = Namespaces::new(folder.path());
            std::thread::scope(|scope| {
                scope.spawn(|| namespaces.visit(wanted.iter().copied().collect(), act));
            });
            assert_eq!(visited.lock().expect("nobody panics").drain(..).as_slice(), [(own, own)]);
        }
    }
}
