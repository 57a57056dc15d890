//! How long a refused client is told to wait: longer while many are refused, shorter when that ends.
//!
//! As upstream: doubled while at least three requests a second are refused over the time told, one second less when
//! fewer than one is, between 1 and 32 seconds. Pure: the clock is the caller's.

use std::collections::VecDeque;

/// The longest a client is told to wait.
pub const SECONDS_MAX: u64 = 32;

/// What was refused lately at one priority level.
#[derive(Debug)]
pub struct RetryAfter {
    seconds: u64,
    /// Second and number of refusals, oldest first; no older than [`SECONDS_MAX`].
    refused: VecDeque<(u64, u64)>,
    doubled_at: Option<u64>,
}

// === impl RetryAfter ===

impl Default for RetryAfter {
    fn default() -> Self {
        Self { seconds: 1, refused: VecDeque::new(), doubled_at: None }
    }
}

impl RetryAfter {
    /// A request is refused at this second; how long its client should wait.
    pub fn refuse(&mut self, second: u64) -> u32 {
        match self.refused.back_mut() {
            Some((last, count)) if *last == second => *count += 1,
            _ => {
                self.adjust(second);
                self.refused.push_back((second, 1));
                while self.refused.front().is_some_and(|(at, _)| at + SECONDS_MAX < second) {
                    self.refused.pop_front();
                }
            }
        }
        self.seconds as u32
    }

    fn adjust(&mut self, second: u64) {
        let recent = self.refused.iter().filter(|(at, _)| at + self.seconds >= second);
        let count: u64 = recent.map(|(_, count)| count).sum();
        let rested = self.doubled_at.is_none_or(|at| second >= at + self.seconds);
        if rested && count >= 3 * self.seconds {
            self.seconds = (self.seconds * 2).min(SECONDS_MAX);
            self.doubled_at = Some(second);
        } else if count < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_flood_makes_clients_wait_longer_and_its_end_shorter() {
        let mut tracker = RetryAfter::default();
        let mut told = Vec::new();
        for second in 0..200 {
            for _ in 0..100 {
                told.push(tracker.refuse(second));
            }
        }
        assert_eq!((told[0], told.last()), (1, Some(&32)));
        assert!(tracker.refused.len() <= 34, "{}", tracker.refused.len());
        for second in (1000..1062).step_by(2) {
            tracker.refuse(second);
        }
        assert_eq!(tracker.refuse(1062), 1);
    }
}
