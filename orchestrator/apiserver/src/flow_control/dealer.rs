//! Shuffle sharding: which few queues a flow may use, from the hash of its name alone.
//!
//! Two flows share all their queues only if they are dealt the same hand, so that one that floods its queues leaves
//! others at least one that it does not.

/// Bits of the hash that a deal may use up; beyond, the last cards would be dealt unevenly (upstream's bound).
pub const ENTROPY_BITS_MAX: u32 = 60;
/// No hand that keeps to [`ENTROPY_BITS_MAX`] is larger.
pub const HAND_MAX: usize = 15;

/// A hand: distinct queue numbers, in the order dealt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hand {
    cards: [u32; HAND_MAX],
    length: usize,
}

/// How much of a hash a deal uses up, rounded up.
pub fn entropy_bits(queues: u32, hand: u32) -> u32 {
    (f64::from(queues).log2() * f64::from(hand)).ceil() as u32
}

/// Deals `hand` of `queues` queues. Takes at least one queue and one card, and no more cards than there are queues.
pub fn deal(hash: u64, queues: u32, hand: u32) -> Hand {
    let queues = queues.max(1);
    let length = (hand.max(1).min(queues) as usize).min(HAND_MAX);
    let mut dealt = Hand { cards: [0; HAND_MAX], length };
    // Cards dealt already, in ascending order: the place among what is left becomes a number by stepping over them.
    let mut taken: [u32; HAND_MAX] = [0; HAND_MAX];
    let mut rest = hash;
    for round in 0..length {
        let left = u64::from(queues) - round as u64;
        let mut card = (rest % left) as u32;
        rest /= left;
        let mut place = 0;
        while place < round && card >= taken[place] {
            card += 1;
            place += 1;
        }
        taken.copy_within(place..round, place + 1);
        taken[place] = card;
        dealt.cards[round] = card;
    }
    dealt
}

// === impl Hand ===

impl Hand {
    pub fn cards(&self) -> &[u32] {
        &self.cards[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_hand_has_distinct_cards_of_the_deck(hash: u64, queues in 1u32..300, hand in 1u32..12) {
            let dealt = deal(hash, queues, hand);
            let mut sorted = dealt.cards().to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!(sorted.len(), hand.min(queues) as usize);
            prop_assert!(sorted.iter().all(|card| *card < queues));
        }
    }

    #[test]
    fn all_cards_come_up_about_equally_often_in_every_place() {
        let mut seen = [[0u32; 8]; 3];
        for hash in 0..8 * 7 * 6 * 10 {
            for (place, card) in deal(hash, 8, 3).cards().iter().enumerate() {
                seen[place][*card as usize] += 1;
            }
        }
        for place in seen {
            assert_eq!(place, [420; 8]);
        }
    }

    #[test]
    fn entropy_is_that_of_upstreams_defaults() {
        assert_eq!((entropy_bits(128, 6), entropy_bits(64, 8), entropy_bits(1, 1)), (42, 48, 0));
    }
}
