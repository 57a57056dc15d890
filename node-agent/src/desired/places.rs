//! One copy of what many endpoints have in common: their node, its zone, and whom they are meant for.
//!
//! It exists because a cluster has many endpoints and few places. It must not know what a place means.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::Place;

/// When to look first for places that nobody uses any more.
const SWEEP_FIRST: usize = 1024;

/// The places in use.
#[derive(Debug)]
pub struct Places {
    known: BTreeSet<Arc<Place>>,
    sweep_at: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self { known: BTreeSet::new(), sweep_at: SWEEP_FIRST }
    }
}

impl Places {
    /// The copy of a place that all share.
    pub fn share(&mut self, place: &Arc<Place>) -> Arc<Place> {
        if let Some(known) = self.known.get(place) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|place| Arc::strong_count(place) > 1);
            self.sweep_at = SWEEP_FIRST.max(self.known.len() * 2);
        }
        self.known.insert(place.clone());
        place.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(node: usize) -> Arc<Place> {
        Arc::new(Place { node: Some(format!("node-{node}")), ..Place::default() })
    }

    #[test]
    fn equal_places_are_one_and_unused_ones_go() {
        let mut places = Places::default();
        let first = places.share(&place(0));
        assert!(Arc::ptr_eq(&first, &places.share(&place(0))));
        for node in 0..SWEEP_FIRST * 3 {
            places.share(&place(node));
        }
        assert!(places.known.len() <= SWEEP_FIRST, "{}", places.known.len());
        assert!(Arc::ptr_eq(&first, &places.share(&place(0))), "who is in use stays");
    }
}
