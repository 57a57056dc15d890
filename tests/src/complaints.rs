//! What a cluster's own programs complained of while something went on, for whoever reads why a scenario failed.
//!
//! It exists because their logs go with the cluster. It must not decide whether anything failed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Lines told of one log; those before them are counted.
const LINES_MAX: usize = 30;
/// What is read of one log, from its end.
const BYTES_MAX: u64 = 4 << 20;

/// How long each log was at some moment.
pub struct Mark {
    folder: PathBuf,
    lengths: BTreeMap<PathBuf, u64>,
}

// === impl Mark ===

impl Mark {
    /// Of the logs in a folder as they are now.
    pub fn now(folder: &Path) -> Mark {
        let length = |path: PathBuf| std::fs::metadata(&path).ok().map(|it| (path, it.len()));
        Mark { folder: folder.to_owned(), lengths: logs(folder).into_iter().filter_map(length).collect() }
    }

    /// Warnings, errors and starts since then, a log after the other.
    pub fn complaints(&self) -> String {
        let mut said = String::new();
        for path in logs(&self.folder) {
            let text = since(&path, self.lengths.get(&path).copied().unwrap_or(0)).unwrap_or_default();
            let plain = without_colours(&text);
            let lines: Vec<&str> = plain.lines().filter(|line| is_complaint(line)).collect();
            if lines.is_empty() {
                continue;
            }
            let left_out = lines.len().saturating_sub(LINES_MAX);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            said.push_str(&format!("-- {name}, {left_out} lines left out\n"));
            for line in &lines[left_out..] {
                said.push_str(line);
                said.push('\n');
            }
        }
        said
    }
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut logs: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    logs.sort();
    logs
}

fn since(path: &Path, length: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.min(end).max(end.saturating_sub(BYTES_MAX))))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Starts are among them: who starts has ended before.
fn is_complaint(line: &str) -> bool {
    [" WARN ", " ERROR ", "panicked", "level=error", "level=fatal", " runs "]
        .iter()
        .any(|it| line.contains(it))
}

/// A text without the escape sequences of terminals.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_complained_of_since_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("agent.log");
        std::fs::write(&log, "before\u{1b}[33m WARN\u{1b}[0m old\n").unwrap();
        let mark = Mark::now(folder.path());
        assert_eq!(mark.complaints(), "");
        let more = "before\u{1b}[33m WARN\u{1b}[0m old\n1 \u{1b}[32m INFO\u{1b}[0m fine\n2\u{1b}[33m WARN\u{1b}[0m late\n";
        std::fs::write(&log, more).unwrap();
        assert_eq!(mark.complaints(), "-- agent.log, 0 lines left out\n2 WARN late\n");
    }

    #[test]
    fn of_many_the_last_are_told_and_the_others_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::now(folder.path());
        let lines: String = (0..LINES_MAX + 5).map(|i| format!("{i} ERROR x\n")).collect();
        std::fs::write(folder.path().join("a.log"), lines).unwrap();
        let told = mark.complaints();
        assert!(told.starts_with("-- a.log, 5 lines left out\n5 ERROR x\n"), "{told}");
        assert_eq!(told.lines().count(), 1 + LINES_MAX);
    }
}
