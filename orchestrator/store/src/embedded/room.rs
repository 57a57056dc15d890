//! Whether the file may grow further. One that is too large for its quota takes deletions only.

use std::path::Path;
use std::time::{Duration, Instant};

use redb::WriteTransaction;

use super::layout::failed;
use crate::StoreError;

/// Counting pages takes time, so it is done for this part of the time at most.
const COUNTING_PART: u32 = 20;
const COUNTING_WAIT_MIN: Duration = Duration::from_millis(100);
const MIB: u64 = 1 << 20;

/// The quota, and what was last known of its use.
pub(super) struct Room {
    bytes_max: u64,
    /// Bytes in use, and until when that is taken to be so.
    counted: Option<(u64, Instant)>,
}

// === impl Room ===

impl Room {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, counted: None }
    }

    /// Why nothing may be put, if so. A file within its quota costs one system call; of a larger one the pages in use
    /// are counted, since those that became free are used again.
    pub(super) fn refusal(
        &mut self,
        file: &Path,
        transaction: &WriteTransaction,
    ) -> Result<Option<StoreError>, StoreError> {
        let file_bytes = std::fs::metadata(file).map_or(0, |it| it.len());
        if file_bytes <= self.bytes_max {
            self.counted = None;
            return Ok(None);
        }
        let began = Instant::now();
        let used = match self.counted {
            Some((used, until)) if began < until => used,
            _ => {
                let stats = transaction.stats().map_err(failed)?;
                let used = stats.allocated_pages() * stats.page_size() as u64;
                let wait = (began.elapsed() * COUNTING_PART).max(COUNTING_WAIT_MIN);
                self.counted = Some((used, began + wait));
                used
            }
        };
        Ok((used > self.bytes_max).then(|| StoreError::Full {
            detail: format!(
                "{} MiB are used of {} MiB; delete objects (their room is free again when history is forgotten, after \
                 some minutes), or raise --store-quota",
                used / MIB,
                self.bytes_max / MIB
            ),
        }))
    }
}
