//! One copy of what many objects have in common: where endpoints are, ports of Services and of slices.
//!
//! It exists because a cluster has many objects, few nodes, and few ways to name a port. It must not know what it holds.

use std::collections::BTreeSet;
use std::sync::Arc;

/// When to look first for what nobody uses any more.
const SWEEP_FIRST: usize = 1024;

/// What is in use.
#[derive(Debug)]
pub struct Shared<T: ?Sized> {
    known: BTreeSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self { known: BTreeSet::new(), sweep_at: SWEEP_FIRST }
    }
}

impl<T: Ord + ?Sized> Shared<T> {
    /// The copy that all share.
    pub fn share(&mut self, one: &Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.get(one) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = SWEEP_FIRST.max(self.known.len() * 2);
        }
        self.known.insert(one.clone());
        one.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_is_one_and_what_is_unused_goes() {
        let one = |number: usize| -> Arc<str> { format!("node-{number}").into() };
        let mut shared = Shared::default();
        let first = shared.share(&one(0));
        assert!(Arc::ptr_eq(&first, &shared.share(&one(0))));
        for number in 0..SWEEP_FIRST * 3 {
            shared.share(&one(number));
        }
        assert!(shared.known.len() <= SWEEP_FIRST, "{}", shared.known.len());
        assert!(Arc::ptr_eq(&first, &shared.share(&one(0))), "who is in use stays");
    }
}
