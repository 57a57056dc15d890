//! The Internet checksum, mended instead of computed anew (RFC 1624).
//!
//! Sums are of words as they lie in memory: ones' complement sums do not mind the byte order (RFC 1071, 2B).

use penstock_ebpf_common::{Address, FlowKey};

/// One word's part in the difference of two sums.
#[inline(always)]
pub const fn difference(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

/// The same for half a word at an even place.
#[inline(always)]
pub const fn difference16(old: u16, new: u16) -> u64 {
    !old as u64 + new as u64
}

/// An address' part in the difference.
#[inline(always)]
pub const fn address_difference(old: &Address, new: &Address) -> u64 {
    difference(old.words[0], new.words[0])
        + difference(old.words[1], new.words[1])
        + difference(old.words[2], new.words[2])
        + difference(old.words[3], new.words[3])
}

/// Brings a sum of parts to 32 bits, as the kernel's helpers take it.
#[inline(always)]
pub const fn fold32(sum: u64) -> u64 {
    let once = (sum & 0xffff_ffff) + (sum >> 32);
    (once & 0xffff_ffff) + (once >> 32)
}

/// Brings a sum of parts to 16 bits.
#[inline(always)]
pub const fn fold16(sum: u64) -> u16 {
    let sum = fold32(sum);
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    ((twice & 0xffff) + (twice >> 16)) as u16
}

/// A checksum field after its data changed by a difference.
#[inline(always)]
pub const fn mended(field: u16, difference: u64) -> u16 {
    !fold16(!field as u64 + fold32(difference))
}

/// The sum of a pseudo header: what the checksum field of a packet holds whose checksum is left to the network card
/// (CHECKSUM_PARTIAL). `length` counts the bytes from the transport header on.
#[inline(always)]
pub const fn pseudo_header(key: &FlowKey, length: u32) -> u16 {
    let (from, to) = (&key.source.words, &key.destination.words);
    let mapped = key.source.is_v4();
    let mut sum = from[3] as u64 + to[3] as u64;
    if !mapped {
        sum += from[0] as u64 + from[1] as u64 + from[2] as u64;
        sum += to[0] as u64 + to[1] as u64 + to[2] as u64;
    }
    fold16(sum + length.to_be() as u64 + (key.protocol as u16).to_be() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checksum(words: &[u32]) -> u16 {
        !fold16(words.iter().map(|word| u64::from(*word)).sum())
    }

    proptest! {
        #[test]
        fn a_mended_checksum_is_the_one_computed_anew(
            mut words in prop::array::uniform10(any::<u32>()),
            news in prop::array::uniform10(any::<u32>()),
            changed in 1..10_usize,
        ) {
            // Real packets are never all zero, for which ones' complement has two names.
            words[9] |= 1;
            let before = checksum(&words);
            let mut sum = 0;
            for at in 0..changed - 1 {
                sum += difference(words[at], news[at]);
                words[at] = news[at];
            }
            let after = mended(before, sum);
            let anew = checksum(&words);
            prop_assert!(after == anew || (after | anew == 0xffff && after & anew == 0), "{after:#x} {anew:#x}");
        }
    }

    proptest! {
        #[test]
        fn what_is_translated_and_translated_back_has_the_checksum_it_had(
            field: u16,
            addresses: [[u8; 16]; 2],
            ports: [u16; 2],
        ) {
            let [old, new] = addresses.map(Address::from_bytes);
            let there = address_difference(&old, &new) + difference16(ports[0], ports[1]);
            let back = address_difference(&new, &old) + difference16(ports[1], ports[0]);
            let again = mended(mended(field, there), back);
            prop_assert!(
                again == field || (again | field == 0xffff && again & field == 0),
                "{field:#x} became {again:#x}"
            );
        }

        #[test]
        fn any_sum_is_folded_to_what_the_sum_of_its_words_is(sum: u64) {
            let words = (0..4).map(|at| (sum >> (16 * at)) & 0xffff).sum::<u64>();
            let folded = u64::from(fold16(sum));
            // Modulo 0xffff, in which zero has two names.
            prop_assert_eq!(folded % 0xffff, words % 0xffff);
            prop_assert_eq!(fold32(sum) >> 32, 0);
        }
    }

    #[test]
    fn nothing_changed_changes_nothing() {
        let address = Address { words: [1, 2, 3, 4] };
        assert_eq!(mended(0x1234, address_difference(&address, &address)), 0x1234);
        assert_eq!(mended(0x1234, difference16(5, 5)), 0x1234);
    }

    #[test]
    fn the_pseudo_header_of_an_example_sums_up() {
        let v4 = |bytes: [u8; 4]| Address::from_v4(u32::from_ne_bytes(bytes));
        let key = FlowKey {
            source: v4([192, 0, 2, 1]),
            destination: v4([192, 0, 2, 2]),
            protocol: 17,
            ..FlowKey::default()
        };
        // c000 + 0201 + c000 + 0202 + 0011 + 0010 = 1 8424, folded 8425.
        assert_eq!(pseudo_header(&key, 16), 0x8425_u16.to_be());
    }
}
