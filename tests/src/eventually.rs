//! Waiting on conditions: the only way a test waits.

use std::fmt::Debug;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs `attempt` until it succeeds; its last error when `limit` is over.
pub fn eventually<T, E: Debug>(limit: Duration, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Waits until `condition` holds; what was waited for is the error.
pub fn until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    eventually(limit, || if condition() { Ok(()) } else { Err(()) })
        .map_err(|()| anyhow::anyhow!("{what}: not within {} s", limit.as_secs()))
}
