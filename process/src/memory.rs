//! Keeping the process small: glibc's allocator, told not to hoard (see docs/adr/0003-embedded-store.md; the
//! goals are 60 MB of the orchestrator and 50 MB of the agent when idle).
//!
//! glibc makes up to eight arenas a core, each of which keeps what was freed in it. The first lists of a large cluster are
//! decoded once, and what that took would stay with the process for ever. Two arenas and a trim now and then cost nothing
//! measurable, and no other allocator has to be built.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const ARENAS_MAX: libc::c_int = 2;
/// What is larger is mapped by itself and given back when it is freed. Left alone, glibc takes this for the size of the
/// largest it ever saw freed, and pages of lists then lie among what is kept.
const MAPPED_BYTES_MIN: libc::c_int = 128 << 10;
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

/// The same for who reads large lists and keeps a small part of each. It costs a system call for each large piece, so it is not
/// for who answers with them all the time.
pub fn map_what_is_large() {
    // SAFETY: as above.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
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
        libc::malloc_trim(0);
    }
}
