//! Entries of maps as bytes, for those who move them without knowing what they are.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::{Attr, MAP_LOOKUP_BATCH, MAP_LOOKUP_ELEM, bpf, bpf_answering, word};

const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;

const ANY: u64 = 0;
const NOEXIST: u64 = 1;

/// Reads a hash map, many entries in one call. Entries that come or go meanwhile may be missed or seen twice.
pub fn each(
    map: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    mut each: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    const ENTRIES_FIRST: usize = 1024;
    // A bucket that does not fit is asked for again with more room; none is ever near as long.
    const ENTRIES_MAX: usize = 1 << 20;
    // Many maps are empty most of the time: no room need be made for entries then.
    if next_key(map, None, key_size)?.is_none() {
        return Ok(());
    }
    let mut entries = ENTRIES_FIRST;
    let (mut keys, mut values) = (vec![0; entries * key_size], vec![0; entries * value_size]);
    // Where to go on, which the kernel calls a batch: eight bytes are more than it writes for a hash map.
    let (mut at, mut next, mut started) = (0_u64, 0_u64, false);
    loop {
        // struct { in_batch, out_batch, keys, values: u64; count, map_fd: u32; elem_flags, flags: u64 } batch.
        let mut attr = Attr::new()
            .u64(0, if started { &raw const at as u64 } else { 0 })
            .u64(8, &raw mut next as u64)
            .u64(16, keys.as_mut_ptr() as u64)
            .u64(24, values.as_mut_ptr() as u64)
            .u32(32, entries as u32)
            .fd(36, map);
        let error = bpf_answering(MAP_LOOKUP_BATCH, &mut attr).err();
        let code = error.as_ref().and_then(io::Error::raw_os_error);
        if code == Some(libc::ENOSPC) && entries < ENTRIES_MAX {
            entries *= 2;
            (keys, values) = (vec![0; entries * key_size], vec![0; entries * value_size]);
            continue;
        }
        match error {
            // The end, with the last entries.
            Some(_) if code == Some(libc::ENOENT) => {}
            Some(error) => return Err(error),
            None => {}
        }
        let count = word(&attr, 32) as usize;
        for (key, value) in keys.chunks(key_size).zip(values.chunks(value_size)).take(count) {
            each(key, value);
        }
        if code == Some(libc::ENOENT) {
            return Ok(());
        }
        // SAFETY: the kernel wrote it through the pointer above.
        at = unsafe { (&raw const next).read_volatile() };
        started = true;
    }
}

/// The value of a key, if there is one.
pub fn lookup(map: BorrowedFd<'_>, key: &[u8], value_size: usize) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; value_size];
    let attr = Attr::new().fd(0, map).u64(8, key.as_ptr() as u64).u64(16, value.as_mut_ptr() as u64);
    match bpf(MAP_LOOKUP_ELEM, &attr) {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets the value of a key.
pub fn set(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    update(map, key, value, ANY)
}

/// Makes an entry; false when there is one of this key.
pub fn insert_new(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<bool> {
    match update(map, key, value, NOEXIST) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    let attr = Attr::new().fd(0, map).u64(8, key.as_ptr() as u64).u64(16, value.as_ptr() as u64);
    bpf(MAP_UPDATE_ELEM, &attr.u64(24, flags)).map(drop)
}

/// Deletes an entry; one that is not there is deleted already.
pub fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    match bpf(MAP_DELETE_ELEM, &Attr::new().fd(0, map).u64(8, key.as_ptr() as u64)) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// The key after another, or the first.
pub fn next_key(map: BorrowedFd<'_>, after: Option<&[u8]>, key_size: usize) -> io::Result<Option<Vec<u8>>> {
    let mut next = vec![0; key_size];
    let after = after.map_or(0, |key| key.as_ptr() as u64);
    match bpf(
        MAP_GET_NEXT_KEY,
        &Attr::new().fd(0, map.as_fd()).u64(8, after).u64(16, next.as_mut_ptr() as u64),
    ) {
        Ok(_) => Ok(Some(next)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
