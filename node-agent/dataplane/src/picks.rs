//! Entries of some services, picked out of a map by a program in the kernel (`ebpf/src/pick.rs`).
//!
//! It exists because reading a whole map from here costs half a microsecond for each entry, and what is looked for is often
//! none. Where the kernel takes no such programs whole maps are read, by [`crate::kernel`]. Must not know what is looked
//! for, nor what is done with it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use aya::maps::Map;
use aya::{Ebpf, Pod};
use penstock_ebpf_common::{PICKED, Picked, map};

use crate::sys;

/// The iterator that runs such programs, as the kernel names it.
pub const ITERATOR: &str = "bpf_map_elem";

/// Maps, and the programs that pick of them.
const PROGRAMS: &[(&str, &str)] = &[(map::PEERS, "pick_peers"), (map::SOCKET_FLOWS, "pick_socket_flows")];

/// More than the kernel hands out in one call, which is 32 KiB.
const BUFFER: usize = 1 << 16;

/// The programs that pick.
#[derive(Debug)]
pub struct Picks {
    programs: BTreeMap<&'static str, OwnedFd>,
    /// What they are to pick, which one at a time says.
    picked: Mutex<OwnedFd>,
}

// === impl Picks ===

impl Picks {
    /// Those that are loaded; none when one is missing.
    pub fn of(loaded: &Ebpf) -> Option<Self> {
        let fd = |name: &str| loaded.program(name)?.fd().ok()?.as_fd().try_clone_to_owned().ok();
        let programs = PROGRAMS.iter().map(|(map, program)| Some((*map, fd(program)?)));
        let Map::Array(picked) = loaded.map(PICKED)? else { return None };
        let picked = Mutex::new(picked.fd().as_fd().try_clone_to_owned().ok()?);
        Some(Self { programs: programs.collect::<Option<_>>()?, picked })
    }

    /// Hands on the entries of some services that are in a map, and perhaps others. The value has the size of what the
    /// program of this map tells after the key.
    pub fn each<K: Pod, V: Pod>(
        &self,
        name: &str,
        map: BorrowedFd<'_>,
        of: &Picked,
        mut each: impl FnMut(&K, &V),
    ) -> io::Result<()> {
        let program = self.programs.get(name).ok_or(io::ErrorKind::NotFound)?;
        // Over empty places the iterator takes several times as long as this.
        if sys::entries::next_key(map, None, size_of::<K>())?.is_none() {
            return Ok(());
        }
        let picked = self.picked.lock().unwrap_or_else(PoisonError::into_inner);
        sys::fill_array(picked.as_fd(), std::slice::from_ref(of))?;
        let entries = sys::iterate(program.as_fd(), map)?;
        let mut buffer = vec![0; BUFFER];
        let mut filled = 0;
        loop {
            let read = match sys::read(entries.as_fd(), &mut buffer[filled..]) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                // It says so as well after a million entries of others.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            filled += read;
            let whole = filled - filled % (size_of::<K>() + size_of::<V>());
            for entry in buffer[..whole].chunks_exact(size_of::<K>() + size_of::<V>()) {
                let (key, value) = entry.split_at(size_of::<K>());
                // SAFETY: the bytes are as many as the types have, and these are plain integers by `Pod`.
                let (key, value) = unsafe {
                    (key.as_ptr().cast::<K>().read_unaligned(), value.as_ptr().cast::<V>().read_unaligned())
                };
                each(&key, &value);
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
    }
}
