//! Entries of one map brought to another of the same kind, while programs use both.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Entry;
use super::rank::Rank;
use crate::sys::{self, MapInfo, entries};

/// `enum bpf_map_type` of include/uapi/linux/bpf.h.
const HASH: u32 = 1;
pub(super) const ARRAY: u32 = 2;
const PERCPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;
const LPM_TRIE: u32 = 11;
const ARRAY_OF_MAPS: u32 = 12;

/// How many maps are put into an array of maps in one call, after which the kernel waits for running programs. Each is an
/// open file until then.
const MAPS_AT_ONCE_MAX: u64 = 4096;

/// A map that evicts is filled so far only: programs make entries meanwhile.
const FREE_SHARE: usize = 8;

/// Brings everything over that is not there yet, of maps that evict what there is room for. Maps in maps are shared, not
/// copied. Returns how many entries.
pub fn apply_copy(
    from: BorrowedFd<'_>,
    info: &MapInfo,
    to: BorrowedFd<'_>,
    convert: Option<fn(&[u8], &[u8]) -> Option<Entry>>,
    rank: fn(&[u8], &[u8]) -> Rank,
) -> io::Result<usize> {
    let converted = |key: &[u8], value: &[u8]| match convert {
        Some(convert) => convert(key, value),
        None => Some((key.to_vec(), value.to_vec())),
    };
    match info.kind {
        HASH => copy_hash(from, info, to, converted),
        LRU_HASH => copy_evicting(from, info, to, converted, rank),
        LPM_TRIE => copy_trie(from, info, to, converted),
        ARRAY | PERCPU_ARRAY => copy_array(from, info, to, converted),
        ARRAY_OF_MAPS => share_maps(from, info, to),
        other => Err(io::Error::other(format!("maps of kind {other} cannot be brought over"))),
    }
}

fn copy_hash(
    from: BorrowedFd<'_>,
    info: &MapInfo,
    to: BorrowedFd<'_>,
    converted: impl Fn(&[u8], &[u8]) -> Option<Entry>,
) -> io::Result<usize> {
    let (key_size, value_size) = (info.key_size as usize, info.value_size as usize);
    let (mut copied, mut failed) = (0, None);
    entries::each(from, key_size, value_size, |key, value| {
        let Some((new_key, value)) = converted(key, value) else { return };
        match bring(from, key, value_size, to, &new_key, &value) {
            Ok(is_new) => copied += usize::from(is_new),
            Err(error) => failed = Some(error),
        }
    })?;
    failed.map_or(Ok(copied), Err)
}

fn copy_evicting(
    from: BorrowedFd<'_>,
    info: &MapInfo,
    to: BorrowedFd<'_>,
    converted: impl Fn(&[u8], &[u8]) -> Option<Entry>,
    rank: fn(&[u8], &[u8]) -> Rank,
) -> io::Result<usize> {
    let (key_size, value_size) = (info.key_size as usize, info.value_size as usize);
    let there = sys::map_info(to)?;
    let mut used = 0;
    entries::each(to, there.key_size as usize, there.value_size as usize, |_, _| used += 1)?;
    let entries_max = there.entries_max as usize;
    let room = entries_max.saturating_sub(used + entries_max / FREE_SHARE);

    // Only ranks are kept of a first look: a map may hold a million entries.
    let mut ranks = Vec::new();
    entries::each(from, key_size, value_size, |key, value| {
        ranks.extend(converted(key, value).map(|(key, value)| rank(&key, &value)));
    })?;
    let Some(left_behind) = ranks.len().checked_sub(room.max(1)) else {
        return copy_hash(from, info, to, converted);
    };
    let least = *ranks.select_nth_unstable(left_behind).1;
    let (mut copied, mut failed) = (0, None);
    entries::each(from, key_size, value_size, |key, value| {
        let Some((new_key, value)) = converted(key, value) else { return };
        if copied >= room || rank(&new_key, &value) < least {
            return;
        }
        match bring(from, key, value_size, to, &new_key, &value) {
            Ok(is_new) => copied += usize::from(is_new),
            Err(error) => failed = Some(error),
        }
    })?;
    failed.map_or(Ok(copied), Err)
}

/// Programs delete from the former map first. So what is still there after it was brought over was not deleted meanwhile,
/// or will be deleted in both.
fn bring(
    from: BorrowedFd<'_>,
    key: &[u8],
    value_size: usize,
    to: BorrowedFd<'_>,
    new_key: &[u8],
    value: &[u8],
) -> io::Result<bool> {
    if !entries::insert_new(to, new_key, value)? {
        return Ok(false);
    }
    if entries::lookup(from, key, value_size)?.is_none() {
        entries::delete(to, new_key)?;
        return Ok(false);
    }
    Ok(true)
}

fn copy_trie(
    from: BorrowedFd<'_>,
    info: &MapInfo,
    to: BorrowedFd<'_>,
    converted: impl Fn(&[u8], &[u8]) -> Option<Entry>,
) -> io::Result<usize> {
    let mut copied = 0;
    let mut at = entries::next_key(from, None, info.key_size as usize)?;
    while let Some(key) = at {
        if let Some(value) = entries::lookup(from, &key, info.value_size as usize)?
            && let Some((key, value)) = converted(&key, &value)
        {
            // Tries have no way to say "only if it is not there" before Linux 6.12; user space alone writes them.
            entries::set(to, &key, &value)?;
            copied += 1;
        }
        at = entries::next_key(from, Some(&key), info.key_size as usize)?;
    }
    Ok(copied)
}

fn copy_array(
    from: BorrowedFd<'_>,
    info: &MapInfo,
    to: BorrowedFd<'_>,
    converted: impl Fn(&[u8], &[u8]) -> Option<Entry>,
) -> io::Result<usize> {
    let value_size = match info.kind {
        // The kernel gives eight-byte slots, one for each CPU there may ever be.
        PERCPU_ARRAY => info.value_size.next_multiple_of(8) as usize * possible_cpus()?,
        _ => info.value_size as usize,
    };
    let entries_max = info.entries_max.min(sys::map_info(to)?.entries_max);
    for index in 0..entries_max {
        let key = index.to_ne_bytes();
        if let Some(value) = entries::lookup(from, &key, value_size)?
            && let Some((key, value)) = converted(&key, &value)
        {
            entries::set(to, &key, &value)?;
        }
    }
    Ok(entries_max as usize)
}

fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(_, error)| error)
}

fn share_maps(from: BorrowedFd<'_>, info: &MapInfo, to: BorrowedFd<'_>) -> io::Result<usize> {
    let entries_max = info.entries_max.min(sys::map_info(to)?.entries_max);
    let at_once = (sys::raise_open_files() / 4).clamp(1, MAPS_AT_ONCE_MAX) as usize;
    let mut waiting: Vec<(u32, OwnedFd)> = Vec::new();
    let mut shared = 0;
    for index in 0..entries_max {
        if let Some(id) = sys::lookup_inner_id(from, index)? {
            waiting.push((index, sys::map_by_id(id)?));
        }
        if waiting.len() == at_once || index + 1 == entries_max && !waiting.is_empty() {
            let maps: Vec<_> = waiting.iter().map(|(index, map)| (*index, map.as_fd())).collect();
            sys::update_array_of_maps(to, &maps)?;
            shared += maps.len();
            waiting.clear();
        }
    }
    Ok(shared)
}
