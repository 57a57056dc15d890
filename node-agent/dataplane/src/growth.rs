//! When maps are to become larger while they are in use, and how large.
//!
//! A map that fills beyond four fifths is doubled, tables earlier, up to a ceiling that keeps its memory bounded. Of maps that evict only
//! what is alive counts: they fill up with what is over by themselves. Entries of sockets' datagram flows do not say
//! when they were used; of those counts how many are made within the time that somebody waits for an answer.

use std::collections::BTreeMap;

use penstock_ebpf_common::{
    AffinityKey, AffinityValue, Event, FLOW_CLOSING, FlowKey, FlowValue, PROTOCOL_UDP, map,
};

use crate::kernel;
use crate::load::State;
use crate::sweep;
use crate::{Dataplane, DataplaneError, Limits};

/// Beyond this share of its room a map grows.
const FULL_PERCENT: usize = 80;
/// The same of the table of flows, which gives entries up before it is full.
const FULL_TABLE_PERCENT: usize = 70;
/// The same of the table of peers, which has no place for some before it is full.
const FULL_PEERS_PERCENT: usize = 50;
/// As long as the programs continue a silent flow of datagrams (`ebpf/src/flow.rs`).
const DATAGRAM_IDLE_NS: u64 = 120 * SECOND_NS;
/// A connection that was silent this long is probably over; should it not be, it is still found until it is evicted.
const CONNECTION_IDLE_NS: u64 = 3600 * SECOND_NS;
/// For how long a socket's answers are to be known by their service although it sent nothing else: resolvers ask again after
/// 5 seconds, and give up after several times of that.
const SOCKET_FLOW_IDLE_NS: u64 = 30 * SECOND_NS;
/// The shortest time from which it is told how many are made in a longer one.
const RATE_NS_MIN: u64 = 10 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;

/// What is never exceeded by growing; who needs more says so with a flag. At these sizes the maps that take their memory at
/// once take about 110 MB for flows, 84 MB for peers, 60 MB for affinity and 27 MB for flows of sockets.
pub const CEILING: Limits = Limits {
    services_max: 262_144,
    vips_max: 1_048_576,
    source_ranges_max: 1_048_576,
    flows_max: 1_048_576,
    socket_flows_max: 262_144,
    peers_max: 1_048_576,
    affinity_max: 524_288,
    policy_peers_max: 1_048_576,
    policy_flows_max: 32_768,
};

/// How much is used of what can grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    pub services: usize,
    pub vips: usize,
    pub source_ranges: usize,
    pub flows: usize,
    pub socket_flows: usize,
    pub peers: usize,
    pub affinity: usize,
    pub policy_peers: usize,
}

/// How many socket flows had been made at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    count: u64,
    at_ns: u64,
}

impl Made {
    /// How many there are whose socket may wait for an answer, if as many are made on as since an earlier look. A look just
    /// before says nothing.
    fn waited_for(self, earlier: Self) -> Option<usize> {
        let within_ns = self.at_ns.saturating_sub(earlier.at_ns);
        let made = u128::from(self.count.saturating_sub(earlier.count));
        let is_long = within_ns >= RATE_NS_MIN;
        is_long.then(|| (made * u128::from(SOCKET_FLOW_IDLE_NS) / u128::from(within_ns)) as usize)
    }
}

/// The limits to go on with; none when there is room enough, or no more can be had.
pub fn plan_growth(now: &Limits, fill: &Fill, ceiling: &Limits) -> Option<Limits> {
    let grown_at = |percent: usize, max: u32, used: usize, ceiling: u32| {
        let is_full = |max: u32| used * 100 > max as usize * percent;
        let mut next = max;
        while is_full(next) && next < ceiling {
            next = next.saturating_mul(2).min(ceiling);
        }
        next
    };
    let grown = |max, used, ceiling| grown_at(FULL_PERCENT, max, used, ceiling);
    let next = Limits {
        services_max: grown(now.services_max, fill.services, ceiling.services_max),
        vips_max: grown(now.vips_max, fill.vips, ceiling.vips_max),
        source_ranges_max: grown(now.source_ranges_max, fill.source_ranges, ceiling.source_ranges_max),
        flows_max: grown_at(FULL_TABLE_PERCENT, now.flows_max, fill.flows, ceiling.flows_max),
        socket_flows_max: grown(now.socket_flows_max, fill.socket_flows, ceiling.socket_flows_max),
        peers_max: grown_at(FULL_PEERS_PERCENT, now.peers_max, fill.peers, ceiling.peers_max),
        affinity_max: grown(now.affinity_max, fill.affinity, ceiling.affinity_max),
        policy_peers_max: grown(now.policy_peers_max, fill.policy_peers, ceiling.policy_peers_max),
        policy_flows_max: now.policy_flows_max,
    };
    (next != *now).then_some(next)
}

impl Dataplane {
    /// The limits it goes by: what was asked for, or more where maps have more.
    pub fn limits(&self) -> Limits {
        self.state().limits
    }

    /// Gives back the room of what counts nothing. Returns how many entries went.
    pub fn forget_idle_counts(&self) -> Result<usize, DataplaneError> {
        let mut state = self.state();
        let State { maps, planner, .. } = &mut *state;
        sweep::forget_idle_counts(maps, planner.image())
    }

