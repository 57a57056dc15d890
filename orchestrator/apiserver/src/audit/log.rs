//! Where events are kept: a file of a JSON object a line, turned over when it is full; or standard output.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::AuditError;

/// Events that wait to be written; more make requests wait.
const WAITING_MAX: usize = 10_000;
const MIB: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `-` is standard output.
    pub path: PathBuf,
    /// A file that grew so large is put aside. 0: never.
    pub size_max_mib: u64,
    /// How many that were put aside are kept. 0: all.
    pub kept_max: usize,
    /// How long. 0: for ever.
    pub days_max: u32,
}

/// Takes events; a thread writes them in order.
pub struct Log {
    events: mpsc::Sender<Vec<u8>>,
}

impl Log {
    /// Opens (and makes) the file, for its owner alone: events tell who did what.
    pub fn open(config: &LogConfig) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Log { path: config.path.clone(), source };
        let mut writer = Writer::open(config.clone()).map_err(failed)?;
        let (events, mut waiting) = mpsc::channel::<Vec<u8>>(WAITING_MAX);
        let thread = std::thread::Builder::new().name("audit".into());
        let write = move || {
            while let Some(event) = waiting.blocking_recv() {
                let mut outcome = writer.write(&event);
                while let Ok(event) = waiting.try_recv() {
                    outcome = outcome.and_then(|()| writer.write(&event));
                }
                if let Err(error) = outcome.and_then(|()| writer.flush()) {
                    tracing::error!(path = %writer.config.path.display(), %error, "audit events were not written");
                }
            }
        };
        thread.spawn(write).map_err(failed)?;
        Ok(Self { events })
    }

    /// Hands an event over; waits while too many wait already.
    pub async fn put(&self, event: Vec<u8>) {
        // The thread ends after the last sender.
        let _ = self.events.send(event).await;
    }

    /// As [`Log::put`], for where nothing can be awaited; an event that finds no place is handed over by a task.
    pub fn put_later(&self, event: Vec<u8>) {
        if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
            let events = self.events.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { events.send(event).await });
            }
        }
    }
}

struct Writer {
    config: LogConfig,
    to: BufWriter<Box<dyn Write + Send>>,
    written: u64,
}

impl Writer {
    fn open(config: LogConfig) -> std::io::Result<Self> {
        if config.path == Path::new("-") {
            let to: Box<dyn Write + Send> = Box::new(std::io::stdout());
            return Ok(Self { config, to: BufWriter::new(to), written: 0 });
        }
        if let Some(folder) = config.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = append_to(&config.path)?;
        let written = file.metadata()?.len();
        Ok(Self { config, to: BufWriter::new(Box::new(file)), written })
    }

    fn write(&mut self, event: &[u8]) -> std::io::Result<()> {
        let limit = self.config.size_max_mib * MIB;
        let size = event.len() as u64 + 1;
        if self.config.path != Path::new("-") && limit > 0 && self.written > 0 && self.written + size > limit
        {
            self.turn_over()?;
        }
        self.to.write_all(event)?;
        self.to.write_all(b"\n")?;
        self.written += size;
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }

    /// Puts the file aside under the time, and removes what is too old or too many.
    fn turn_over(&mut self) -> std::io::Result<()> {
        self.to.flush()?;
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%f").to_string();
        std::fs::rename(&self.config.path, aside(&self.config.path, &time))?;
        self.to = BufWriter::new(Box::new(append_to(&self.config.path)?));
        self.written = 0;
        for file in surplus(&self.config, SystemTime::now())? {
            std::fs::remove_file(file)?;
        }
        Ok(())
    }
}

fn append_to(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// `audit.log` of a time is `audit-TIME.log`.
fn aside(path: &Path, time: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let end = path.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{time}{end}"))
}

/// What was put aside and is to go.
fn surplus(config: &LogConfig, now: SystemTime) -> std::io::Result<Vec<PathBuf>> {
    let stem = format!("{}-", config.path.file_stem().unwrap_or_default().to_string_lossy());
    let folder = config.path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&stem));
        if named && path.extension() == config.path.extension() {
            files.push(path);
        }
    }
    // The newest first: their names are times.
    files.sort();
    files.reverse();
    let is_old = |path: &Path| {
        let age =
            path.metadata().and_then(|it| it.modified()).ok().and_then(|at| now.duration_since(at).ok());
        config.days_max > 0 && age.is_some_and(|age| age > DAY * config.days_max)
    };
    let kept = if config.kept_max == 0 { usize::MAX } else { config.kept_max };
    Ok(files
        .into_iter()
        .enumerate()
        .filter(|(n, path)| *n >= kept || is_old(path))
        .map(|(_, path)| path)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_put_aside_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let config = LogConfig { path: path.clone(), size_max_mib: 1, kept_max: 2, days_max: 1 };
        let mut writer = Writer::open(config).unwrap();
        let event = vec![b'x'; 700 * 1024];
        for _ in 0..5 {
            writer.write(&event).unwrap();
        }
        writer.flush().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].starts_with("audit-20") && names[2] == "audit.log", "{names:?}");
        assert_eq!(path.metadata().unwrap().len(), 700 * 1024 + 1);
    }

    #[test]
    fn a_log_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/audit.log");
        let config = LogConfig { path: path.clone(), size_max_mib: 0, kept_max: 0, days_max: 0 };
        for text in ["a", "b"] {
            let mut writer = Writer::open(config.clone()).unwrap();
            writer.write(text.as_bytes()).unwrap();
            writer.flush().unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
