//! What the programs did, by name: every translation is an event, every lost packet has a reason.
//!
//! Both are tallies of one per-CPU array, events first. New names go to the end of their list, so that an older
//! reader reads a newer map without mistaking one name for another.

use crate::shared;

/// The size of the array of tallies: events from zero, drop reasons from [`REASONS_START`].
pub const TALLIES_MAX: u32 = 128;
/// Where the drop reasons begin.
const REASONS_START: u32 = 64;

/// Declares an enum with its names, once.
macro_rules! tallies {
    ($(#[$meta:meta])* $name:ident from $start:ident { $($(#[$doc:meta])* $variant:ident = $number:literal => $text:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant = $number,)+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its place in the array of tallies.
            #[inline(always)]
            pub const fn index(self) -> u32 {
                $start + self as u32
            }

            /// The one of a number; of a number there is none of, the first.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$variant,)+
                    _ => Self::ALL[0],
                }
            }

            /// Its name in tables and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        const _: () = {
            let mut at = 0;
            while at < $name::ALL.len() {
                assert!($name::ALL[at] as usize == at, "numbers follow each other");
                at += 1;
            }
        };
    };
}

const EVENTS_START: u32 = 0;

tallies! {
    /// Something a program did for a packet or a socket call.
    Event from EVENTS_START {
        /// connect() to a service got a backend.
        ConnectTranslated = 0 => "connect_translated",
        /// connect() to a service without backends was refused.
        ConnectRefused = 1 => "connect_refused",
        /// A datagram to a service got a backend at sendmsg().
        SendTranslated = 2 => "send_translated",
        /// A datagram to a service without backends was refused.
        SendRefused = 3 => "send_refused",
        /// A datagram from a backend was given the service's address at recvmsg().
        ReceiveReversed = 4 => "receive_reversed",
        /// getpeername() answered with the service's address.
        PeerNamed = 5 => "peer_named",
        /// A bind() onto a NodePort was refused.
        BindRefused = 6 => "bind_refused",
        /// A packet from outside went to a backend on this node.
        UplinkToLocal = 7 => "uplink_to_local",
        /// A packet from outside was sent on to a backend on another node.
        UplinkToRemote = 8 => "uplink_to_remote",
        /// A reply that came back to this node was turned round to the client.
        UplinkReplied = 9 => "uplink_replied",
        /// A packet from a pod, not translated at its socket, went to a backend.
        PodToBackend = 10 => "pod_to_backend",
        /// A reply from a pod was turned round to the client.
        PodReplied = 11 => "pod_replied",
        /// A new flow was recorded.
        FlowCreated = 12 => "flow_created",
        /// Half of a flow had been evicted and was put back by the other half.
        FlowMended = 13 => "flow_mended",
        /// A packet to a NodePort without backends was left to the node's own stack, which refuses it.
        UplinkRefused = 14 => "uplink_refused",
        /// A connected socket's peer found no room: it works, but getpeername() tells the backend's address.
        PeerNotRecorded = 15 => "peer_not_recorded",
        /// An ICMP error about a translated packet was translated back.
        ErrorTranslated = 16 => "error_translated",
        /// A later fragment took the way of the first.
        FragmentFollowed = 17 => "fragment_followed",
        /// A pod's packet left the cluster with the node's address.
        Masqueraded = 18 => "masqueraded",
        /// An answer to such a packet was given the pod's address again.
        MasqueradeReplied = 19 => "masquerade_replied",
        /// An ARP request or a neighbour solicitation for an announced address was answered.
        NeighbourAnswered = 20 => "neighbour_answered",
        /// Somebody else says that an announced address is its own.
        AddressContested = 21 => "address_contested",
        /// An echo request to an announced address was answered.
        EchoAnswered = 22 => "echo_answered",
        /// A packet was sent on at XDP; it is counted as what it is as well.
        XdpSent = 23 => "xdp_sent",
        /// A packet went straight into a pod of this node; it is counted as what it is as well.
        PodReached = 24 => "pod_reached",
        /// A packet too big for the way to its backend was answered by an ICMP error.
        TooBigAnswered = 25 => "too_big_answered",
        /// A packet told the backend's node which address its client asked; it is counted as what it is as well.
        DirectTold = 26 => "direct_told",
        /// Another node's packet told so, and went to a backend on this node, which answers the client itself.
        DirectReceived = 27 => "direct_received",
        /// A pod's packet to a pod of another node was sent on past this node's routing; it is counted as what it is as well.
        PodSentOn = 28 => "pod_sent_on",
        /// Which backend a socket's datagrams go to, or which service their answers are of, was recorded.
        SendRecorded = 29 => "send_recorded",
    }
}

tallies! {
    /// Why a packet was dropped.
    Reason from REASONS_START {
        /// The service has no backend.
        NoBackend = 0 => "no_backend",
        /// The service has backends, but none on this node, and its traffic policy is Local.
        NoLocalBackend = 1 => "no_local_backend",
        /// The service's set is missing: maps and programs disagree.
        NoSet = 2 => "no_set",
        /// Headers that end too early or contradict themselves.
        Malformed = 3 => "malformed",
        /// A fragment whose first one, which carries the ports, has not come.
        Fragment = 4 => "fragment",
        /// Every source port towards this backend is taken.
        NoSourcePort = 5 => "no_source_port",
        /// The flow could not be recorded.
        FlowNotRecorded = 6 => "flow_not_recorded",
        /// No route to the backend.
        NoRoute = 7 => "no_route",
        /// The packet could not be rewritten.
        NotRewritten = 8 => "not_rewritten",
        /// The client is in none of the service's loadBalancerSourceRanges.
        SourceNotAllowed = 9 => "source_not_allowed",
        /// No hop left to send it on.
        HopsExceeded = 10 => "hops_exceeded",
        /// From an address that no packet from there may have.
        MartianSource = 11 => "martian_source",
        /// The node has no address of the packet's family to send it on with.
        NoNodeAddress = 12 => "no_node_address",
        /// Too big for the link it would leave by, and not answered: an error, a late fragment, or one of too many.
        TooBig = 13 => "too_big",
        /// A question for an announced address that no neighbour may ask so.
        NeighbourMalformed = 14 => "neighbour_malformed",
        /// No network policy of those that select the pod allows it.
        Policy = 15 => "policy",
        /// The pod has policies, and its table of what is allowed is missing: maps and programs disagree.
        NoPolicyTable = 16 => "no_policy_table",
    }
}

/// How many services' counts one inner map holds: counts take room for services that are there, on every CPU.
pub const SERVICE_COUNTS_PAGE: u32 = 256;

/// What happened for one service port on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ServiceCount {
    /// Connections translated at connect().
    pub connects: u64,
    /// Datagrams translated at sendmsg().
    pub datagrams: u64,
    /// Packets translated at an interface, towards backends.
    pub packets: u64,
    /// Packets and datagrams translated back.
    pub replies: u64,
    /// Connections, datagrams and packets refused because there is no backend.
    pub refused: u64,
    /// Packets dropped, for any reason.
    pub drops: u64,
}

/// Whose packets are dropped, and why.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PodDropKey {
    /// The node's end of the pod's link.
    pub ifindex: u32,
    /// The number of a [`Reason`].
    pub reason: u32,
}

shared!(ServiceCount, 48, [u64, u64, u64, u64, u64, u64]);
shared!(PodDropKey, 8, [u32, u32]);

const _: () = assert!(Event::ALL.len() as u32 <= REASONS_START, "events reach into the reasons");
const _: () =
    assert!(REASONS_START + Reason::ALL.len() as u32 <= TALLIES_MAX, "reasons reach beyond the array");
