//! What programs tell those who watch, and who watches.
//!
//! Each watcher has a ring buffer of its own and a time until which it is told: one that dies is told nothing more when
//! its time is over. With nobody watching, all a program does is to look at one entry of an array.

use crate::{Address, shared};

/// How many may watch at once.
pub const WATCHERS_MAX: usize = 4;

/// [`Watch::wants`]: every packet of a flow, not only what begins, is refused or is dropped.
pub const WANTS_PACKETS: u32 = 1;

/// [`Told::what`]: a connection or datagram to no service, left alone.
pub const TOLD_PASSED: u32 = u32::MAX;

/// The one entry of the map of watchers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Watch {
    /// Until when each is told, by the kernel's monotonic clock; zero for nobody.
    pub until_ns: [u64; WATCHERS_MAX],
    /// Whose each place is: a number of the watcher's own, by which it finds out that another has its place.
    pub owners: [u64; WATCHERS_MAX],
    /// `WANTS_*` of each.
    pub wants: [u32; WATCHERS_MAX],
}

/// Something a program did, or did not let pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Told {
    /// When, by the kernel's monotonic clock.
    pub time_ns: u64,
    /// The namespace of the socket's process, as SO_NETNS_COOKIE gives it; zero for a packet.
    pub netns: u64,
    /// Source address; zero for a socket call, whose source is not chosen yet.
    pub source: Address,
    /// Destination address as the client knows it.
    pub destination: Address,
    /// Source address after translation, as far as there is one.
    pub to_source: Address,
    /// Destination address after translation, as far as there is one.
    pub to_destination: Address,
    /// Source port in network order.
    pub source_port: u16,
    /// Destination port in network order.
    pub destination_port: u16,
    /// Source port after translation.
    pub to_source_port: u16,
    /// Destination port after translation.
    pub to_destination_port: u16,
    /// The place of an [`crate::Event`] or [`crate::Reason`] in the array of tallies, or [`TOLD_PASSED`].
    pub what: u32,
    /// The service port; zero for none.
    pub service: u32,
    /// The interface of a packet; zero for a socket call.
    pub ifindex: u32,
    /// IP protocol number.
    pub protocol: u32,
}

shared!(Watch, 80, [[u64; WATCHERS_MAX], [u64; WATCHERS_MAX], [u32; WATCHERS_MAX]]);
shared!(Told, 104, [u64, u64, Address, Address, Address, Address, u16, u16, u16, u16, u32, u32, u32, u32]);
