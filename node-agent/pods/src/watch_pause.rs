//! How long a watch waits after a failure. Pure.
//!
//! It exists because an agent and the API server often start together: the usual first pause of a second (800 ms and as much again by
//! chance) is then what a node's start takes. Only the first pauses in a watch's life are short, so that a server that
//! comes back is not asked by all nodes at once.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;

/// The first pauses. After them it is the client library's way.
const FIRST: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// See the module.
#[derive(Default)]
pub struct WatchPause {
    used: usize,
    usual: DefaultBackoff,
}

impl Iterator for WatchPause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let first = FIRST.get(self.used).copied();
        self.used = self.used.saturating_add(1);
        first.or_else(|| self.usual.next())
    }
}

impl Backoff for WatchPause {
    /// The first pauses do not come back: a watch says that it went well whenever it is about to ask for a list.
    fn reset(&mut self) {
        self.usual.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_pauses_are_short_whatever_went_well_between() {
        let mut pause = WatchPause::default();
        for first in FIRST {
            assert_eq!(pause.next(), Some(first));
            pause.reset();
        }
        assert!(pause.next().is_some_and(|usual| usual >= Duration::from_millis(800)));
    }
}
