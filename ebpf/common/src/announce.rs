//! Addresses of load balancers that a node announces: they are on no interface, the program at the uplink answers for
//! them.

use crate::{Address, shared};

/// The key whose value says until when anything is answered: the unspecified address, which nobody asks for. An agent that
/// lives moves it on; that of a node whose agent died runs out, and the node falls silent.
pub const ANNOUNCED_LEASE: Address = Address { words: [0; 4] };

/// How an address is answered for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Announced {
    /// Of [`ANNOUNCED_LEASE`]: when it runs out, by the kernel's coarse monotonic clock. Else zero.
    pub until_ns: u64,
    /// The interface by which it may be asked for.
    pub ifindex: u32,
    /// That interface's link address, which is the answer.
    pub mac: [u8; 6],
    /// Always zero.
    pub zero: [u8; 6],
}

shared!(Announced, 24, [u64, u32, [u8; 6], [u8; 6]]);
