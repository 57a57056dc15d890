//! Keeping the process small: glibc's allocator, told not to hoard.
//!
//! glibc makes up to eight arenas a core, each of which keeps what was freed in it. The first lists of a large cluster are
//! decoded once, and what that took would stay with the process for ever. It must not know what memory is used for.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const ARENAS_MAX: nix::libc::c_int = 2;
/// What is larger is mapped by itself and given back when it is freed. Left alone, glibc takes this for the size of the
/// largest it ever saw freed, and pages of lists then lie among what is kept.
const MAPPED_BYTES_MIN: nix::libc::c_int = 128 << 10;
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// What a start needed is given back soon.
const FIRST_TRIM: Duration = Duration::from_secs(5);

/// To be called before there are threads.
pub fn limit_hoarding() {
    // SAFETY: mallopt only sets a parameter of the allocator; no other thread runs yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, ARENAS_MAX);
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    }
}

/// Gives freed memory back to the system from time to time.
pub async fn trim_regularly(shutdown: CancellationToken) {
    let mut wait = FIRST_TRIM;
    while shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
        give_back();
        wait = TRIM_INTERVAL;
    }
}

/// Gives freed memory back at once: for those who needed much of it for a moment. Takes milliseconds.
pub fn give_back() {
    // SAFETY: malloc_trim takes the allocator's own locks and touches only free memory.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
