//! Entries of maps that user space has picked out for it by programs: those of some services.

use crate::{Address, Peer, shared};

/// The name under which user space finds [`Picked`]. It is not pinned: each picking begins with it.
pub const PICKED: &str = "picked";

const WORDS: usize = 1024;

/// Whose entries are wanted: a bit for each service number, which large numbers share. What is picked is looked at again.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// 64 services each.
    pub words: [u64; WORDS],
}

/// What is picked of the map of peers, after the key.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PickedPeer {
    /// The value.
    pub peer: Peer,
    /// What is at [`Peer::place`]; zeros when it cannot be read.
    pub head: SocketHead,
}

/// How every socket begins in the kernel's memory: `struct sock_common` of include/net/sock.h, the same since Linux 4.2 if
/// the kernel has IPv6. It is no promise of the kernel's, so whoever reads it compares the cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SocketHead {
    /// The peer's IPv4 address in network order.
    pub remote_v4: u32,
    /// The socket's own.
    pub local_v4: u32,
    /// Of both ends.
    pub hash: u32,
    /// The peer's port in network order.
    pub remote_port: u16,
    /// The socket's own, in the machine's order; zero before it has one.
    pub local_port: u16,
    /// AF_INET or AF_INET6.
    pub family: u16,
    /// State and flags.
    pub state: u16,
    /// The interface it is bound to, or zero.
    pub ifindex: u32,
    /// Lists it is in, its protocol and its namespace.
    pub places: [u64; 4],
    /// The peer's address, of AF_INET6.
    pub remote: Address,
    /// The socket's own.
    pub local: Address,
    /// The kernel's number of the socket.
    pub cookie: u64,
}

// === impl Picked ===

impl Picked {
    /// Entries of no service.
    pub const NONE: Self = Self { words: [0; WORDS] };

    /// The word and the bit of a service.
    #[inline(always)]
    pub const fn place(service: u32) -> (usize, u64) {
        ((service / u64::BITS) as usize % WORDS, 1 << (service % u64::BITS))
    }

    /// Whether entries of a service, of which a bit is known, may be wanted.
    pub const fn has(&self, service: u32) -> bool {
        let (word, bit) = Self::place(service);
        self.words[word] & bit != 0
    }

    /// Picks entries of one more service.
    pub const fn pick(&mut self, service: u32) {
        let (word, bit) = Self::place(service);
        self.words[word] |= bit;
    }
}

shared!(Picked, 8192, [[u64; WORDS]]);
shared!(SocketHead, 96, [u32, u32, u32, u16, u16, u16, u16, u32, [u64; 4], Address, Address, u64]);
shared!(PickedPeer, 160, [Peer, SocketHead]);
