//! What the programs remember of one client and one address: for whoever asks what becomes of a connection.
//!
//! Read apart from the rest: it changes with every packet, and the maps may hold a million flows of others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use penstock_ebpf_common::{
    Address, AffinityKey, AffinityValue, FlowKey, FlowValue, HALF_FORWARD, Peer, map,
};

use crate::DataplaneError;
use crate::kernel::{self, KernelMaps};
use crate::sys;

/// A client as the programs know one: its packets by their address, its sockets by the network namespace they are in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Client {
    /// Its address; none where it has many, as the node has, or is not known.
    pub address: Option<IpAddr>,
    /// The cookie of its network namespace; none for one outside.
    pub netns: Option<u64>,
}

/// What is remembered.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// Of whom.
    pub client: Client,
    /// The backends it keeps of any Service, whether its time is over or not.
    pub affinity: BTreeMap<AffinityKey, AffinityValue>,
    /// What its packets to the address become.
    pub flows: Vec<(FlowKey, FlowValue)>,
    /// Its sockets that are connected to the address.
    pub sockets: Vec<Connected>,
    /// How many sockets of the node, the programs do not know whose, keep a backend for their datagrams to the address.
    pub datagram_sockets: usize,
    /// When it was read, by the clock of its times.
    pub now_ns: u64,
}

/// A socket that is connected.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connected {
    /// The kernel's number of it.
    pub cookie: u64,
    /// To whom.
    pub peer: Peer,
    /// Its own port, which the programs do not know; none until somebody says it.
    pub port: Option<u16>,
}

impl Remembered {
    /// Takes note of sockets' own ports, by their cookies.
    pub fn know_ports(&mut self, ports: &BTreeMap<u64, u16>) {
        self.sockets.iter_mut().for_each(|socket| socket.port = ports.get(&socket.cookie).copied());
    }

    /// Reads it from an agent's directory on its bpf file system: of a client and its packets of a protocol to an address
    /// and port.
    pub fn observe(
        directory: &Path,
        client: Client,
        (address, port): (IpAddr, u16),
        protocol: u8,
    ) -> Result<Self, DataplaneError> {
        let maps = KernelMaps::open(directory)?;
        let (to, port) = (Address::from(address), port.to_be());
        let source = client.address.map(Address::from);
        let identities = [source, client.netns.map(Address::from_netns_cookie)];
        let mut found = Self { client, ..Self::default() };
        kernel::each(&maps.affinity, map::AFFINITY, |key, value| {
            if identities.contains(&Some(key.client)) {
                found.affinity.insert(*key, *value);
            }
        })?;
        maps.flows.memory()?.each(|key, value| {
            if key.half == HALF_FORWARD
                && (key.destination, key.destination_port, key.protocol) == (to, port, protocol)
                && source == Some(key.source)
            {
                found.flows.push((*key, *value));
            }
        });
        maps.peers.memory()?.each(|cookie, peer| {
            if (peer.vip, peer.vip_port, peer.protocol) == (to, port, protocol)
                && client.netns == Some(peer.netns)
            {
                found.sockets.push(Connected { cookie: *cookie, peer: *peer, port: None });
            }
        });
        kernel::each(&maps.socket_flows, map::SOCKET_FLOWS, |key, _| {
            let forward = key.half == u16::from(HALF_FORWARD);
            found.datagram_sockets += usize::from(forward && (key.address, key.port) == (to, port));
        })?;
        found.now_ns = sys::now_ns();
        Ok(found)
    }
}
