//! How late this machine is: what takes two seconds takes longer where nobody had a processor for three of them.
//!
//! For the few tests that are about how long something takes: what is added to their limit is seen, not guessed, and on a
//! machine that is on time it is nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it is looked. What is later than asked by less than [`USUAL`] is on time.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const USUAL: Duration = Duration::from_millis(2);

/// A thread that asks to be woken again and again, and notes how late it was.
pub struct Lateness {
    stop: Arc<AtomicBool>,
    late_us: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Lateness {
    /// Looks from now on.
    pub fn watch() -> Self {
        let (stop, late_us) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, noted) = (stop.clone(), late_us.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let asked = Instant::now();
                std::thread::sleep(LOOK_EVERY);
                let late = asked.elapsed().saturating_sub(LOOK_EVERY);
                if late > USUAL {
                    noted.fetch_add(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
                }
            }
        });
        Self { stop, late_us, thread: Some(thread) }
    }

    /// How long in all somebody who wanted to go on could not.
    pub fn so_far(&self) -> Duration {
        Duration::from_micros(self.late_us.load(Ordering::Relaxed))
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
