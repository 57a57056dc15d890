//! Watching the programs at work: a ring buffer of one's own, and a place among the watchers that must be renewed.
//!
//! It needs no running agent, only the pins. A watcher that dies, however suddenly, is told nothing more after
//! [`LEASE`]; its place then goes to the next. Must not know what anybody wants to see.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use penstock_ebpf_common::{
    Address, Event, Reason, ServiceName, TOLD_PASSED, Told, WANTS_PACKETS, WATCHERS_MAX, Watch, map,
};
use serde::Serialize;

use crate::kernel::{failed, open, pin, text};
use crate::{DataplaneError, sys};

/// How long a watcher is told without a sign of life.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often a watcher should give one.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Room for some 9,000 things told; whoever reads more slowly misses some, which is counted.
const RING_BYTES: u32 = 1 << 20;

/// One who watches.
pub struct Watcher {
    directory: PathBuf,
    /// Where it is told, while nobody else is there.
    place: usize,
    /// Tells its places from those of others.
    id: u64,
    wants: u32,
    ring: RingBuf<MapData>,
    ring_fd: OwnedFd,
    rings: OwnedFd,
    watch: Array<MapData, Watch>,
    names: HashMap<MapData, u32, ServiceName>,
    /// What could not be told to anybody before this one came.
    missed_before: u64,
}

/// How much is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// What begins, is refused or is dropped.
    #[default]
    Flows,
    /// Every packet that is translated, too.
    Packets,
}

/// What became of a call or packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A client's: a backend was chosen, or had been.
    Translated,
    /// An answer, given the address its client knows.
    Replied,
    /// It left the cluster with the node's address.
    Masqueraded,
    /// It is to no service and was left as it is.
    Passed,
    /// The client is told that nobody answers.
    Refused,
    /// Nobody is told.
    Dropped,
}

/// Something a program did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub time: SystemTime,
    /// What became of it.
    pub verdict: Verdict,
    /// The event or the reason, by the name it has in the counters; `passed` for what was left as it is.
    pub what: &'static str,
    /// IP protocol number.
    pub protocol: u8,
    /// The namespace of the calling process; none for a packet.
    pub netns: Option<u64>,
    /// The interface of a packet; none for a call.
    pub ifindex: Option<u32>,
    /// Whose it is; a call has no source yet.
    pub source: Option<SocketAddr>,
    /// Whom the client asked.
    pub destination: SocketAddr,
    /// The source after translation, where it is another.
    pub to_source: Option<SocketAddr>,
    /// Who is asked in truth, where that is another.
    pub to_destination: Option<SocketAddr>,
    /// The service port's number; none for what belongs to none.
    pub service: Option<u32>,
}

// === impl Watcher ===

