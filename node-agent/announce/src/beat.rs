//! A beat: what one node tells another of itself, several times a second, in a datagram of eight bytes.
//!
//! Beats come from the address their node has in the cluster, and have never crossed a router: nothing else proves who
//! sent them, as nothing proves who sent an ARP message, and no more depends on them.

/// The start of every beat: a name and the version of what follows.
const MAGIC: [u8; 4] = *b"PSb1";
/// How long a beat is.
pub const LENGTH: usize = 8;

const ASKS: u8 = 1;
const ABLE: u8 = 1 << 1;
const SETTLED: u8 = 1 << 2;
const COUNTS_YOU: u8 = 1 << 3;
const ANSWERS: u8 = 1 << 4;

/// What a node tells another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beat {
    /// Only a question, by one that has just started and tells nothing of itself yet: answer at once.
    pub asks: bool,
    /// An answer, which is not answered.
    pub answers: bool,
    /// Can hold addresses.
    pub able: bool,
    /// Is not one that has just come back: such a one holds nothing while somebody else can.
    pub settled: bool,
    /// Has heard of the receiver lately, so that nobody has taken over from it yet.
    pub counts_you: bool,
}

// === impl Beat ===

impl Beat {
    /// As it lies in a datagram.
    pub fn to_bytes(self) -> [u8; LENGTH] {
        let bit = |is: bool, bit: u8| if is { bit } else { 0 };
        let flags = bit(self.asks, ASKS)
            | bit(self.able, ABLE)
            | bit(self.settled, SETTLED)
            | bit(self.counts_you, COUNTS_YOU)
            | bit(self.answers, ANSWERS);
        let [a, b, c, d] = MAGIC;
        [a, b, c, d, flags, 0, 0, 0]
    }

    /// Reads a datagram; none when it is no beat. Flags and bytes that later versions may add are not minded.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let flags = *bytes.strip_prefix(&MAGIC)?.first()?;
        let has = |bit: u8| flags & bit != 0;
        Some(Self {
            asks: has(ASKS),
            answers: has(ANSWERS),
            able: has(ABLE),
            settled: has(SETTLED),
            counts_you: has(COUNTS_YOU),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_beat_reads_back_as_it_was_written(asks: bool, answers: bool, able: bool, settled: bool, counts_you: bool) {
            let beat = Beat { asks, answers, able, settled, counts_you };
            prop_assert_eq!(Beat::from_bytes(&beat.to_bytes()), Some(beat));
        }

        #[test]
        fn whatever_comes_is_a_beat_or_none(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(Beat::from_bytes(&bytes).is_some(), bytes.len() > 4 && bytes.starts_with(b"PSb1"));
        }
    }
}
