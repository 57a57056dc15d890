//! A frame of the journal: the writes of one transaction as they were accepted, under one checksum. Pure.
//!
//! | bytes | what                                                                    |
//! |-------|-------------------------------------------------------------------------|
//! | 4     | magic                                                                   |
//! | 4     | CRC-32 of everything that follows                                       |
//! | 4     | length of the frame, with this header and without padding               |
//! | 4     | number of writes                                                        |
//! | 8     | the store's own number, so that no store takes another one's frames     |
//! | 8     | sequence                                                                |
//! | 8     | when, in Unix seconds                                                   |
//! | 8     | where history begins after it                                           |
//! | ...   | writes: kind (1), revision (8), seconds to live (8), length of key (4) and of value (4), key, value |
//!
//! Numbers are little endian. Frames begin at multiples of [`ALIGNMENT`].

use bytes::Bytes;

use crate::{Expect, Mutation, Revision, Write};

/// Frames begin at multiples of this in the file.
pub(super) const ALIGNMENT: usize = 8;
const MAGIC: [u8; 4] = *b"pnJ\x01";
const HEADER_BYTES: usize = 48;
/// Where the checksum's stretch begins.
const SUMMED_FROM: usize = 8;
const WRITE_HEADER_BYTES: usize = 1 + 8 + 8 + 4 + 4;
const DELETE: u8 = 1;
const PUT: u8 = 2;
const PUT_WITH_LEASE: u8 = 3;

/// What a frame says besides its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::embedded) struct Stamp {
    /// The number of the store it belongs to.
    pub(in crate::embedded) store: u64,
    /// One more than the frame's before it, over the store's whole life.
    pub(in crate::embedded) sequence: u64,
    pub(in crate::embedded) now_unix_seconds: u64,
    pub(in crate::embedded) compacted: Revision,
}

/// A frame that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::embedded) struct Frame {
    pub(in crate::embedded) stamp: Stamp,
    /// Accepted writes: nothing is expected of what was there.
    pub(in crate::embedded) writes: Vec<(Revision, Write)>,
}

/// A frame that is being made. Its memory is used again.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Draft {
    bytes: Vec<u8>,
    writes: u32,
}

// === impl Draft ===

impl Draft {
    pub(in crate::embedded) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER_BYTES, 0);
        self.writes = 0;
    }

    /// Adds a write; no value is a deletion.
    pub(in crate::embedded) fn push(
        &mut self,
        revision: Revision,
        key: &str,
        value: Option<&[u8]>,
        lease_ttl_seconds: Option<u64>,
    ) {
        let kind = match (value, lease_ttl_seconds) {
            (None, _) => DELETE,
            (Some(_), None) => PUT,
            (Some(_), Some(_)) => PUT_WITH_LEASE,
        };
        let value = value.unwrap_or_default();
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&revision.0.to_le_bytes());
        self.bytes.extend_from_slice(&lease_ttl_seconds.unwrap_or_default().to_le_bytes());
        // Keys and values are bounded far below 4 GiB before they come here.
        self.bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(value);
        self.writes += 1;
    }

    /// The whole frame, padded to the alignment.
    pub(in crate::embedded) fn finish(&mut self, stamp: Stamp) -> &[u8] {
        let length = self.bytes.len();
        self.bytes[..4].copy_from_slice(&MAGIC);
        self.bytes[8..12].copy_from_slice(&(length as u32).to_le_bytes());
        self.bytes[12..16].copy_from_slice(&self.writes.to_le_bytes());
        let numbers = [stamp.store, stamp.sequence, stamp.now_unix_seconds, stamp.compacted.0];
        for (place, number) in self.bytes[16..HEADER_BYTES].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let sum = crc32fast::hash(&self.bytes[SUMMED_FROM..]);
        self.bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        self.bytes.resize(length.next_multiple_of(ALIGNMENT), 0);
        &self.bytes
    }
}

