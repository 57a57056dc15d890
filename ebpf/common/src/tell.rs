//! What programs tell observers of packets and socket calls, as they happen.
//!
//! Each observer has a ring buffer of its own in a place of [`crate::map::RINGS`], and says in the same place of
//! [`crate::map::OBSERVERS`] what it wants and until when: one that died is told nothing once that moment is over.
//! Entry [`ANYBODY`] is what programs look at first: zero while nobody observes.

use crate::{Address, shared};

/// How many can observe at a time.
pub const OBSERVERS_MAX: u32 = 8;
/// The entry that stands for all of them; theirs are the numbers from one.
pub const ANYBODY: u32 = 0;

/// What an observer wants.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Observer {
    /// Until when, by the monotonic clock. Renewed while the observer lives.
    pub until_ns: u64,
    /// A bit for each [`Verdict`] wanted.
    pub verdicts: u32,
    /// Zero: of a flow only its first packet. Else of all packets one in so many, at random.
    pub sample: u32,
}

shared!(Observer, 16, [u64, u32, u32]);

/// Declares an enum of a byte with its names, once.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal => $text:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant = $number,)+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The one of a number, if there is one.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Its name in tables and filters.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

named! {
    /// What became of a packet or a call.
    Verdict {
        /// A client's, sent to a backend.
        Translated = 0 => "translated",
        /// An answer, given the address the client asked.
        Replied = 1 => "replied",
        /// A client's, refused for want of a backend.
        Refused = 2 => "refused",
        /// Lost, for a [`crate::Reason`].
        Dropped = 3 => "dropped",
        /// A pod's, that left the cluster with the node's address.
        Masqueraded = 4 => "masqueraded",
        /// Nothing of ours.
        Passed = 5 => "passed",
    }
}

impl Verdict {
    /// Its bit in [`Observer::verdicts`].
    #[inline(always)]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

named! {
    /// Where it was seen.
    Point {
        /// connect().
        Connect = 0 => "connect",
        /// sendmsg() of a socket that is not connected.
        Send = 1 => "send",
        /// bind().
        Bind = 2 => "bind",
        /// In by the uplink.
        Uplink = 3 => "uplink",
        /// From a pod.
        Pod = 4 => "pod",
        /// Out by the uplink.
        Leaving = 5 => "leaving",
        /// Into a pod, by the node's routing.
        Entering = 6 => "entering",
    }
}

/// [`Told::flags`]: the first packet of a flow, or a call that opens one.
pub const TOLD_FIRST: u32 = 1;
/// [`Told::flags`]: an ICMP error about a packet; addresses and ports are those of the answer to it.
pub const TOLD_ERROR: u32 = 1 << 1;
/// [`Told::flags`]: told by the program at XDP, which leaves the packet to the one at tc, where its flow is no longer new. Who
/// is told of all packets is told of it there.
pub const TOLD_EARLY: u32 = 1 << 2;

/// One packet or socket call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Told {
    /// When, by the monotonic clock.
    pub time_ns: u64,
    /// The network namespace of the socket; zero for a packet.
    pub netns: u64,
    /// Whence; zero for a call, whose socket may have no address yet.
    pub source: Address,
    /// Whereto, before translation.
    pub destination: Address,
    /// Whence, after translation; zero where there was none.
    pub new_source: Address,
    /// Whereto, after translation; zero where there was none.
    pub new_destination: Address,
    /// Port in network order, as the other three.
    pub source_port: u16,
    /// Port.
    pub destination_port: u16,
    /// Port.
    pub new_source_port: u16,
    /// Port.
    pub new_destination_port: u16,
    /// The interface of a packet; zero for a call.
    pub ifindex: u32,
    /// The service port; zero for none.
    pub service: u32,
    /// The process of a call; zero for a packet.
    pub pid: u32,
    /// `TOLD_*`.
    pub flags: u32,
    /// How long the packet is from its IP header on; zero for a call.
    pub length: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// A [`Verdict`].
    pub verdict: u8,
    /// A [`Point`].
    pub point: u8,
    /// A [`crate::Reason`], when dropped.
    pub reason: u8,
    /// The name of the process of a call, filled up with zeros.
    pub process: [u8; 16],
}

shared!(
    Told,
    128,
    [
        u64, u64, Address, Address, Address, Address, u16, u16, u16, u16, u32, u32, u32, u32, u32, u8, u8,
        u8, u8, [u8; 16]
    ]
);
