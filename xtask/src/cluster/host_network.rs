//! The host's side of the cluster's network: a bridge, a link and a network namespace a node, and routes.
//!
//! Pod and service addresses never leave the machine: blackhole routes for both ranges come before anything else, and
//! the routes to each node's pods, being more specific, win.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::layout::{Layout, NodeLayout};
use crate::command::words;

/// Makes the bridge, every node's namespace and link, and the blackhole routes.
pub fn create(layout: &Layout) -> Result<()> {
    for range in ranges(layout) {
        words(&format!("ip {} route replace blackhole {range}", family(&range)))?;
    }
    let bridge = layout.bridge();
    words(&format!("ip link add {bridge} type bridge"))
        .with_context(|| format!("cannot make the bridge {bridge}; `cargo xtask down` removes leftovers"))?;
    for address in layout.host_addresses() {
        words(&format!("ip address add {} dev {bridge} {}", with_prefix(address), undetected(address)))?;
    }
    words(&format!("ip link set {bridge} up"))?;
    layout.nodes().iter().try_for_each(|node| create_node(layout, node))
}

fn create_node(layout: &Layout, node: &NodeLayout) -> Result<()> {
    let NodeLayout { netns, host_link, addresses, .. } = node;
    let bridge = layout.bridge();
    let addresses = addresses.iter().map(|address| {
        format!("ip -n {netns} address add {} dev eth0 {}", with_prefix(*address), undetected(*address))
    });
    let lines = [
        format!("ip netns add {netns}"),
        format!("ip link add {host_link} type veth peer name eth0 netns {netns}"),
        format!("ip link set {host_link} master {bridge} up"),
        format!("ip -n {netns} link set lo up"),
        format!("ip -n {netns} link set eth0 up"),
    ];
    for line in lines.into_iter().chain(addresses) {
        words(&line).with_context(|| format!("cannot make the network of {}", node.name))?;
    }
    Ok(())
}

/// An address of the node network, with the length of its prefix.
fn with_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 })
}

/// Without detection of duplicates, which IPv6 has: nobody else is on the bridge, and an agent may use its address at once.
fn undetected(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "" } else { "nodad" }
}

/// Lets the host, where the API server runs, reach the pods of a node.
pub fn route_pods(node: &NodeLayout, pod_cidr: &str) -> Result<()> {
    let of_family = node.addresses.iter().find(|address| address.is_ipv6() == pod_cidr.contains(':'));
    let via =
        of_family.with_context(|| format!("{} has no address of the family of {pod_cidr}", node.name))?;
    words(&format!("ip {} route replace {pod_cidr} via {via}", family(pod_cidr))).map(drop)
}

fn ranges(layout: &Layout) -> Vec<String> {
    [layout.cluster_cidrs(), layout.service_cidrs()].concat()
}

fn family(range: &str) -> &'static str {
    if range.contains(':') { "-6" } else { "-4" }
}

/// The commands that undo [`create`] and [`route_pods`]; each may find nothing to do.
pub fn plan_removal(layout: &Layout) -> Vec<String> {
    // Links by name: the kernel takes a namespace apart at its leisure, and the links with it.
    let mut lines: Vec<String> = layout
        .nodes()
        .iter()
        .flat_map(|node| {
            [format!("ip link delete {}", node.host_link), format!("ip netns delete {}", node.netns)]
        })
        .collect();
    lines.push(format!("ip link delete {}", layout.bridge()));
    for range in ranges(layout) {
        lines.push(format!("ip {} route flush root {range}", family(&range)));
        lines.push(format!("ip {} route delete blackhole {range}", family(&range)));
    }
    lines
}
