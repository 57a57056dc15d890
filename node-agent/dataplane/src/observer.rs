//! One observer of what the programs do, as it happens: a ring buffer of its own, and its place among the others.
//!
//! Any process that may open the pins can observe, with or without an agent. The programs tell while an observer renews
//! its time; when it dies, even by SIGKILL, they stop at most [`TIME`] later. Must not know names of pods or Services.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues, RingBuf};
use penstock_ebpf_common::{ANYBODY, OBSERVERS_MAX, Observer as Wish, Told, Verdict, map};

use crate::kernel::{failed, open, pin};
use crate::{DataplaneError, sys};

/// How long the programs tell an observer that says nothing more.
pub const TIME: Duration = Duration::from_secs(5);
/// How often an observer says that it lives: also one that gets no processor for seconds is told on.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Room for what an observer has not read yet: 7,700 packets.
const RING_BYTES: u32 = 1 << 20;

/// What is to be observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Packets and calls with these verdicts.
    pub verdicts: Vec<Verdict>,
    /// Zero: of a flow only its first packet. Else of all packets one in so many.
    pub sample: u32,
}

/// An observer; the programs stop telling it when it is dropped.
pub struct Observer {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    place: Arc<Place>,
    renewing: Option<std::thread::JoinHandle<()>>,
}

/// The place of an observer among the others.
struct Place {
    directory: PathBuf,
    number: u32,
    wanted: Wanted,
    over: AtomicBool,
}

// === impl Observer ===

impl Observer {
    /// Begins to observe; `directory` is an agent's own on a bpf file system.
    pub fn open(directory: &Path, wanted: Wanted) -> Result<Self, DataplaneError> {
        let ring = sys::create_ring(RING_BYTES).map_err(|it| wrap("making a ring buffer", it))?;
        let mut lost: PerCpuArray<MapData, u64> = open(directory, map::LOST)?;
        let rings = sys::get(&pin(directory, map::RINGS)).map_err(|it| wrap("opening the rings", it))?;
        let number = {
            // Two that begin at the same time must not take one place.
            let _one = Lock::take(directory)?;
            let observers: Array<MapData, Wish> = open(directory, map::OBSERVERS)?;
            let now = sys::now_ns();
            let wish = |number| {
                observers.get(&number, 0).map_err(|error| failed("reading a map", map::OBSERVERS, error))
            };
            let mut free = None;
            for number in 1..=OBSERVERS_MAX {
                if wish(number)?.until_ns < now {
                    free = Some(number);
                    break;
                }
            }
            let Some(number) = free else {
                let count = OBSERVERS_MAX as usize + 1;
                return Err(DataplaneError::Full { what: "observers", count, max: OBSERVERS_MAX as usize });
            };
            sys::update_array_of_maps(rings.as_fd(), &[(number, ring.as_fd())])
                .map_err(|it| wrap("writing the rings", it))?;
            zero(&mut lost, number)?;
            let place =
                Place { directory: directory.to_owned(), number, wanted: wanted.clone(), over: false.into() };
            place.renew()?;
            number
        };
        let data = MapData::from_fd(ring).map_err(|it| failed("opening a map", "a ring buffer", it))?;
        let ring = Map::from_map_data(data)
            .and_then(RingBuf::try_from)
            .map_err(|it| failed("mapping", "a ring buffer", it))?;
        let place = Arc::new(Place { directory: directory.to_owned(), number, wanted, over: false.into() });
        let renewed = place.clone();
        // On a thread of its own: whoever reads may be held up by who reads from it.
        let renewing = std::thread::Builder::new().name("observer".into()).spawn(move || {
            while !renewed.over.load(Ordering::Relaxed) {
                let _ = renewed.renew();
                std::thread::park_timeout(RENEW_EVERY);
            }
        });
        Ok(Self { ring, lost, place, renewing: renewing.ok() })
    }

