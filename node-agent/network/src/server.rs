//! The socket the CNI plugin calls: one request and one answer a connection.
//!
//! It exists to bound what strangers can cost (connections, bytes, time) before a request reaches the network. It
//! must not know what a verb does.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock_cni::protocol::{LINE_BYTES_MAX, Refusal, Request, Response, Why};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::network::Network;

/// Requests served at once. Further ones wait in the listen queue; a node has 110 pods.
pub const CONNECTIONS_MAX: usize = 256;
/// How long a plugin may take to say what it wants.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long requests in progress may still take when the agent is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Listens at `path`, in place of an agent that died there. Only root may connect.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // Bound beside and renamed: there is no moment at which the path does not exist or is open to others.
    let draft = path.with_extension("draft");
    for stale in [&draft] {
        match fs::remove_file(stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
    fs::rename(&draft, path)?;
    Ok(listener)
}

/// Serves until `shutdown`, then lets requests in progress end.
pub(crate) async fn serve(network: Arc<Network>, listener: UnixListener, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let tasks = TaskTracker::new();
    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let network = network.clone();
                tasks.spawn(async move {
                    if let Err(error) = answer_one(&network, stream).await {
                        tracing::warn!(%error, "a CNI request was not answered");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "the CNI socket cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    let _ = tokio::time::timeout(STOP_WITHIN, tasks.wait()).await;
}

async fn answer_one(network: &Network, mut stream: UnixStream) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(LINE_BYTES_MAX as u64));
    tokio::time::timeout(REQUEST_WITHIN, reader.read_until(b'\n', &mut line))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let response = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => network.answer(request).await,
        Err(error) => {
            Response::Refused(Refusal { why: Why::Invalid, message: format!("unreadable request: {error}") })
        }
    };
    let mut answer = serde_json::to_vec(&response)?;
    answer.push(b'\n');
    writer.write_all(&answer).await?;
    writer.shutdown().await
}
