//! The services of a measurement: one that is used, in the midst of as many others as are asked for.
//!
//! It exists so that every peer serves the same. Must not know how any of them does.

use std::net::{Ipv4Addr, SocketAddrV4};

use penstock_dataplane::{Backend, Desired, Protocol, Service, ServiceKey};

use crate::worker::{Kind, SERVER_PORTS};
use crate::world::{NODE, SERVER_POD};

/// The address of the service that is used.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);
const SERVICE_PORTS: u16 = 8000;
const NODE_PORTS: u16 = 30_000;

/// One port of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub vip: Ipv4Addr,
    pub port: u16,
    pub udp: bool,
    pub node_port: Option<u16>,
    pub backends: Vec<SocketAddrV4>,
}

/// So many services; the one in the middle is used and has a port for each kind of measurement, the others have one.
pub fn fleet(services: u32, backends: u32) -> Vec<Port> {
    let other = |index: u32| Port {
        name: format!("other-{index}"),
        vip: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 100, 0, 1)) + index),
        port: 80,
        udp: false,
        node_port: None,
        backends: (0..backends)
            .map(|backend| {
                let pods = u32::from(Ipv4Addr::new(11, 0, 0, 1));
                SocketAddrV4::new(Ipv4Addr::from(pods + index * backends + backend), 8080)
            })
            .collect(),
    };
    let middle = services / 2;
    let before = (0..middle).map(other);
    let after = (middle + 1..services).map(other);
    before.chain(Kind::SERVED.into_iter().map(used)).chain(after).collect()
}

fn used(kind: Kind) -> Port {
    Port {
        name: format!("used-{}", kind.port_offset()),
        vip: VIP,
        port: SERVICE_PORTS + kind.port_offset(),
        udp: kind.is_udp(),
        node_port: Some(NODE_PORTS + kind.port_offset()),
        backends: SERVER_PORTS.map(|base| SocketAddrV4::new(SERVER_POD, base + kind.port_offset())).into(),
    }
}

/// Where the used service is reached from pods.
pub fn cluster_ip(kind: Kind) -> SocketAddrV4 {
    SocketAddrV4::new(VIP, SERVICE_PORTS + kind.port_offset())
}

/// Where it is reached from outside.
pub fn node_port(kind: Kind) -> SocketAddrV4 {
    SocketAddrV4::new(NODE, NODE_PORTS + kind.port_offset())
}

/// The same as our data plane is told it.
pub fn desired(fleet: &[Port]) -> Desired {
    let services = fleet.iter().map(|port| {
        let backends = port.backends.iter().map(|at| Backend {
            address: (*at.ip()).into(),
            port: at.port(),
            local: *at.ip() == SERVER_POD,
            ..Backend::default()
        });
        let service = Service {
            cluster_ips: vec![port.vip.into()],
            port: port.port,
            protocol: if port.udp { Protocol::Udp } else { Protocol::Tcp },
            node_port: port.node_port,
            backends: backends.collect(),
            ..Service::default()
        };
        (ServiceKey::new("bench", port.name.clone(), ""), service)
    });
    Desired { services: services.collect(), node_addresses: vec![NODE.into()], ..Desired::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_used_service_lies_in_the_middle_and_no_two_share_an_address() {
        let fleet = fleet(100, 3);
        assert_eq!(fleet.len(), 99 + Kind::SERVED.len());
        assert_eq!(fleet.iter().position(|port| port.vip == VIP), Some(50));
        let vips: std::collections::BTreeSet<_> = fleet.iter().map(|port| (port.vip, port.port)).collect();
        assert_eq!(vips.len(), fleet.len());
        let backends: std::collections::BTreeSet<_> = fleet.iter().flat_map(|port| &port.backends).collect();
        assert_eq!(backends.len(), 99 * 3 + Kind::SERVED.len() * 2);
    }
}
