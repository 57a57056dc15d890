//! What of a journal is to be applied to a store again. Pure: bytes in, frames out.
//!
//! Frames lie one behind another and each was made durable before the next was written. What lies behind the last is
//! left from an earlier round, whose sequences are lower, or from a frame that was cut off. So a frame that is not
//! whole is the end, unless a later one is whole: then one that was acknowledged is damaged.

use super::frame::{self, ALIGNMENT, Frame};

/// The frames that the store lacks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::embedded) struct Replay {
    pub(in crate::embedded) frames: Vec<Frame>,
    /// Where the next frame is to be written; zero if the store lacks none.
    pub(in crate::embedded) end: usize,
}

/// Frames that were acknowledged and are not all there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the journal is damaged at byte {at}: the batch of writes {missing} is not whole, and batch {found} behind it is"
)]
pub(in crate::embedded) struct Damage {
    pub(in crate::embedded) at: usize,
    pub(in crate::embedded) missing: u64,
    pub(in crate::embedded) found: u64,
}

/// The frames of a store that come after the last one in it.
pub(in crate::embedded) fn plan(journal: &[u8], store: u64, applied: u64) -> Result<Replay, Damage> {
    let mut replay = Replay::default();
    let (mut at, mut last) = (0, applied);
    let mut before = 0;
    while let Some((frame, length)) = journal.get(at..).and_then(|rest| frame::read(rest, store)) {
        let sequence = frame.stamp.sequence;
        if sequence == last + 1 {
            replay.frames.push(frame);
            last = sequence;
            replay.end = at + length;
        } else if sequence > last || !replay.frames.is_empty() || sequence <= before {
            // A gap, which is looked at below, or an earlier round.
            break;
        }
        before = sequence;
        at += length;
    }
    let later = (at..journal.len()).step_by(ALIGNMENT).find_map(|place| {
        let bytes = &journal[place..];
        let sequence = frame::may_begin(bytes).then(|| frame::read(bytes, store))??.0.stamp.sequence;
        (sequence > last).then_some(sequence)
    });
    match later {
        Some(found) => Err(Damage { at, missing: last + 1, found }),
        None => Ok(replay),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{Draft, Stamp};
    use super::*;
    use crate::Revision;

    const STORE: u64 = 7;

    /// A frame with one write, whose length depends on its sequence.
    fn frame(sequence: u64) -> Vec<u8> {
        let mut draft = Draft::default();
        draft.clear();
        let value = vec![b'x'; 100 + (sequence * 37 % 90) as usize];
        draft.push(Revision(sequence), "/key", Some(&value), None);
        draft.finish(Stamp { store: STORE, sequence, now_unix_seconds: 1, compacted: Revision(1) }).to_vec()
    }

    fn journal(sequences: impl IntoIterator<Item = u64>) -> Vec<u8> {
        sequences.into_iter().flat_map(frame).collect()
    }

    /// The journal after further rounds, each from its beginning.
    fn over(mut journal: Vec<u8>, round: &[u8]) -> Vec<u8> {
        let length = journal.len().max(round.len());
        journal.resize(length, 0);
        journal[..round.len()].copy_from_slice(round);
        journal
    }

    fn sequences(journal: &[u8], applied: u64) -> Result<Vec<u64>, Damage> {
        let replay = plan(journal, STORE, applied)?;
        Ok(replay.frames.iter().map(|frame| frame.stamp.sequence).collect())
    }

    #[test]
    fn an_empty_journal_has_nothing() {
        assert_eq!(plan(&[], STORE, 3), Ok(Replay::default()));
        assert_eq!(plan(&[0; 4096], STORE, 3), Ok(Replay::default()));
    }

    #[test]
    fn what_the_store_has_is_passed_over() {
        let bytes = journal(5..=9);
        assert_eq!(sequences(&bytes, 4), Ok(vec![5, 6, 7, 8, 9]));
        assert_eq!(sequences(&bytes, 7), Ok(vec![8, 9]));
        assert_eq!(plan(&bytes, STORE, 9), Ok(Replay::default()), "the next round begins at the beginning");
        assert_eq!(plan(&bytes, STORE, 7).map(|replay| replay.end), Ok(bytes.len()));
    }

    #[test]
    fn frames_of_an_earlier_round_end_a_round() {
        let bytes = over(journal(1..=20), &journal(21..=23));
        assert_eq!(sequences(&bytes, 20), Ok(vec![21, 22, 23]));
        // Of frames of one length the next one of the earlier round follows at once.
        let bytes = over(journal([1, 91, 181, 271]), &frame(272));
        assert_eq!(sequences(&bytes, 271), Ok(vec![272]));
    }

    #[test]
    fn a_gap_is_damage() {
        let damage = sequences(&journal([5, 6, 8]), 4).unwrap_err();
        assert_eq!(damage, Damage { at: journal([5, 6]).len(), missing: 7, found: 8 });
        let damage = sequences(&journal(5..=8), 2).unwrap_err();
        assert_eq!((damage.at, damage.missing), (0, 3), "the store has lost what the journal builds upon");
    }

    #[test]
    fn frames_of_another_store_are_none() {
        assert_eq!(plan(&journal(1..=9), STORE + 1, 0), Ok(Replay::default()));
    }

    proptest! {
        #[test]
        fn a_cut_anywhere_loses_only_what_was_cut(cut: prop::sample::Index, older in 0u64..30) {
            let whole = journal(31..=40);
            let torn = &whole[..cut.index(whole.len())];
            let bytes = over(journal(31 - older..=30), torn);
            let found = sequences(&bytes, 30).unwrap();
            let kept = (31..=40).take_while(|last| journal(31..=*last).len() <= torn.len()).count();
            // The cut may have been within padding, or what lay there before may have been what was cut.
            prop_assert!(found.len() == kept || found.len() == kept + 1, "{found:?} of {kept}");
            prop_assert_eq!(&found, &(31..31 + found.len() as u64).collect::<Vec<_>>());
        }

        #[test]
        fn a_flipped_bit_is_damage_unless_it_is_in_the_last_frame(at: prop::sample::Index, bit in 0u32..8) {
            let mut bytes = journal(1..=10);
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            let whole = |found: &[u64]| found.iter().copied().eq(1..=10);
            match sequences(&bytes, 0) {
                // Padding says nothing.
                Ok(found) if whole(&found) => {}
                Ok(found) => {
                    prop_assert!(found.into_iter().eq(1..=9));
                    prop_assert!(at >= journal(1..=9).len());
                }
                Err(damage) => prop_assert!(damage.at <= at && at < damage.at + frame(damage.missing).len()),
            }
        }
    }
}
