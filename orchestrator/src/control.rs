//! The control socket: how `orchestrator backup` and `check` reach the store of a control plane that runs.
//!
//! A socket in the data directory, which only its owner can enter: it needs neither the API nor its rights, so it
//! answers also when the API server is overloaded or nobody has credentials. One line asks, one line answers, and what
//! was asked for follows.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock_store::embedded::Embedded;
use tokio_util::sync::CancellationToken;

use crate::store_check::{self, Outcome};

/// Whoever asks must do so within this time, and may not stop reading for longer than that.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const ASK_BYTES_MAX: u64 = 64;
const ANSWER_BYTES_MAX: u64 = 4096;
const OK: &str = "ok";

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A backup, as `penstock_store::backup` writes it.
    Backup,
    /// A check of every row: its outcome as text.
    Check,
}

const ASKS: [(Ask, &str); 2] = [(Ask::Backup, "backup"), (Ask::Check, "check")];

/// Why a running control plane gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the control plane that runs does not answer on {path}")]
    Silent {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the control plane refused: {reason}")]
    Refused { reason: String },
}

/// Listens until stopped, and answers one asker at a time: each reads the whole store.
pub async fn serve(path: &Path, store: Arc<Embedded>, stop: CancellationToken) -> io::Result<()> {
    // A socket that a killed process left behind; the data directory is ours, so nobody listens on it.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted.and_then(|(stream, _)| stream.into_std()),
        };
        match stream {
            Ok(stream) => {
                if let Err(error) = answer(stream, &store).await {
                    tracing::warn!(%error, "a request on the control socket was not answered to its end");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    std::fs::remove_file(path)
}

async fn answer(stream: UnixStream, store: &Arc<Embedded>) -> io::Result<()> {
    let (mut stream, asked) = tokio::task::spawn_blocking(move || read_ask(stream)).await??;
    match asked {
        None => stream.write_all(b"there is no such request\n"),
        Some(Ask::Backup) => {
            stream.write_all(format!("{OK}\n").as_bytes())?;
            let out = io::BufWriter::with_capacity(1 << 16, stream);
            let (summary, _) = store.backup(out, |_| {}).await.map_err(io::Error::other)?;
            let records = summary.total.records;
            tracing::info!(records, revision = %summary.header.revision, "the store was backed up");
            Ok(())
        }
        Some(Ask::Check) => {
            let answer = match store.check_rows().await {
                Ok(checked) => {
                    let Outcome { whole, text } = store_check::render(&checked);
                    let word = if whole { "whole" } else { "damaged" };
                    format!("{OK}\n{word}\n{text}")
                }
                Err(error) => format!("{error}\n"),
            };
            tokio::task::spawn_blocking(move || stream.write_all(answer.as_bytes())).await?
        }
    }
}

fn read_ask(stream: UnixStream) -> io::Result<(UnixStream, Option<Ask>)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ASK_TIMEOUT))?;
    stream.set_write_timeout(Some(STALL_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(&stream).take(ASK_BYTES_MAX).read_line(&mut line)?;
    let asked = ASKS.into_iter().find(|(_, word)| *word == line.trim_end()).map(|(ask, _)| ask);
    Ok((stream, asked))
}

/// Asks the control plane that has the data directory. None when none runs; otherwise what it answers can be read.
pub fn ask(path: &Path, ask: Ask) -> Result<Option<BufReader<UnixStream>>, ControlError> {
    let silent = |source| ControlError::Silent { path: path.display().to_string(), source };
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        // Never there, or left behind.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(silent(error)),
    };
    let word = ASKS.into_iter().find(|(it, _)| *it == ask).map_or("", |(_, word)| word);
    stream.write_all(format!("{word}\n").as_bytes()).map_err(silent)?;
    let mut answer = BufReader::with_capacity(1 << 16, stream);
    let mut line = String::new();
    answer.by_ref().take(ANSWER_BYTES_MAX).read_line(&mut line).map_err(silent)?;
    match line.trim_end() {
        OK => Ok(Some(answer)),
        reason => Err(ControlError::Refused { reason: reason.to_owned() }),
    }
}
