//! The table of connected sockets' peers. Must not know what is done with them.

use penstock_ebpf_common::{KnownPeer, Peer, map};
use penstock_ebpf_packet::hash;
use penstock_ebpf_packet::table::{self as rules, Claimed};

use crate::table::{Entry, Memory, Table};

/// The table of peers by sockets' cookies, opened from its pin.
pub type PeerTable = Table<KnownPeer>;
/// The table of peers in this process's memory.
pub type PeerMemory = Memory<KnownPeer>;

impl Entry for KnownPeer {
    type Key = u64;
    type Value = Peer;

    const MAP: &'static str = map::PEERS;
    const REACH: u32 = hash::SOCKETS_REACH;

    fn of(cookie: &u64, peer: &Peer) -> Self {
        Self { cookie: *cookie, peer: *peer }
    }

    fn parts(&self) -> (&u64, &Peer) {
        (&self.cookie, &self.peer)
    }

    fn hash(cookie: &u64) -> u64 {
        hash::socket(*cookie)
    }

    /// Nobody's place is taken: the sockets are there.
    fn claim(memory: &impl rules::Memory<Key = u64>, cookie: &u64, peer: &Peer, _now_s: u64) -> Claimed {
        rules::claim_free(memory, Self::hash(cookie), cookie, rules::marks(peer.service, 0))
    }
}
