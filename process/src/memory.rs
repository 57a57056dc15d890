//! Keeping the process small: glibc's allocator, told not to hoard (see docs/adr/0003-embedded-store.md; the
//! goals are 60 MB of the orchestrator and 50 MB of the agent when idle).
//!
//! glibc makes up to eight arenas a core, each of which keeps what was freed in it. The first lists of a large cluster are
//! decoded once, and what that took would stay with the process for ever. Two arenas and a trim now and then cost nothing
//! measurable, and no other allocator has to be built.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const ARENAS_MAX: libc::c_int = 2;
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// What the first lists needed once, and the OpenAPI documents, is given back soon.
const FIRST_TRIM: Duration = Duration::from_secs(5);

/// To be called before there are threads.
pub fn limit_arenas() {
    // SAFETY: mallopt only sets a parameter of the allocator; no other thread runs yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
    }
}

/// Gives freed memory back to the system from time to time.
pub async fn trim_regularly(shutdown: CancellationToken) {
    let mut wait = FIRST_TRIM;
    while shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
        // SAFETY: malloc_trim takes the allocator's own locks and touches only free memory.
        #[cfg(target_env = "gnu")]
        unsafe {
            libc::malloc_trim(0);
        }
        wait = TRIM_INTERVAL;
    }
}
