//! Container logs: the format runtimes write, and reading them the way `kubectl logs` asks.
//!
//! A line is `<time> <stream> <tag> <text>`; tag `P` means that the text goes on in the next line of that stream.
//! Parsing is pure; [`follow`] reads files and must hold only one chunk of them at a time.

pub mod rotate;

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

/// Longest physical line we take in; runtimes split at 16 KiB.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Most lines of a tail that are kept in memory while looking for it.
const TAIL_LINES_MAX: usize = 1_000_000;
const POLL: Duration = Duration::from_millis(100);

/// One physical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339 with nanoseconds.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// With its newline, unless the text goes on.
    pub text: String,
}

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Go on with what is written later, until the container ends.
    pub follow: bool,
    /// Last lines only.
    pub tail: Option<usize>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Times in front of lines.
    pub timestamps: bool,
    /// Bytes at most.
    pub limit_bytes: Option<usize>,
    /// `Stdout` or `Stderr` only.
    pub stream: Option<String>,
}

/// One line, `None` when it is not in the format.
pub fn parse(line: &str) -> Option<Line<'_>> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let mut parts = line.splitn(4, ' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let text = parts.next().unwrap_or_default();
    if !matches!(stream, "stdout" | "stderr") || time.is_empty() {
        return None;
    }
    let partial = tag.split(':').next() == Some("P");
    let text = if partial { text.to_string() } else { format!("{text}\n") };
    Some(Line { time, stream, text })
}

/// All well-formed lines of a text.
pub fn lines(text: &str) -> Vec<Line<'_>> {
    text.lines().filter_map(parse).collect()
}

/// Renders lines one after the other, within the options.
struct Renderer {
    options: Options,
    left: Option<usize>,
    open: bool,
}

impl Renderer {
    fn new(options: Options) -> Self {
        Self { left: options.limit_bytes, options, open: false }
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    fn wants(&self, line: &Line<'_>) -> bool {
        let stream = self.options.stream.as_deref().unwrap_or("All");
        let fits = stream == "All" || stream.eq_ignore_ascii_case(line.stream);
        let recent =
            self.options.since.is_none_or(|since| line.time.parse::<Timestamp>().is_ok_and(|t| t >= since));
        fits && recent
    }

    fn render(&mut self, line: &Line<'_>) -> Option<Bytes> {
        if !self.wants(line) || self.is_full() {
            return None;
        }
        let mut out = String::new();
        if self.options.timestamps && !self.open {
            out.push_str(line.time);
            out.push(' ');
        }
        self.open = !line.text.ends_with('\n');
        out.push_str(&line.text);
        let mut bytes = out.into_bytes();
        if let Some(left) = &mut self.left {
            bytes.truncate(*left);
            *left -= bytes.len();
        }
        Some(Bytes::from(bytes))
    }
}

/// Sends the log to `out`. `ended` tells whether the container is over, so that following can end.
///
/// # Errors
/// When the log cannot be opened; nothing has been sent then.
pub async fn follow<F, Fut>(
    path: PathBuf,
    options: Options,
    out: mpsc::Sender<Bytes>,
    ended: F,
) -> io::Result<()>
where
    F: Fn() -> Fut + Send,
    Fut: Future<Output = bool> + Send,
{
    let mut file = File::open(&path).await?;
    let start = match options.tail {
        Some(tail) => tail_offset(&mut file, tail, &Renderer::new(options.clone())).await?,
        None => 0,
    };
    file.seek(io::SeekFrom::Start(start)).await?;
    let mut inode = file.metadata().await?.ino();
    let mut reader = BufReader::new(file);
    let mut renderer = Renderer::new(options.clone());
    let mut pending = Vec::new();
    let mut last_round = false;
    loop {
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut pending).await?;
        let whole = pending.ends_with(b"\n") || pending.len() as u64 >= LINE_BYTES_MAX;
        if read > 0 && whole {
            let text = String::from_utf8_lossy(&pending).into_owned();
            if let Some(bytes) = parse(&text).and_then(|line| renderer.render(&line))
                && out.send(bytes).await.is_err()
            {
                return Ok(());
            }
            pending.clear();
            if renderer.is_full() {
                return Ok(());
            }
            continue;
        }
        if read > 0 {
            continue;
        }
        if !options.follow || last_round || out.is_closed() {
            return Ok(());
        }
        // At the end of the file: it may have been rotated away, the container may be over.
        if let Ok(meta) = tokio::fs::metadata(&path).await
            && meta.ino() != inode
            && let Ok(file) = File::open(&path).await
        {
            inode = meta.ino();
            reader = BufReader::new(file);
            pending.clear();
            continue;
        }
        last_round = ended().await;
        if !last_round {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Where the last `tail` wanted lines begin.
async fn tail_offset(file: &mut File, tail: usize, wanted: &Renderer) -> io::Result<u64> {
    if tail == 0 {
        return file.seek(io::SeekFrom::End(0)).await;
    }
    let tail = tail.min(TAIL_LINES_MAX);
    let mut reader = BufReader::new(file);
    let mut starts: VecDeque<u64> = VecDeque::new();
    let (mut at, mut line, mut open) = (0_u64, Vec::new(), false);
    loop {
        line.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(starts.front().copied().unwrap_or(at));
        }
        let text = String::from_utf8_lossy(&line);
        if let Some(parsed) = parse(&text).filter(|l| wanted.wants(l)) {
            if !open {
                starts.push_back(at);
                if starts.len() > tail {
                    starts.pop_front();
                }
            }
            open = !parsed.text.ends_with('\n');
        }
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01.5Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n\
                       2026-01-01T00:00:02Z stderr F o\nnot a line\n2026-01-01T00:00:03Z stdout F three\n";

    async fn shown(options: Options) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (sender, mut lines) = mpsc::channel(64);
        follow(path, options, sender, || async { true }).await.unwrap();
        let mut out = Vec::new();
        while let Some(bytes) = lines.recv().await {
            out.extend(bytes);
        }
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn partial_lines_are_joined_and_others_skipped() {
        assert_eq!(shown(Options::default()).await, "one\ntwo\nthree\n");
    }

    #[tokio::test]
    async fn a_tail_counts_whole_lines() {
        assert_eq!(shown(Options { tail: Some(2), ..Default::default() }).await, "two\nthree\n");
        assert_eq!(shown(Options { tail: Some(0), ..Default::default() }).await, "");
    }

    #[tokio::test]
    async fn times_limits_and_streams_are_respected() {
        let timed = shown(Options { timestamps: true, tail: Some(1), ..Default::default() }).await;
        assert_eq!(timed, "2026-01-01T00:00:03Z three\n");
        assert_eq!(shown(Options { limit_bytes: Some(5), ..Default::default() }).await, "one\nt");
        assert_eq!(shown(Options { stream: Some("Stderr".into()), ..Default::default() }).await, "two\n");
        let since = Some("2026-01-01T00:00:02.5Z".parse().unwrap());
        assert_eq!(shown(Options { since, ..Default::default() }).await, "three\n");
    }
}
