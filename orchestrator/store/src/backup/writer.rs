//! Writes a backup: records go in, sections come out.

use std::io::Write;

use super::format::{self, MAGIC, SECTION_BYTES, Section};
use super::{BackupError, Entry, Header, Progress, Summary};

/// A backup being written. What is not finished is not whole, and a reader sees that.
pub struct Writer<W: Write> {
    out: W,
    header: Header,
    /// Records of the section that is not written yet.
    pending: Vec<u8>,
    total: Progress,
    checksum: u32,
}

// === impl Writer ===

impl<W: Write> Writer<W> {
    /// Begins a backup.
    pub fn new(out: W, header: Header) -> Result<Self, BackupError> {
        let mut writer = Self { out, header, pending: Vec::new(), total: Progress::default(), checksum: 0 };
        writer.out.write_all(MAGIC).map_err(BackupError::written)?;
        writer.section(Section::Header, &format::encode_header(&header))?;
        Ok(writer)
    }

    /// Adds a record.
    pub fn put(&mut self, entry: &Entry) -> Result<(), BackupError> {
        format::encode_entry(&mut self.pending, entry);
        self.total.add(entry);
        if self.pending.len() >= SECTION_BYTES {
            self.flush_records()?;
        }
        Ok(())
    }

    /// How much has been added.
    pub fn progress(&self) -> Progress {
        self.total
    }

    /// Ends the backup, and gives back what it was written to.
    pub fn finish(mut self) -> Result<(Summary, W), BackupError> {
        self.flush_records()?;
        self.section(Section::End, &format::encode_end(&self.total))?;
        self.out.flush().map_err(BackupError::written)?;
        Ok((Summary { header: self.header, total: self.total, checksum: self.checksum }, self.out))
    }

    fn flush_records(&mut self) -> Result<(), BackupError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut self.pending);
        self.section(Section::Records, &records)?;
        // The memory is used again.
        self.pending = records;
        self.pending.clear();
        Ok(())
    }

    fn section(&mut self, kind: Section, content: &[u8]) -> Result<(), BackupError> {
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let mut head = vec![kind as u8];
        head.extend_from_slice(&length.to_le_bytes());
        self.checksum = format::chained(self.checksum, &head, content);
        for part in [&head, content, &self.checksum.to_le_bytes()] {
            self.out.write_all(part).map_err(BackupError::written)?;
        }
        Ok(())
    }
}
