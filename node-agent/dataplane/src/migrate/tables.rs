//! Entries brought to another table, from a table or from the map of the kernel's own kind that they were in before.
//!
//! A flow comes with the time it was last seen, and takes no place of what was seen later; a peer takes nobody's.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::Entry as Bytes;
use super::copy::ARRAY;
use crate::sys::{self, MapInfo, entries};
use crate::table::{Entry, Memory, Table};

/// Brings every entry over that is not there yet and has room. Programs delete from the former map first: so what is still
/// there after it was brought over was not deleted meanwhile, or will be deleted in both. Returns how many.
pub fn apply_copy<E: Entry>(
    from: BorrowedFd<'_>,
    info: &MapInfo,
    to: OwnedFd,
    convert: Option<fn(&[u8], &[u8]) -> Option<Bytes>>,
) -> io::Result<usize>
where
    E::Key: aya::Pod,
    E::Value: aya::Pod,
{
    let to = Table::<E>::of(to)?.map_here()?;
    let now_ns = sys::monotonic_ns();
    let mut brought = 0;
    if info.kind == ARRAY {
        let from = Memory::<E>::of(from, info.entries_max)?;
        from.each(|key, value| {
            if to.insert_new(key, value, now_ns) {
                brought += 1;
                if from.get(key).is_none() {
                    to.remove(key);
                }
            }
        });
        return Ok(brought);
    }
    let (key_size, value_size) = (info.key_size as usize, info.value_size as usize);
    let mut failed = None;
    entries::each(from, key_size, value_size, |key_bytes, value| {
        let Some((key, value)) = convert.and_then(|convert| convert(key_bytes, value)) else { return };
        let (Some(key), Some(value)) = (read::<E::Key>(&key), read::<E::Value>(&value)) else { return };
        if to.insert_new(&key, &value, now_ns) {
            brought += 1;
            match entries::lookup(from, key_bytes, value_size) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    to.remove(&key);
                }
                Err(error) => failed = Some(error),
            }
        }
    })?;
    failed.map_or(Ok(brought), Err)
}

fn read<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: the bytes are as many as the type has, which is plain integers by `Pod`.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
