//! Reads a backup: sections come in, checked, and records go out.

use std::io::{self, Read};

use bytes::Bytes;

use super::format::{self, CRC_BYTES, MAGIC, SECTION_BYTES_MAX, SECTION_HEAD_BYTES, Section};
use super::{BackupError, Entry, Header, Progress, Report, Summary};

/// A backup being read. Nothing of a section is given out before its checksum was compared.
pub struct Reader<R: Read> {
    from: R,
    header: Header,
    /// What is left of the section at hand.
    records: Bytes,
    seen: Progress,
    checksum: u32,
    /// Bytes read so far.
    offset: u64,
    summary: Option<Summary>,
}

/// Reads a backup to its end and says what is in it.
pub fn verify(from: impl Read, report: Report<'_>) -> Result<Summary, BackupError> {
    let mut reader = Reader::new(from)?;
    while reader.next()?.is_some() {
        if reader.seen.is_worth_a_report() {
            report(reader.seen);
        }
    }
    reader.summary()
}

// === impl Reader ===

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn new(mut from: R) -> Result<Self, BackupError> {
        let mut magic = [0; MAGIC.len()];
        fill(&mut from, &mut magic, &mut 0).map_err(|error| match error {
            BackupError::Truncated { .. } => BackupError::NotABackup,
            error => error,
        })?;
        if &magic != MAGIC {
            return Err(BackupError::NotABackup);
        }
        let (mut checksum, mut offset) = (0, MAGIC.len() as u64);
        let damaged = BackupError::Damaged { section: Section::Header.name(), offset };
        let (kind, content) = section(&mut from, &mut checksum, &mut offset, Section::Header)?;
        if kind != Section::Header {
            return Err(damaged);
        }
        match format::decode_header(&content) {
            None => Err(damaged),
            Some((found, None)) => Err(BackupError::UnknownFormat { found, known: format::FORMAT }),
            Some((_, Some(header))) => Ok(Self {
                from,
                header,
                records: Bytes::new(),
                seen: Progress::default(),
                checksum,
                offset,
                summary: None,
            }),
        }
    }

    /// What the backup says of itself.
    pub fn header(&self) -> Header {
        self.header
    }

    /// How much has been given out.
    pub fn progress(&self) -> Progress {
        self.seen
    }

    /// The next record; none at the end, which was checked then.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Entry>, BackupError> {
        loop {
            if self.summary.is_some() {
                return Ok(None);
            }
            if !self.records.is_empty() {
                let damaged = BackupError::Damaged { section: Section::Records.name(), offset: self.offset };
                let entry = format::decode_entry(&mut self.records).ok_or(damaged)?;
                self.seen.add(&entry);
                return Ok(Some(entry));
            }
            let begins = self.offset;
            let (kind, content) =
                section(&mut self.from, &mut self.checksum, &mut self.offset, Section::Records)?;
            match kind {
                Section::Records => self.records = content,
                Section::End if format::decode_end(&content) == Some(self.seen) => self.end()?,
                Section::Header | Section::End => {
                    return Err(BackupError::Damaged { section: kind.name(), offset: begins });
                }
            }
        }
    }

    /// The whole backup in numbers, once it was read to its end.
    pub fn summary(&self) -> Result<Summary, BackupError> {
        self.summary.ok_or(BackupError::Truncated { offset: self.offset })
    }

    fn end(&mut self) -> Result<(), BackupError> {
        match self.from.read(&mut [0]).map_err(BackupError::read)? {
            0 => {
                self.summary =
                    Some(Summary { header: self.header, total: self.seen, checksum: self.checksum });
                Ok(())
            }
            _ => Err(BackupError::Trailing { offset: self.offset }),
        }
    }
}

/// Reads a section whose checksum agrees. `expected` is what it is called as long as its kind cannot be trusted.
fn section(
    from: &mut impl Read,
    checksum: &mut u32,
    offset: &mut u64,
    expected: Section,
) -> Result<(Section, Bytes), BackupError> {
    let begins = *offset;
    let mut head = [0; SECTION_HEAD_BYTES];
    fill(from, &mut head, offset)?;
    let named = Section::of(head[0]);
    let damaged = || BackupError::Damaged { section: named.unwrap_or(expected).name(), offset: begins };
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let kind = named.ok_or_else(damaged)?;
    if length > SECTION_BYTES_MAX {
        return Err(damaged());
    }
    let mut content = vec![0; length];
    fill(from, &mut content, offset)?;
    let mut crc = [0; CRC_BYTES];
    fill(from, &mut crc, offset)?;
    *checksum = format::chained(*checksum, &head, &content);
    if crc != checksum.to_le_bytes() {
        return Err(damaged());
    }
    Ok((kind, Bytes::from(content)))
}

fn fill(from: &mut impl Read, into: &mut [u8], offset: &mut u64) -> Result<(), BackupError> {
    from.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Truncated { offset: *offset },
        _ => BackupError::read(error),
    })?;
    *offset += into.len() as u64;
    Ok(())
}
