//! How much of everything a client may have, and for how long. Data; whoever keeps a limit says what happens at it.

use std::time::Duration;

/// See each field. The defaults are for any cluster.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once. More wait in the kernel's backlog.
    pub connections_max: usize,
    /// Watches of clients outside of this process at once. One more is answered 429.
    pub watches_max: usize,
    /// A TLS handshake must be done in this time, or the connection is closed.
    pub handshake: Duration,
    /// The first request's head must be here in this time after the handshake, or the connection is closed.
    pub first_request: Duration,
    /// A connection without a request for so long is closed; the time to send a later request's head is part of it.
    /// Longer than clients keep idle connections (Go: 90 s), so that it is they who close.
    pub idle: Duration,
    /// A response that its client does not read for so long is dropped: the connection, or of several in one
    /// connection the stream.
    pub stalled: Duration,
    /// Streams of one HTTP/2 connection at once (upstream's default is 100, too few for busy informers). The client is
    /// told and waits.
    pub streams_max: u32,
    /// Bytes of a request's head. More is answered 431.
    pub header_bytes_max: u32,
    /// Header lines of an HTTP/1.1 request. More is answered 431. Those of HTTP/2 are bounded by their bytes.
    pub headers_max: usize,
    /// Requests that a client may take back before they are answered: so many at once, and so many a second. Beyond,
    /// its connection is closed: who asks and resets in turns has work done that no stream limit counts.
    pub abandoned_burst: u32,
    pub abandoned_per_second: u32,
    /// How long the server still accepts after it has begun to say that it is not ready.
    pub shutdown_delay: Duration,
    /// How long long-running requests (logs, exec) may go on after that.
    pub linger: Duration,
    /// How long all others may take; longer than any is given.
    pub drain: Duration,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            watches_max: 50_000,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(30),
            idle: Duration::from_secs(100),
            stalled: Duration::from_secs(60),
            streams_max: 1000,
            header_bytes_max: 64 * 1024,
            headers_max: 128,
            abandoned_burst: 1000,
            abandoned_per_second: 50,
            shutdown_delay: Duration::ZERO,
            linger: Duration::from_secs(10),
            drain: Duration::from_secs(62),
        }
    }
}
