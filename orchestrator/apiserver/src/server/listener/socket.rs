//! A connection's bytes, with an end to waiting for a client that does not read.
//!
//! The socket also holds what the connection holds of the server, so that a session that was upgraded to something
//! else counts for as long as it lasts.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::Held;

/// See the module.
pub(super) struct Socket<S> {
    stream: S,
    stalled_max: Duration,
    /// Runs while a write waits for the client to read.
    stalled: Option<Pin<Box<Sleep>>>,
    _held: Option<Held>,
}

// === impl Socket ===

impl<S> Socket<S> {
    pub fn new(stream: S, stalled_max: Duration, held: Held) -> Self {
        Self { stream, stalled_max, stalled: None, _held: Some(held) }
    }

    /// Passes on what became of a write, unless none has got through for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<Result<T>>) -> Poll<Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled_max = self.stalled_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stalled_max)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let written = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let written = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, written)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn socket<S>(stream: S, stalled_max: Duration) -> Socket<S> {
        Socket { stream, stalled_max, stalled: None, _held: None }
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_given_up() {
        let (here, _there) = tokio::io::duplex(16);
        let error = socket(here, Duration::from_millis(20)).write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_reads_slowly_has_its_time_anew() {
        let (here, mut there) = tokio::io::duplex(16);
        let mut socket = socket(here, Duration::from_secs(3600));
        socket.write_all(&[0; 16]).await.unwrap();
        assert!(futures::poll!(Box::pin(socket.write_all(&[0; 16]))).is_pending());
        assert!(socket.stalled.is_some());
        there.read_exact(&mut [0; 8]).await.unwrap();
        socket.write_all(&[0; 8]).await.unwrap();
        assert!(socket.stalled.is_none());
    }
}