impl Watcher {
    /// Takes a place among those who watch the programs of an agent, whose directory on its bpf file system this is.
    pub fn open(directory: &Path, detail: Detail) -> Result<Self, DataplaneError> {
        let wants = if detail == Detail::Packets { WANTS_PACKETS } else { 0 };
        let kernel = |doing: &'static str| {
            move |source| DataplaneError::Kernel { doing, subject: map::RINGS.to_owned(), source }
        };
        let rings = sys::get(&pin(directory, map::RINGS)).map_err(kernel("opening a pinned map"))?;
        let ring_fd = sys::create_ring(RING_BYTES).map_err(kernel("making a ring buffer for"))?;
        let ring = ring_fd.try_clone().map_err(kernel("making a ring buffer for"))?;
        let mut watcher = Self {
            directory: directory.to_owned(),
            place: 0,
            id: now_ns() ^ u64::from(std::process::id()) << 48,
            wants,
            ring: ring_of(ring).map_err(|error| failed("mapping a ring buffer", map::RINGS, error))?,
            ring_fd,
            rings,
            watch: open(directory, map::WATCH)?,
            names: open(directory, map::NAMES)?,
            missed_before: 0,
        };
        watcher.missed_before = watcher.not_told()?;
        watcher.renew()?;
        // The kernel may have taken its time with the ring.
        watcher.renew()?;
        Ok(watcher)
    }

    /// Gives a sign of life: told until [`LEASE`] from now. One that was silent for too long takes another place if its own
    /// is taken.
    pub fn renew(&mut self) -> Result<(), DataplaneError> {
        let (now, id, wants) = (now_ns(), self.id, self.wants);
        let moved = self.change(|watch, place| {
            let is_own = watch.owners[*place] == id;
            if !is_own {
                // The place of one that is gone counts as free. What is told before the ring is there goes into the former
                // one's, which nobody reads.
                *place = watch.until_ns.iter().position(|until| *until <= now)?;
            }
            (watch.until_ns[*place], watch.owners[*place]) = (now + LEASE.as_nanos() as u64, id);
            watch.wants[*place] = wants;
            Some(!is_own)
        })?;
        if moved {
            let entry = [(self.place as u32, self.ring_fd.as_fd())];
            sys::update_array_of_maps(self.rings.as_fd(), &entry).map_err(|source| {
                DataplaneError::Kernel { doing: "writing a map", subject: map::RINGS.to_owned(), source }
            })?;
        }
        Ok(())
    }

    /// Returns when something was told, or when it is time to renew, or when a signal came.
    pub fn wait(&self) {
        let mut ring = libc::pollfd { fd: self.ring.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which is ours and lives through the call. Whatever it answers, the caller looks.
        unsafe { libc::poll(&mut ring, 1, RENEW_EVERY.as_millis() as libc::c_int) };
    }

    /// The next thing told, if there is any by now. One of an unknown shape, told by programs of another version, is
    /// left out.
    pub fn take(&mut self) -> Option<Seen> {
        while let Some(item) = self.ring.next() {
            if item.len() != size_of::<Told>() {
                continue;
            }
            // SAFETY: the length is that of `Told`, which is plain integers; the read needs no alignment.
            let told: Told = unsafe { item.as_ptr().cast::<Told>().read_unaligned() };
            if let Some(seen) = read(&told) {
                return Some(seen);
            }
        }
        None
    }

    /// How much could not be told since this one watches: to it, or to another who watches at the same time.
    pub fn missed(&self) -> Result<u64, DataplaneError> {
        Ok(self.not_told()?.saturating_sub(self.missed_before))
    }

    /// `namespace/name:port` of a service port.
    pub fn service(&self, number: u32) -> Option<String> {
        self.names.get(&number, 0).ok().map(|name| text(&name))
    }

    fn not_told(&self) -> Result<u64, DataplaneError> {
        let tallies: aya::maps::PerCpuArray<MapData, u64> = open(&self.directory, map::TALLIES)?;
        let counts = tallies.get(&Event::NotTold.index(), 0);
        Ok(counts.map_err(|error| failed("reading a map", map::TALLIES, error))?.iter().sum())
    }

    /// Changes the watchers' entry while no other watcher does.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Watch, &mut usize) -> Option<T>,
    ) -> Result<T, DataplaneError> {
        let _lock = lock(&self.directory).map_err(|source| DataplaneError::Path {
            doing: "locking",
            path: self.directory.clone(),
            source,
        })?;
        let mut watch = self.watch.get(&0, 0).map_err(|error| failed("reading a map", map::WATCH, error))?;
        let changed = change(&mut watch, &mut self.place);
        let changed = changed.ok_or(DataplaneError::Watched { watchers_max: WATCHERS_MAX })?;
        self.watch.set(0, watch, 0).map_err(|error| failed("writing a map", map::WATCH, error))?;
        Ok(changed)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let id = self.id;
        // Left undone, it is over with the lease.
        let _ = self.change(|watch, place| {
            if watch.owners[*place] == id {
                (watch.until_ns[*place], watch.owners[*place], watch.wants[*place]) = (0, 0, 0);
            }
            Some(())
        });
    }
}

