//! The programs' own words on dropped packets, as they happen.
//!
//! The programs always count; they tell only when asked at load time, since telling costs at every drop. What they tell
//! arrives through aya-log's ring buffer as log records of the target [`TARGET`]; a reason is a number there and gets its
//! name here.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use penstock_ebpf_common::Reason;

use crate::DataplaneError;

/// Target of the records.
pub const TARGET: &str = "penstock::drops";
/// What precedes the number of the reason in a record of the programs.
const REASON: &str = " reason ";

/// Reads what the programs tell. Readable (as a file descriptor) when there is something to [`flush`](DropLog::flush).
pub struct DropLog {
    logger: EbpfLogger<Named>,
    told: Arc<AtomicU64>,
}

/// Hands records on with the reason's name, and counts them.
struct Named(Arc<AtomicU64>);

/// The level the programs are loaded with: nothing, or everything up to a drop.
pub(crate) fn level(tell_drops: bool) -> u8 {
    if tell_drops { Level::Debug as u8 } else { 0 }
}

// === impl DropLog ===

impl DropLog {
    pub(crate) fn open(programs: &mut Ebpf) -> Result<Self, DataplaneError> {
        let told = Arc::new(AtomicU64::new(0));
        let logger = EbpfLogger::init_with_logger(programs, Named(Arc::clone(&told)))
            .map_err(|error| DataplaneError::DropLog { reason: error.to_string() })?;
        Ok(Self { logger, told })
    }

    /// Logs everything told since the last call and returns how much that was.
    pub fn flush(&mut self) -> u64 {
        let before = self.told.load(Ordering::Relaxed);
        self.logger.flush();
        self.told.load(Ordering::Relaxed) - before
    }
}

impl AsRawFd for DropLog {
    fn as_raw_fd(&self) -> RawFd {
        self.logger.as_fd().as_raw_fd()
    }
}

// === impl Named ===

impl Log for Named {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        tracing::info!(target: TARGET, "{}", with_name(&record.args().to_string()));
    }

    fn flush(&self) {}
}

/// `... reason 0` becomes `... reason no_backend`; anything else stays as it is.
fn with_name(told: &str) -> String {
    let named = told.rsplit_once(REASON).and_then(|(before, number)| {
        let reason = Reason::ALL.get(number.parse::<usize>().ok()?)?;
        Some(format!("{before}{REASON}{}", reason.name()))
    });
    named.unwrap_or_else(|| told.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_by_name_and_an_unknown_one_by_number() {
        assert_eq!(with_name("dropped a -> b reason 0"), "dropped a -> b reason no_backend");
        assert_eq!(with_name("dropped a -> b reason 99"), "dropped a -> b reason 99");
        assert_eq!(with_name("something else"), "something else");
    }

    #[test]
    fn nothing_is_told_unless_asked_for() {
        assert_eq!(level(false), 0);
        assert!(level(true) >= Level::Debug as u8);
    }
}
