//! A node and what surrounds it, in namespaces: the same hops for every peer, so that only what is measured differs.
//!
//! ```text
//!   outside 10.240.0.1 ── eth0 ┌ node 10.240.0.11 ┐ pstclient ── client pod 10.244.1.2
//!   (client)                   │                  │ pstserver ── server pod 10.244.1.3
//!                              └──────────────────┘
//! ```
//! Pods' links are as the node agent makes them: /32 addresses, a link-local gateway known by a permanent neighbour
//! entry, permanent neighbours and /32 routes on the node. Every world has namespaces of its own, and so its own
//! addresses, routes, rules and connection tracking. Must not know what is measured.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context, Result};
use penstock_tests::netns::{Netns, ifindex, ip, sysctl};
use penstock_tests::packet::STATION;

use crate::worker::{Kind, SERVER_PORTS, Worker};

pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 11);
pub const CLIENT_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);
pub const SERVER_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 3);
/// Every pod of the cluster.
pub const PODS: &str = "10.244.0.0/16";
/// Of whoever is not on the node.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);
/// Each pod's next hop, as in node-agent/network.
const GATEWAY: &str = "169.254.1.1";

pub const UPLINK: &str = "eth0";
pub const POD_LINKS: [(&str, Ipv4Addr); 2] = [("pstclient", CLIENT_POD), ("pstserver", SERVER_POD)];

/// A node with two pods and a neighbour, and no service.
pub struct World {
    pub node: Netns,
    pub client_pod: Netns,
    pub server_pod: Netns,
    pub outside: Netns,
}

/// The processes in a world.
pub struct Ends {
    pub server: Worker,
    pub client: Worker,
    pub outside: Worker,
}

impl World {
    pub fn new() -> Result<World> {
        let world = World {
            node: Netns::new()?,
            client_pod: Netns::new()?,
            server_pod: Netns::new()?,
            outside: Netns::new()?,
        };
        world.node.run(|| -> Result<()> {
            world.outside.join(UPLINK, &format!("{NODE}/24"), UPLINK, &format!("{OUTSIDE}/24"))?;
            ip(&format!("link set {UPLINK} address {STATION}"))?;
            sysctl("net.ipv4.ip_forward", "1")?;
            sysctl(&format!("net.ipv4.conf.{UPLINK}.rp_filter"), "2")?;
            for (pod, (link, address)) in [&world.client_pod, &world.server_pod].into_iter().zip(POD_LINKS) {
                plug_pod(pod, link, address)?;
            }
            Ok(())
        })?;
        world.outside.run(|| -> Result<()> {
            ip(&format!("route add {PODS} via {NODE}"))?;
            Ok(())
        })?;
        for netns in [&world.client_pod, &world.server_pod, &world.outside] {
            netns.run(prepare_host)?;
        }
        Ok(world)
    }

    /// Starts a server and clients; pods' processes in this cgroup, if any.
    pub fn start(&self, cgroup: Option<&Path>, cpu: usize) -> Result<Ends> {
        Ok(Ends {
            server: Worker::server(&self.server_pod, cgroup, cpu, SERVER_POD)?,
            client: Worker::client(&self.client_pod, cgroup, cpu)?,
            outside: Worker::client(&self.outside, None, cpu)?,
        })
    }

    /// The numbers of the pods' links on the node.
    pub fn pod_links(&self) -> Result<Vec<(u32, Ipv4Addr)>> {
        self.node.run(|| POD_LINKS.iter().map(|(link, address)| Ok((ifindex(link)?, *address))).collect())
    }
}

/// Where the server of a kind is reached without any service.
pub fn direct(kind: Kind) -> SocketAddrV4 {
    SocketAddrV4::new(SERVER_POD, SERVER_PORTS[0] + kind.port_offset())
}

fn plug_pod(pod: &Netns, link: &str, address: Ipv4Addr) -> Result<()> {
    pod.plug(link, "eth0")?;
    let [a, b, c, d] = address.octets();
    let octets = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}");
    let (pod_mac, host_mac) = (format!("0a:58:{octets}"), format!("0e:58:{octets}"));
    ip(&format!("link set {link} address {host_mac}"))?;
    sysctl(&format!("net.ipv4.conf.{link}.rp_filter"), "2")?;
    pod.run(|| -> Result<()> {
        ip(&format!("link set eth0 address {pod_mac}"))?;
        ip(&format!("address add {address}/32 dev eth0"))?;
        ip(&format!("neighbour replace {GATEWAY} lladdr {host_mac} dev eth0 nud permanent"))?;
        ip(&format!("route replace {GATEWAY} dev eth0 scope link"))?;
        ip(&format!("route replace default via {GATEWAY}"))?;
        Ok(())
    })?;
    ip(&format!("neighbour replace {address} lladdr {pod_mac} dev {link} nud permanent"))?;
    ip(&format!("route replace {address} dev {link} scope link src {NODE}")).map(drop)
}

/// What a host that connects all the time needs, the same in every world.
pub fn prepare_host() -> Result<()> {
    // BBR paces by timers, which would be measured too.
    sysctl("net.ipv4.tcp_congestion_control", "cubic")
        .or_else(|_| sysctl("net.ipv4.tcp_congestion_control", "reno"))?;
    sysctl("net.ipv4.ip_local_port_range", "10000 65000")?;
    sysctl("net.ipv4.tcp_tw_reuse", "1").context("letting closed connections' ports be used again")
}
