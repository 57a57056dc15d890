//! Entries of earlier layouts as they are now, one function for each layout that changed.

use std::mem::offset_of;

use penstock_ebpf_common::Peer;

use super::Entry;

/// Until the third version nobody knew where the kernel has a socket: it is looked for in a list.
pub fn peer_without_place(key: &[u8], value: &[u8]) -> Option<Entry> {
    let mut peer = value.get(..offset_of!(Peer, place))?.to_vec();
    peer.resize(size_of::<Peer>(), 0);
    Some((key.to_vec(), peer))
}

/// Until their second version flows were in a map of the kernel's own kind, and peers until their fourth: the same entries lie
/// elsewhere.
pub fn as_it_is(key: &[u8], value: &[u8]) -> Option<Entry> {
    Some((key.to_vec(), value.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_of_the_second_version_keeps_all_that_was_known_of_it() {
        let former: Vec<u8> = (1..=56).collect();
        let (key, peer) = peer_without_place(&[9; 8], &former).expect("an entry");
        assert_eq!((key, &peer[..56], &peer[56..]), (vec![9; 8], former.as_slice(), &[0; 8][..]));
        assert_eq!(peer_without_place(&[9; 8], &former[1..]), None, "too short to be one");
    }
}