/// Whether a frame may begin here. Cheap, and wrong at times.
pub(super) fn may_begin(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// The frame of the store that begins here, and its length with padding; none if it is not whole or another store's.
pub(super) fn read(bytes: &[u8], store: u64) -> Option<(Frame, usize)> {
    let header = bytes.get(..HEADER_BYTES).filter(|header| may_begin(header))?;
    let length = number_u32(&header[8..12]) as usize;
    let frame = bytes.get(..length).filter(|frame| frame.len() >= HEADER_BYTES)?;
    let stamp = Stamp {
        store: number_u64(&header[16..24]),
        sequence: number_u64(&header[24..32]),
        now_unix_seconds: number_u64(&header[32..40]),
        compacted: Revision(number_u64(&header[40..48])),
    };
    if stamp.store != store || crc32fast::hash(&frame[SUMMED_FROM..]) != number_u32(&header[4..8]) {
        return None;
    }
    let mut rest = &frame[HEADER_BYTES..];
    let mut writes = Vec::new();
    for _ in 0..number_u32(&header[12..16]) {
        writes.push(read_write(&mut rest)?);
    }
    rest.is_empty().then(|| (Frame { stamp, writes }, length.next_multiple_of(ALIGNMENT)))
}

fn read_write(rest: &mut &[u8]) -> Option<(Revision, Write)> {
    let (header, after) = rest.split_at_checked(WRITE_HEADER_BYTES)?;
    let (key, after) = after.split_at_checked(number_u32(&header[17..21]) as usize)?;
    let (value, after) = after.split_at_checked(number_u32(&header[21..25]) as usize)?;
    *rest = after;
    let put = |lease_ttl_seconds| Mutation::Put { value: Bytes::copy_from_slice(value), lease_ttl_seconds };
    let mutation = match header[0] {
        DELETE => Mutation::Delete,
        PUT => put(None),
        PUT_WITH_LEASE => put(Some(number_u64(&header[9..17]))),
        _ => return None,
    };
    let key = str::from_utf8(key).ok()?.to_owned();
    Some((Revision(number_u64(&header[1..9])), Write { key, expect: Expect::Any, mutation }))
}

fn number_u32(bytes: &[u8]) -> u32 {
    number_u64(bytes) as u32
}

fn number_u64(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mutations() -> impl Strategy<Value = Mutation> {
        prop_oneof![
            Just(Mutation::Delete),
            (any::<Vec<u8>>(), any::<Option<u64>>()).prop_map(|(value, lease_ttl_seconds)| Mutation::Put {
                value: value.into(),
                lease_ttl_seconds
            }),
        ]
    }

    prop_compose! {
        fn frames()(
            numbers: (u64, u64, u64, u64),
            writes in prop::collection::vec((any::<u64>(), "[^\0]{0,30}", mutations()), 0..6),
        ) -> Frame {
            let (store, sequence, now_unix_seconds, compacted) = numbers;
            let write = |(revision, key, mutation)| (Revision(revision), Write { key, expect: Expect::Any, mutation });
            Frame {
                stamp: Stamp { store, sequence, now_unix_seconds, compacted: Revision(compacted) },
                writes: writes.into_iter().map(write).collect(),
            }
        }
    }

    fn written(frame: &Frame) -> Vec<u8> {
        let mut draft = Draft::default();
        draft.clear();
        for (revision, write) in &frame.writes {
            match &write.mutation {
                Mutation::Delete => draft.push(*revision, &write.key, None, None),
                Mutation::Put { value, lease_ttl_seconds } => {
                    draft.push(*revision, &write.key, Some(value), *lease_ttl_seconds);
                }
            }
        }
        draft.finish(frame.stamp).to_vec()
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_as_it_was_written(frame in frames(), behind: Vec<u8>) {
            let mut bytes = written(&frame);
            let length = bytes.len();
            bytes.extend(behind);
            prop_assert_eq!(read(&bytes, frame.stamp.store), Some((frame, length)));
        }

        #[test]
        fn a_flipped_bit_anywhere_in_a_frame_makes_it_none(
            frame in frames(),
            position: prop::sample::Index,
            bit in 0u32..8,
        ) {
            let mut bytes = written(&frame);
            // Padding says nothing, so it is not looked at.
            let length = number_u32(&bytes[8..12]) as usize;
            bytes[position.index(length)] ^= 1u8 << bit;
            prop_assert_eq!(read(&bytes, frame.stamp.store), None);
        }

        #[test]
        fn a_frame_that_was_cut_is_none(frame in frames(), position: prop::sample::Index) {
            let bytes = written(&frame);
            let length = number_u32(&bytes[8..12]) as usize;
            let mut torn = bytes[..position.index(length)].to_vec();
            prop_assert_eq!(read(&torn, frame.stamp.store), None);
            // Blocks that were never written are zeros.
            torn.resize(bytes.len(), 0);
            let whole = torn == bytes;
            prop_assert_eq!(read(&torn, frame.stamp.store).is_some(), whole);
        }

        #[test]
        fn another_store_has_no_use_for_a_frame(frame in frames(), other: u64) {
            prop_assume!(other != frame.stamp.store);
            prop_assert_eq!(read(&written(&frame), other), None);
        }

        #[test]
        fn any_bytes_can_be_read(mut bytes: Vec<u8>, store: u64) {
            let header = [MAGIC.as_slice(), &[0; 4]].concat();
            read(&bytes, store);
            bytes.splice(..0, header);
            read(&bytes, store);
        }
    }
}
