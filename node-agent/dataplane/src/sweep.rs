//! What existed is acted on when a backend leaves: its UDP flows and the clients it kept are forgotten.
//!
//! Called after the sets were swapped, and again when no program runs any more that saw the former sets: one that did
//! may have put back what was swept. A TCP flow lives until its backend's endpoint is gone; then it is
//! forgotten too, so that the next packet is answered by a reset instead of by nobody.
//! Of datagram flows, a socket's or an interface's, the way back stays until the endpoint is gone: an answer already under
//! way must still come, and seem to come from the service.

use std::collections::{BTreeMap, BTreeSet};

use penstock_ebpf_common::{
    AffinityKey, AffinityValue, FLOW_CLOSING, FlowKey, FlowValue, HALF_FORWARD, OpenKey, PROTOCOL_UDP,
    Picked, SocketFlowKey, SocketFlowValue, map,
};

use crate::DataplaneError;
use crate::image::{Endpoint, MapImage, Set, set_ids};
use crate::kernel::{self, KernelMaps};
use crate::noted::Noted;

/// Backends that left, by service.
pub type Departed = BTreeMap<u32, BTreeSet<Endpoint>>;

/// What is over by a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Backends that left all sets of their service.
    pub departed: Departed,
    /// Backends that no client keeps any more, by set.
    pub unkept: BTreeMap<u32, BTreeSet<Endpoint>>,
}

/// A packet may put one half of a flow back while the other is still there; the next pass takes both. The last finds none.
const PASSES_MAX: usize = 4;

/// Forgets what leads to backends that left, and the connections of those that are gone. Reads only maps in which something
/// was noted for their services. Returns how many flow halves went.
pub fn apply_departure(
    maps: &mut KernelMaps,
    left: &Left,
    gone: &Departed,
    noted: Noted,
) -> Result<usize, DataplaneError> {
    let departed = &left.departed;
    let mut flows = 0;
    if noted.datagrams > 0 {
        flows += sweep_socket_flows(maps, departed)?;
    }
    if noted.packets > 0 {
        flows += sweep_flows(maps, departed, gone)?;
    }
    if noted != Noted::default() && !left.unkept.is_empty() {
        kernel::sweep(&mut maps.affinity, map::AFFINITY, |key: &AffinityKey, value: &AffinityValue| {
            left.unkept.get(&key.set).is_some_and(|gone| gone.contains(&(value.address, value.port)))
        })?;
    }
    Ok(flows)
}

/// Forgets counts of open connections that count none, of backends that are in no set of their service: they mean the same
/// as no count. Returns how many there were.
pub fn forget_idle_counts(maps: &mut KernelMaps, image: &MapImage) -> Result<usize, DataplaneError> {
    let has = |set: &Set, backend: u32| set.backends.iter().any(|it| it.id == backend);
    kernel::sweep(&mut maps.open, map::OPEN, |key: &OpenKey, count| {
        let mut sets = image.sets.range(set_ids(key.service));
        *count <= 0 && !sets.any(|(_, set)| has(set, key.backend))
    })
}

/// Forgets which clients kept backends that are not in their sets any more: an earlier agent may have been ended between
/// its writing a set and its acting on who left.
pub fn forget_unkept(maps: &mut KernelMaps, image: &MapImage) -> Result<(), DataplaneError> {
    let kept = image.sets.iter().filter(|(_, set)| set.affinity_seconds > 0);
    let kept: BTreeMap<u32, BTreeSet<Endpoint>> =
        kept.map(|(id, set)| (*id, set.endpoints().collect())).collect();
    kernel::sweep(&mut maps.affinity, map::AFFINITY, |key: &AffinityKey, value: &AffinityValue| {
        !kept.get(&key.set).is_some_and(|endpoints| endpoints.contains(&(value.address, value.port)))
    })
    .map(drop)
}

/// Entries of these services.
pub fn picked<'a>(services: impl Iterator<Item = &'a u32>) -> Picked {
    let mut picked = Picked::NONE;
    services.for_each(|service| picked.pick(*service));
    picked
}

pub fn left(departed: &Departed, service: u32, endpoint: Endpoint) -> bool {
    departed.get(&service).is_some_and(|gone| gone.contains(&endpoint))
}

fn socket_flow_is_over(departed: &Departed, key: &SocketFlowKey, value: &SocketFlowValue) -> bool {
    key.half == u16::from(HALF_FORWARD) && left(departed, value.service, (value.address, value.port))
}