fn ring_of(fd: OwnedFd) -> Result<RingBuf<MapData>, aya::maps::MapError> {
    RingBuf::try_from(Map::from_map_data(MapData::from_fd(fd)?)?)
}

/// An exclusive lock on the agent's directory, held until it is dropped: flock(2).
fn lock(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    file.lock()?;
    Ok(file)
}

fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours and lives through the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

// === Reading ===

fn read(told: &Told) -> Option<Seen> {
    let (verdict, what) = meaning(told)?;
    let at = |address: Address, port: u16| {
        (address != Address::default()).then(|| SocketAddr::new(IpAddr::from(address), u16::from_be(port)))
    };
    let source = at(told.source, told.source_port);
    let destination = SocketAddr::new(told.destination.into(), u16::from_be(told.destination_port));
    let ago = Duration::from_nanos(now_ns().saturating_sub(told.time_ns));
    Some(Seen {
        time: SystemTime::now() - ago,
        verdict,
        what,
        protocol: told.protocol as u8,
        netns: (told.netns != 0).then_some(told.netns),
        ifindex: (told.ifindex != 0).then_some(told.ifindex),
        source,
        destination,
        to_source: at(told.to_source, told.to_source_port).filter(|to| Some(*to) != source),
        to_destination: at(told.to_destination, told.to_destination_port).filter(|to| *to != destination),
        service: (told.service != 0).then_some(told.service),
    })
}

fn meaning(told: &Told) -> Option<(Verdict, &'static str)> {
    if told.what == TOLD_PASSED {
        return Some((Verdict::Passed, "passed"));
    }
    if let Some(reason) = Reason::ALL.iter().find(|reason| reason.index() == told.what) {
        return Some((Verdict::Dropped, reason.name()));
    }
    let event = Event::ALL.iter().find(|event| event.index() == told.what)?;
    let verdict = match event {
        Event::ConnectRefused | Event::SendRefused | Event::UplinkRefused => Verdict::Refused,
        Event::Masqueraded => Verdict::Masqueraded,
        Event::FlowCreated if told.service == 0 => Verdict::Masqueraded,
        Event::UplinkReplied | Event::PodReplied | Event::MasqueradeReplied | Event::ErrorTranslated => {
            Verdict::Replied
        }
        _ => Verdict::Translated,
    };
    Some((verdict, event.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(what: u32) -> Told {
        let at = |last: u8| Address::from(IpAddr::from([10, 0, 0, last]));
        Told {
            source: at(1),
            destination: at(2),
            to_source: at(1),
            to_destination: at(3),
            source_port: 1_u16.to_be(),
            destination_port: 80_u16.to_be(),
            to_source_port: 1_u16.to_be(),
            to_destination_port: 8080_u16.to_be(),
            what,
            protocol: 6,
            ..Told::default()
        }
    }

    #[test]
    fn what_did_not_change_is_not_told_twice() {
        let seen = read(&Told { service: 7, ..told(Event::FlowCreated.index()) }).expect("known");
        assert_eq!(seen.verdict, Verdict::Translated);
        assert_eq!(seen.source.map(|it| it.to_string()).as_deref(), Some("10.0.0.1:1"));
        assert_eq!((seen.to_source, seen.service), (None, Some(7)));
        assert_eq!(seen.to_destination.map(|it| it.to_string()).as_deref(), Some("10.0.0.3:8080"));
    }

    #[test]
    fn every_event_and_reason_has_a_verdict_and_what_is_unknown_is_left_out() {
        for event in Event::ALL {
            assert_eq!(meaning(&told(event.index())).map(|it| it.1), Some(event.name()));
        }
        for reason in Reason::ALL {
            assert_eq!(meaning(&told(reason.index())), Some((Verdict::Dropped, reason.name())));
        }
        assert_eq!(meaning(&told(TOLD_PASSED)), Some((Verdict::Passed, "passed")));
        assert_eq!(meaning(&told(Event::FlowCreated.index())).map(|it| it.0), Some(Verdict::Masqueraded));
        assert!(read(&told(1_000)).is_none());
    }
}
