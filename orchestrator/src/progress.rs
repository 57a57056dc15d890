//! How far a backup, a restore or a check has come, for whoever waits for it.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use penstock_store::backup::{Progress, Summary};

/// A terminal's line is written anew so often; into a file goes a line of its own, less often.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows progress on standard error.
pub struct Shown {
    verb: &'static str,
    terminal: bool,
    next: Instant,
    written: bool,
}

// === impl Shown ===

impl Shown {
    /// `verb` is what happens to records: "written", "read".
    pub fn new(verb: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { verb, terminal, next: Instant::now() + interval(terminal), written: false }
    }

    pub fn show(&mut self, at: Progress) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + interval(self.terminal);
        self.written = true;
        let line = format!("{} {}, {}", at.records, self.verb, megabytes(at.value_bytes));
        // Progress that cannot be shown is no reason to stop.
        let _ = if self.terminal {
            write!(std::io::stderr(), "\r\x1b[K{line}")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }

    /// Leaves the line.
    pub fn end(&mut self) {
        if self.terminal && self.written {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn interval(terminal: bool) -> Duration {
    if terminal { TERMINAL_INTERVAL } else { LINE_INTERVAL }
}

/// A backup in words.
pub fn describe(summary: &Summary) -> String {
    let taken = i64::try_from(summary.header.taken_unix_seconds).unwrap_or(i64::MAX);
    let taken =
        jiff::Timestamp::from_second(taken).map_or("at an unknown time".to_owned(), |at| at.to_string());
    format!(
        "{} objects ({}) of revision {}, taken from {} {taken}, checksum {:08x}",
        summary.total.records,
        megabytes(summary.total.value_bytes),
        summary.header.revision,
        summary.header.source,
        summary.checksum
    )
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