    /// The next thing told, if there is one.
    pub fn next_told(&mut self) -> Option<Told> {
        let item = self.ring.next()?;
        let bytes: &[u8] = &item;
        if bytes.len() < size_of::<Told>() {
            return None;
        }
        // SAFETY: as long as a `Told` by the check above, and every pattern of bits is one.
        Some(unsafe { bytes.as_ptr().cast::<Told>().read_unaligned() })
    }

    /// Waits until something is told, or until the time is over.
    pub fn wait(&self, at_most: Duration) -> Result<(), DataplaneError> {
        sys::wait_readable(self.ring.as_fd(), at_most).map_err(|it| wrap("waiting for a ring buffer", it))
    }

    /// How much could not be told so far, for want of room.
    pub fn lost(&self) -> Result<u64, DataplaneError> {
        let counts = self.lost.get(&self.place.number, 0);
        Ok(counts.map_err(|it| failed("reading a map", map::LOST, it))?.iter().sum())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.place.over.store(true, Ordering::Relaxed);
        if let Some(renewing) = self.renewing.take() {
            renewing.thread().unpark();
            let _ = renewing.join();
        }
        if let Err(error) = self.place.leave() {
            tracing::debug!(%error, "an observer's place is free in {TIME:?} only");
        }
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("number", &self.place.number).finish_non_exhaustive()
    }
}

// === impl Place ===

impl Place {
    fn renew(&self) -> Result<(), DataplaneError> {
        let until_ns = sys::now_ns() + TIME.as_nanos() as u64;
        let verdicts = self.wanted.verdicts.iter().fold(0, |bits, verdict| bits | verdict.bit());
        self.write(self.number, Wish { until_ns, verdicts, sample: self.wanted.sample })?;
        // Only looked at for being zero; two that write it at once both write what is not.
        self.write(ANYBODY, Wish { until_ns, ..Wish::default() })
    }

    fn leave(&self) -> Result<(), DataplaneError> {
        let _one = Lock::take(&self.directory)?;
        self.write(self.number, Wish::default())?;
        let rings =
            sys::get(&pin(&self.directory, map::RINGS)).map_err(|it| wrap("opening the rings", it))?;
        sys::delete_entry(rings.as_fd(), &self.number).map_err(|it| wrap("clearing the rings", it))
    }

    fn write(&self, number: u32, wish: Wish) -> Result<(), DataplaneError> {
        let mut observers: Array<MapData, Wish> = open(&self.directory, map::OBSERVERS)?;
        observers.set(number, wish, 0).map_err(|error| failed("writing a map", map::OBSERVERS, error))
    }
}

/// Whether the programs tell anybody.
pub fn is_observed(directory: &Path) -> Result<bool, DataplaneError> {
    let observers: Array<MapData, Wish> = open(directory, map::OBSERVERS)?;
    let all = observers.get(&ANYBODY, 0).map_err(|it| failed("reading a map", map::OBSERVERS, it))?;
    Ok(all.until_ns != 0)
}

fn zero(lost: &mut PerCpuArray<MapData, u64>, number: u32) -> Result<(), DataplaneError> {
    let counts = lost.get(&number, 0).map_err(|it| failed("reading a map", map::LOST, it))?;
    let zeros = PerCpuValues::try_from(vec![0_u64; counts.len()]).map_err(|it| wrap("counting CPUs", it))?;
    lost.set(number, zeros, 0).map_err(|it| failed("writing a map", map::LOST, it))
}

fn wrap(doing: &'static str, source: io::Error) -> DataplaneError {
    DataplaneError::Kernel { doing, subject: "for an observer".to_owned(), source }
}

/// Held by one process at a time; the kernel lets go of it when the process dies.
struct Lock {
    _folder: File,
}

impl Lock {
    fn take(directory: &Path) -> Result<Self, DataplaneError> {
        let path = directory.join("maps");
        let lock = || -> io::Result<Self> {
            let folder = File::open(&path)?;
            sys::lock(folder.as_fd())?;
            Ok(Self { _folder: folder })
        };
        lock().map_err(|source| DataplaneError::Path { doing: "locking", path: path.clone(), source })
    }
}