fn flow_is_over(departed: &Departed, gone: &Departed, key: &FlowKey, value: &FlowValue) -> bool {
    let backend = backend_of(key, value);
    let leads_there = key.protocol == PROTOCOL_UDP && key.half == HALF_FORWARD;
    leads_there && left(departed, value.service, backend) || left(gone, value.service, backend)
}

/// Whether a half is to be kept for answers alone from now on.
fn only_leads_back(departed: &Departed, gone: &Departed, key: &FlowKey, value: &FlowValue) -> bool {
    let backend = backend_of(key, value);
    key.protocol == PROTOCOL_UDP
        && key.half != HALF_FORWARD
        && value.flags & FLOW_CLOSING == 0
        && left(departed, value.service, backend)
        && !left(gone, value.service, backend)
}

fn backend_of(key: &FlowKey, value: &FlowValue) -> Endpoint {
    if key.half == HALF_FORWARD {
        (value.destination, value.destination_port)
    } else {
        (key.source, key.source_port)
    }
}

/// Forgets flows of sockets that are not connected. Returns how many halves went.
fn sweep_socket_flows(maps: &mut KernelMaps, departed: &Departed) -> Result<usize, DataplaneError> {
    let mut over = Vec::new();
    maps.each_socket_flow(&picked(departed.keys()), |key, value| {
        if socket_flow_is_over(departed, key, value) {
            over.push(*key);
        }
    })?;
    for key in &over {
        kernel::gone(maps.socket_flows.remove(key), map::SOCKET_FLOWS)?;
    }
    Ok(over.len())
}

/// Forgets flows of interfaces. Returns how many halves went.
fn sweep_flows(maps: &mut KernelMaps, departed: &Departed, gone: &Departed) -> Result<usize, DataplaneError> {
    let memory = maps.flows.memory()?;
    let of = picked(departed.keys().chain(gone.keys()));
    let mut swept = 0;
    for _ in 0..PASSES_MAX {
        let (mut over, mut back) = (Vec::new(), Vec::new());
        memory.each_picked(&of, |key, value| {
            if flow_is_over(departed, gone, key, value) {
                over.push(*key);
            } else if only_leads_back(departed, gone, key, value) {
                back.push(*key);
            }
        });
        // First the ways back are marked: until then a packet on one might put the way there back.
        back.iter().for_each(|key| memory.close(key));
        for key in &over {
            memory.remove(key);
        }
        swept += over.len();
        if over.is_empty() {
            break;
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use penstock_ebpf_common::{Address, HALF_REPLY, PROTOCOL_TCP};

    use super::*;

    fn at(last: u8) -> Address {
        Address::from(std::net::IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn a_udp_flow_leads_to_its_backend_no_more_and_back_until_its_endpoint_is_gone_and_tcp_stays_as_long() {
        let none = Departed::new();
        let departed = Departed::from([(7, BTreeSet::from([(at(9), 53)]))]);
        let key = FlowKey {
            source: at(1),
            destination: at(2),
            protocol: PROTOCOL_UDP,
            half: HALF_FORWARD,
            ..FlowKey::default()
        };
        let value = FlowValue {
            source: at(1),
            destination: at(9),
            destination_port: 53,
            service: 7,
            ..FlowValue::default()
        };
        let (other_key, other_value) = (key.other_key(&value), key.other_value(&value));
        assert_eq!(other_key.half, HALF_REPLY);
        assert!(flow_is_over(&departed, &none, &key, &value));
        assert!(!flow_is_over(&departed, &none, &other_key, &other_value));
        assert!(only_leads_back(&departed, &none, &other_key, &other_value));
        assert!(!only_leads_back(&departed, &none, &key, &value));
        assert!(
            flow_is_over(&departed, &departed, &key, &value)
                && flow_is_over(&departed, &departed, &other_key, &other_value)
                && !only_leads_back(&departed, &departed, &other_key, &other_value)
        );
        let tcp = FlowKey { protocol: PROTOCOL_TCP, ..key };
        assert!(!flow_is_over(&departed, &none, &tcp, &value));
        assert!(flow_is_over(&departed, &departed, &tcp, &value));
        assert!(
            !flow_is_over(&departed, &none, &key, &FlowValue { service: 8, ..value }),
            "another service keeps its flow"
        );
        assert!(
            !flow_is_over(&departed, &none, &key, &FlowValue { destination: at(8), ..value }),
            "another backend"
        );
    }
}
