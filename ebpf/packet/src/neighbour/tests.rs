//! Messages read on the host: good ones, each way of being bad, and anything at all.

use core::mem::MaybeUninit;

use proptest::prelude::*;

use super::*;
use crate::header::Plain;

extern crate std;
use std::vec::Vec;

/// A frame in memory.
struct Bytes<'a>(&'a [u8]);

impl Frame for Bytes<'_> {
    const FIXED: bool = false;

    fn ethertype(&self) -> u16 {
        self.load(12).unwrap_or(0)
    }

    fn length(&self) -> u32 {
        self.0.len() as u32
    }

    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        let start = offset as usize;
        let from = self.0.get(start..start.checked_add(size_of::<T>())?)?;
        let mut to = MaybeUninit::<T>::uninit();
        // SAFETY: as many bytes as `T` has are copied, and every pattern of bits is a `T`.
        unsafe {
            core::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr().cast(), size_of::<T>());
            Some(to.assume_init())
        }
    }
}

const ASKER: Mac = [2, 0, 0, 0, 0, 1];
const TARGET: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56];
const SENDER: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn solicitation(sender: [u8; 16], options: &[u8]) -> Vec<u8> {
    let mut message = std::vec![135_u8, 0, 0, 0, 0, 0, 0, 0];
    message.extend(TARGET);
    message.extend(options);
    let mut group = [0_u8; 16];
    (group[0], group[1], group[11], group[12]) = (0xff, 2, 1, 0xff);
    group[13..].copy_from_slice(&TARGET[13..]);
    let sum = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
    };
    let mut total = sum(&sender) + sum(&group) + sum(&message) + message.len() as u32 + 58;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    message[2..4].copy_from_slice(&(!(total as u16)).to_be_bytes());
    let mut frame = std::vec![0x33, 0x33, 0xff, 0x12, 0x34, 0x56];
    frame.extend(ASKER);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(sender);
    frame.extend(group);
    frame.extend(message);
    frame
}

fn asker(frame: &[u8]) -> Result<Option<Mac>, Malformed> {
    let (about, ip) = discovery(&Bytes(frame)).expect("a solicitation");
    assert_eq!((about.message, about.address.to_bytes()), (Message::Question, TARGET));
    discovery_asker(&Bytes(frame), &about, &ip)
}

/// An option that names a link address.
fn source(mac: Mac) -> Vec<u8> {
    let mut option = std::vec![1, 1];
    option.extend(mac);
    option
}

#[test]
fn a_solicitation_is_answered_to_who_asks() {
    assert_eq!(asker(&solicitation(SENDER, &source([2, 0, 0, 0, 0, 9]))), Ok(Some([2, 0, 0, 0, 0, 9])));
    assert_eq!(asker(&solicitation(SENDER, &[])), Ok(Some(ASKER)), "by the frame");
    assert_eq!(asker(&solicitation([0; 16], &[])), Ok(None), "who has no address yet is nobody");
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    assert_eq!(asker(&solicitation([0; 16], &nonce)), Ok(None), "with a nonce (RFC 7527)");
}

#[test]
fn a_solicitation_that_no_neighbour_may_send_is_malformed() {
    let good = solicitation(SENDER, &source(ASKER));
    for (at, value, what) in [
        (21, 254, "crossed a router"),
        (55, 1, "a code"),
        (57, good[57] ^ 1, "a wrong checksum"),
        (19, 36, "no whole options"),
        (19, 200, "longer than the frame"),
        (79, 0, "an option of no length"),
        (79, 2, "an option longer than the message"),
    ] {
        let mut frame = good.clone();
        frame[at] = value;
        assert_eq!(asker(&frame), Err(Malformed), "{what}");
    }
    assert_eq!(
        asker(&solicitation([0; 16], &source(ASKER))),
        Err(Malformed),
        "no address, but a link address"
    );
    assert_eq!(asker(&solicitation([0xff; 16], &source(ASKER))), Err(Malformed), "from a group");
    assert_eq!(asker(&solicitation(SENDER, &source([0x33; 6]))), Err(Malformed), "a group's link address");
    assert_eq!(asker(&solicitation(SENDER, &source([0; 6]))), Err(Malformed), "no link address");
    assert_eq!(asker(&solicitation(SENDER, &[14; 9 * 8])), Err(Malformed), "more options than are read");
}

#[test]
fn arp_tells_questions_from_claims() {
    let message = |operation: u8, sender: [u8; 4], target: [u8; 4]| {
        let mut frame = std::vec![0xff_u8; 6];
        frame.extend(ASKER);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(ASKER);
        frame.extend(sender);
        frame.extend([0; 6]);
        frame.extend(target);
        frame
    };
    let about =
        |frame: &[u8]| arp(&Bytes(frame)).map(|(about, _)| (about.message, about.address.to_bytes()[15]));
    let (own, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    assert_eq!(about(&message(1, own, other)), Some((Message::Question, 2)));
    assert_eq!(about(&message(1, [0; 4], other)), Some((Message::Question, 2)), "a probe (RFC 5227)");
    assert_eq!(about(&message(1, own, own)), Some((Message::Claim, 1)));
    assert_eq!(about(&message(2, own, other)), Some((Message::Claim, 1)));
    assert_eq!(about(&message(3, own, other)), None, "a reverse request");
    let mut other_hardware = message(1, own, other);
    other_hardware[15] = 6;
    assert_eq!(about(&other_hardware), None);
    let whole = message(1, own, other);
    assert!((0..42).all(|length| arp(&Bytes(&whole[..length])).is_none()));
}

proptest! {
    #[test]
    fn whatever_arrives_is_read_or_not(frame in prop::collection::vec(any::<u8>(), 0..160)) {
        let frame = Bytes(&frame);
        if let Some((_, message)) = arp(&frame) {
            let _ = arp_asker(&message);
        }
        if let Some((about, ip)) = discovery(&frame) {
            let _ = discovery_asker(&frame, &about, &ip);
        }
    }

    #[test]
    fn a_solicitation_with_any_byte_changed_is_read_or_not(
        at in 0..86_usize, value: u8, cut in 0..87_usize, more in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut frame = solicitation(SENDER, &source(ASKER));
        frame[at] = value;
        frame.truncate(cut);
        frame.extend(more);
        let frame = Bytes(&frame);
        if let Some((about, ip)) = discovery(&frame) {
            let _ = discovery_asker(&frame, &about, &ip);
        }
    }
}
