//! SCTP's checksum, mended after a port changed: CRC32c (RFC 9260, appendix A) covers ports, but no addresses.
//!
//! A CRC is linear: the CRCs of two packets that differ only in their ports differ by the CRC of the difference, moved
//! over the rest of the packet. Moving over n bytes is a product with x^8n in the field of the polynomial, which takes
//! as many products as n has bits; no byte of the packet is read.

/// The polynomial of CRC32c, its bits in the order of a reflected register.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Packets are shorter than 2 to the power of this.
const LENGTH_BITS: usize = 16;

/// x to the power of 8, 16, 32 …
static POWERS: [u32; LENGTH_BITS] = {
    let mut powers = [0; LENGTH_BITS];
    // The highest bit is x^0, so this is x^8.
    let mut power = 1_u32 << 23;
    let mut at = 0;
    while at < LENGTH_BITS {
        powers[at] = power;
        power = product_const(power, power);
        at += 1;
    }
    powers
};

/// By how much the checksum changes, as it lies in a packet, when the first four bytes of an SCTP packet of `length`
/// bytes change by `difference` (exclusive or, as they lie in memory of a little-endian machine).
#[inline(always)]
pub fn change(difference: u32, length: u32) -> u32 {
    let mut moved = difference;
    let mut bit = 0;
    while bit < LENGTH_BITS {
        let further = product(moved, POWERS[bit]);
        moved ^= (moved ^ further) & all_or_none(length >> bit & 1);
        bit += 1;
    }
    moved
}

/// The product of two polynomials.
#[inline(always)]
fn product(mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        product ^= b & all_or_none(a >> 31);
        a <<= 1;
        b = (b >> 1) ^ (POLYNOMIAL & all_or_none(b & 1));
        bit += 1;
    }
    product
}

/// All bits if the number is one, none if it is zero. The compiler may not know that it is one of these: it would branch,
/// and the verifier would follow both ways, five hundred times.
#[inline(always)]
fn all_or_none(number: u32) -> u32 {
    0_u32.wrapping_sub(core::hint::black_box(number))
}

/// [`product`] at compile time.
const fn product_const(mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        if a >> 31 != 0 {
            product ^= b;
        }
        a <<= 1;
        b = (b >> 1) ^ if b & 1 != 0 { POLYNOMIAL } else { 0 };
        bit += 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn crc(bytes: &[u8]) -> u32 {
        let mut register = u32::MAX;
        for byte in bytes {
            register ^= u32::from(*byte);
            for _ in 0..8 {
                register = (register >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(register & 1));
            }
        }
        !register
    }

    #[test]
    fn the_example_of_the_standard_is_met() {
        assert_eq!(crc(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_mended_checksum_is_the_one_computed_anew(
            bytes in prop::collection::vec(any::<u8>(), 12..2000),
            ports in any::<[u8; 4]>(),
        ) {
            let mut bytes = bytes;
            let before = crc(&bytes);
            let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let old = word(&bytes);
            bytes[..4].copy_from_slice(&ports);
            prop_assert_eq!(before ^ change(old ^ word(&ports), bytes.len() as u32), crc(&bytes));
        }
    }
}