    /// How much of them is used. Reads flows, peers and remembered clients: milliseconds when there are many.
    pub fn fill(&self) -> Result<Fill, DataplaneError> {
        let policy_peers = self.policy_peers()?;
        let mut state = self.state();
        let State { maps, planner, made, .. } = &mut *state;
        let now = now_ns();
        let image = planner.image();
        let mut fill = Fill {
            services: planner.wanted_services(),
            vips: planner.wanted_vips(),
            source_ranges: image.ranges.len(),
            policy_peers,
            ..Fill::default()
        };
        maps.flows.memory()?.each(|key, value| fill.flows += usize::from(is_alive(key, value, now)));
        fill.peers = maps.peer_memory()?.count();
        let newest = Made { count: maps.tally(Event::SendRecorded.index())?, at_ns: now };
        if let Some(waited_for) = newest.waited_for(*made.get_or_insert(newest)) {
            fill.socket_flows = waited_for;
            *made = Some(newest);
        }
        let timeouts: BTreeMap<u32, u32> =
            image.sets.iter().map(|(id, set)| (*id, set.affinity_seconds)).collect();
        kernel::each(&maps.affinity, map::AFFINITY, |key: &AffinityKey, value: &AffinityValue| {
            let timeout = u64::from(timeouts.get(&key.set).copied().unwrap_or_default()) * SECOND_NS;
            fill.affinity += usize::from(now.saturating_sub(value.seen_ns) <= timeout);
        })?;
        Ok(fill)
    }
}

fn is_alive(key: &FlowKey, value: &FlowValue, now_ns: u64) -> bool {
    let idle = now_ns.saturating_sub(value.seen_ns);
    match key.protocol {
        PROTOCOL_UDP => idle <= DATAGRAM_IDLE_NS,
        _ => value.flags & FLOW_CLOSING == 0 && idle <= CONNECTION_IDLE_NS,
    }
}

/// The time by the clock that programs note.
fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours and lives through the call; it stays zero should the call fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * SECOND_NS + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearly_full_is_doubled_until_it_is_not_and_never_beyond_its_ceiling() {
        let now = Limits { services_max: 1000, flows_max: 1000, ..Limits::default() };
        assert_eq!(plan_growth(&now, &Fill { services: 800, ..Fill::default() }, &CEILING), None);
        let grown = plan_growth(&now, &Fill { services: 801, flows: 2700, ..Fill::default() }, &CEILING);
        assert_eq!(grown, Some(Limits { services_max: 2000, flows_max: 4000, ..now }));
        let ceiling = Limits { services_max: 1500, ..CEILING };
        let grown = plan_growth(&now, &Fill { services: 5000, ..Fill::default() }, &ceiling);
        assert_eq!(grown, Some(Limits { services_max: 1500, ..now }));
        assert_eq!(plan_growth(&grown.unwrap(), &Fill { services: 5000, ..Fill::default() }, &ceiling), None);
        let beyond = Limits { services_max: 9000, ..now };
        assert_eq!(plan_growth(&beyond, &Fill { services: 9000, ..Fill::default() }, &ceiling), None);
    }

    #[test]
    fn flows_of_sockets_are_as_many_as_are_made_while_somebody_waits_for_an_answer() {
        let made = |count, seconds| Made { count, at_ns: seconds * SECOND_NS };
        assert_eq!(made(9_000, 115).waited_for(made(0, 100)), Some(18_000));
        assert_eq!(made(9_000, 160).waited_for(made(0, 100)), Some(4_500));
        assert_eq!(made(9_000, 101).waited_for(made(0, 100)), None, "a burst");
        assert_eq!(made(9, 100).waited_for(made(9, 100)), None);
        assert_eq!(made(0, 120).waited_for(made(9, 100)), Some(0), "maps that were made anew");
        let now = Limits { socket_flows_max: 16_384, ..Limits::default() };
        let grown = |socket_flows| plan_growth(&now, &Fill { socket_flows, ..Fill::default() }, &CEILING);
        assert_eq!(grown(13_107), None);
        assert_eq!(grown(18_000), Some(Limits { socket_flows_max: 32_768, ..now }));
        assert_eq!(grown(1 << 20), Some(Limits { socket_flows_max: 262_144, ..now }));
    }

    #[test]
    fn flows_that_are_over_take_no_room() {
        let now = 7200 * SECOND_NS;
        let flow = |flags, seen_ns| FlowValue { flags, seen_ns, ..FlowValue::default() };
        let tcp = FlowKey { protocol: 6, ..FlowKey::default() };
        let udp = FlowKey { protocol: PROTOCOL_UDP, ..FlowKey::default() };
        assert!(is_alive(&tcp, &flow(0, now - 600 * SECOND_NS), now));
        assert!(!is_alive(&tcp, &flow(FLOW_CLOSING, now), now));
        assert!(!is_alive(&udp, &flow(0, now - 600 * SECOND_NS), now));
        assert!(is_alive(&udp, &flow(0, now), now));
    }
}
