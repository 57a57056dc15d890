//! The form of a backup, in bytes. Numbers are little endian.
//!
//! | part    | bytes                                                                                       |
//! |---------|---------------------------------------------------------------------------------------------|
//! | magic   | `penstock backup\n`                                                                           |
//! | section | kind (1), length of the content (4), content, crc (4)                                       |
//! | header  | kind 1: format (4), revision (8), taken in Unix seconds (8), source (1)                     |
//! | records | kind 2, any number: length of key (4) and value (4), created (8), modified (8), expires in Unix seconds or all ones (8), key, value |
//! | end     | kind 3: records (8), bytes of values (8); nothing follows                                   |
//!
//! The crc of a section goes on from the one before it, so the last one is of everything, and a section that is
//! missing, doubled or out of place is noticed.

use bytes::Bytes;

use super::{Entry, Header, Progress, Source};
use crate::{KEY_BYTES_MAX, Record, Revision, VALUE_BYTES_MAX};

pub(super) const MAGIC: &[u8; 16] = b"penstock backup\n";
pub(super) const FORMAT: u32 = 1;
pub(super) const SECTION_HEAD_BYTES: usize = 1 + 4;
pub(super) const CRC_BYTES: usize = 4;
/// A section of records is closed when it has so many bytes.
pub(super) const SECTION_BYTES: usize = 256 << 10;
const ENTRY_HEAD_BYTES: usize = 4 + 4 + 8 + 8 + 8;
/// No section is longer: one that says so is damaged. Values may be somewhat larger than the store takes today.
pub(super) const SECTION_BYTES_MAX: usize =
    SECTION_BYTES + ENTRY_HEAD_BYTES + KEY_BYTES_MAX + 4 * VALUE_BYTES_MAX;
const NEVER: u64 = u64::MAX;

/// The kind of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Section {
    Header = 1,
    Records = 2,
    End = 3,
}

// === impl Section ===

impl Section {
    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::Header, Self::Records, Self::End].into_iter().find(|kind| *kind as u8 == byte)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Records => "records",
            Self::End => "end",
        }
    }
}

/// The checksum of a section, going on from the one before.
pub(super) fn chained(before: u32, head: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(head);
    hasher.update(content);
    hasher.finalize()
}

pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let mut out = FORMAT.to_le_bytes().to_vec();
    out.extend_from_slice(&header.revision.0.to_le_bytes());
    out.extend_from_slice(&header.taken_unix_seconds.to_le_bytes());
    out.push(match header.source {
        Source::Embedded => 1,
        Source::Etcd => 2,
    });
    out
}

/// The format, and the header if it is of the one known.
pub(super) fn decode_header(mut content: &[u8]) -> Option<(u32, Option<Header>)> {
    let format = u32::from_le_bytes(*take(&mut content)?);
    if format != FORMAT {
        return Some((format, None));
    }
    let revision = Revision(u64::from_le_bytes(*take(&mut content)?));
    let taken_unix_seconds = u64::from_le_bytes(*take(&mut content)?);
    let source = match content {
        [1] => Source::Embedded,
        [2] => Source::Etcd,
        _ => return None,
    };
    Some((format, Some(Header { revision, taken_unix_seconds, source })))
}

pub(super) fn encode_entry(out: &mut Vec<u8>, entry: &Entry) {
    let Record { key, value, created, modified } = &entry.record;
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(&length(key.len()));
    out.extend_from_slice(&length(value.len()));
    for number in [created.0, modified.0, entry.expires_unix_seconds.unwrap_or(NEVER)] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value);
}

/// The entry at the front of the content, which is moved behind it. None of what is no entry.
pub(super) fn decode_entry(content: &mut Bytes) -> Option<Entry> {
    let mut rest = &content[..];
    let key_bytes = u32::from_le_bytes(*take(&mut rest)?) as usize;
    let value_bytes = u32::from_le_bytes(*take(&mut rest)?) as usize;
    let created = u64::from_le_bytes(*take(&mut rest)?);
    let modified = u64::from_le_bytes(*take(&mut rest)?);
    let expires = u64::from_le_bytes(*take(&mut rest)?);
    if rest.len() < key_bytes.checked_add(value_bytes)? {
        return None;
    }
    let key = str::from_utf8(&rest[..key_bytes]).ok()?.to_owned();
    // Each value gets memory of its own: one that is kept would keep its whole section otherwise.
    let value = Bytes::copy_from_slice(&rest[key_bytes..key_bytes + value_bytes]);
    drop(content.split_to(ENTRY_HEAD_BYTES + key_bytes + value_bytes));
    let record = Record { key, value, created: Revision(created), modified: Revision(modified) };
    Some(Entry { record, expires_unix_seconds: (expires != NEVER).then_some(expires) })
}

pub(super) fn encode_end(total: &Progress) -> Vec<u8> {
    [total.records.to_le_bytes(), total.value_bytes.to_le_bytes()].concat()
}

pub(super) fn decode_end(mut content: &[u8]) -> Option<Progress> {
    let records = u64::from_le_bytes(*take(&mut content)?);
    let value_bytes = u64::from_le_bytes(*take(&mut content)?);
    content.is_empty().then_some(Progress { records, value_bytes })
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(first)
}
