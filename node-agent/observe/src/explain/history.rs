//! What is there of a client already: connections that go on as they began, and the backend that affinity holds it to.
//!
//! Follows `ebpf/src/{flow,affinity}.rs`. Must not know what becomes of a connection that is new.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use penstock_dataplane::{Connected, Remembered, Set};
use penstock_ebpf_common::{
    Address, AffinityKey, Backend, FLOW_CLOSING, FLOW_MASQUERADE, FlowKey, FlowValue, PROTOCOL_UDP,
};

use super::answer::Explaining;
use super::question::Question;

const SECOND_NS: u64 = 1_000_000_000;
/// How long a silent flow of datagrams may be continued.
const DATAGRAM_IDLE_NS: u64 = 120 * SECOND_NS;

/// The client's sockets that are connected, or the one with the port that is asked for.
pub(super) fn sockets(told: &mut Explaining<'_>, remembered: &Remembered, question: &Question) {
    match question.source_port {
        None => {
            let backends = remembered.sockets.iter().map(|it| at(it.peer.backend, it.peer.backend_port));
            for (backend, sockets) in count(backends) {
                let which = format!("{sockets} connected {}", plural(sockets, "socket"));
                told.established(backend, sockets, &which);
            }
        }
        Some(port) => socket(told, &remembered.sockets, port),
    }
    if question.protocol == PROTOCOL_UDP && remembered.datagram_sockets > 0 {
        let sockets = remembered.datagram_sockets;
        told.step(
            "datagrams",
            format!(
                "{sockets} {} of this node, it is not known whose, {} the backend of the first datagram",
                plural(sockets, "socket"),
                if sockets == 1 { "keeps" } else { "keep" }
            ),
        );
    }
}

/// The client's socket with a port.
fn socket(told: &mut Explaining<'_>, sockets: &[Connected], port: u16) {
    match sockets.iter().find(|it| it.port == Some(port)) {
        Some(Connected { peer, .. }) => {
            told.established(at(peer.backend, peer.backend_port), 1, "this one is connected");
        }
        None if sockets.iter().all(|it| it.port.is_some()) => {
            told.step("established", format!("none from port {port}: what follows is of a new one"));
        }
        None => told.suggest(
            "the client's sockets could not be listed, so that their ports are not known: see `ss` in its network namespace"
                .to_owned(),
        ),
    }
}

/// The client's flows through an interface, or the one from the port that is asked for.
pub(super) fn flows(told: &mut Explaining<'_>, remembered: &Remembered, question: &Question) {
    let live = remembered.flows.iter().filter(|(key, value)| is_live(key, value, remembered.now_ns));
    let Some(port) = question.source_port else {
        for (backend, flows) in count(live.map(|(_, value)| at(value.destination, value.destination_port))) {
            let which = format!("{flows} {} of this client", plural(flows, "connection"));
            told.established(backend, flows, &which);
        }
        return;
    };
    match live.clone().find(|(key, _)| key.source_port == port.to_be()) {
        Some((_, value)) => {
            let ago = remembered.now_ns.saturating_sub(value.seen_ns) / SECOND_NS;
            let which = format!("this one, seen {ago} s ago,");
            told.established(at(value.destination, value.destination_port), 1, &which);
        }
        None => told.step("established", format!("none from port {port}: what follows is of a new one")),
    }
}

/// The backend that affinity holds a client to, in a set with its number. `client` is what the programs know it by; none where
/// it is not known.
pub(super) fn kept(
    told: &mut Explaining<'_>,
    remembered: &Remembered,
    (number, set): (u32, &Set),
    client: Option<Address>,
) -> Option<Backend> {
    let value = remembered.affinity.get(&AffinityKey { client: client?, set: number, zero: 0 })?;
    let silent_ns = remembered.now_ns.saturating_sub(value.seen_ns);
    let left_ns = (u64::from(set.affinity_seconds) * SECOND_NS).checked_sub(silent_ns)?;
    if set.affinity_seconds == 0 {
        return None;
    }
    told.kept(at(value.address, value.port), left_ns / SECOND_NS);
    Some(Backend { address: value.address, port: value.port, local: value.local, id: value.id })
}

/// Whether the next packet continues it.
fn is_live(key: &FlowKey, value: &FlowValue, now_ns: u64) -> bool {
    value.flags & (FLOW_CLOSING | FLOW_MASQUERADE) == 0
        && (key.protocol != PROTOCOL_UDP || now_ns.saturating_sub(value.seen_ns) <= DATAGRAM_IDLE_NS)
}

fn count(backends: impl Iterator<Item = SocketAddr>) -> BTreeMap<SocketAddr, usize> {
    let mut counts = BTreeMap::new();
    backends.for_each(|backend| *counts.entry(backend).or_default() += 1);
    counts
}

fn at(address: Address, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), u16::from_be(port))
}

fn plural(count: usize, one: &str) -> String {
    if count == 1 { one.to_owned() } else { format!("{one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(flags: u16, protocol: u8) -> (FlowKey, FlowValue) {
        let value = FlowValue { flags, seen_ns: SECOND_NS, ..FlowValue::default() };
        (FlowKey { protocol, ..FlowKey::default() }, value)
    }

    #[test]
    fn a_flow_is_there_until_it_closes_and_one_of_datagrams_until_it_is_silent() {
        let after = |seconds: u64| (1 + seconds) * SECOND_NS;
        for (flags, protocol, seconds, live) in [
            (0, 6, 3600, true),
            (FLOW_CLOSING, 6, 0, false),
            (0, PROTOCOL_UDP, 120, true),
            (0, PROTOCOL_UDP, 121, false),
            (FLOW_MASQUERADE, 6, 0, false),
        ] {
            let (key, value) = flow(flags, protocol);
            assert_eq!(is_live(&key, &value, after(seconds)), live, "{flags} {protocol} {seconds}");
        }
    }
}
