//! Keeping the process small: glibc's allocator, told not to hoard.
//!
//! glibc makes up to eight arenas a core, each of which keeps what was freed in it. The first lists of a large cluster are
//! decoded once, and what that took would stay with the process for ever. It must not know what memory is used for.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const ARENAS_MAX: nix::libc::c_int = 2;
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// What the first lists needed is given back soon.
const FIRST_TRIM: Duration = Duration::from_secs(5);

/// To be called before there are threads.
pub fn limit_arenas() {
    // SAFETY: mallopt only sets a parameter of the allocator; no other thread runs yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, ARENAS_MAX);
    }
}

/// Gives freed memory back to the system from time to time.
pub async fn trim_regularly(shutdown: CancellationToken) {
    let mut wait = FIRST_TRIM;
    while shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
        // SAFETY: malloc_trim takes the allocator's own locks and touches only free memory.
        #[cfg(target_env = "gnu")]
        unsafe {
            nix::libc::malloc_trim(0);
        }
        wait = TRIM_INTERVAL;
    }
}
