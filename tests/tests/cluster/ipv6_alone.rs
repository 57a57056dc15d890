//! A cluster that has no address of IPv4: a second one, beside that of the other scenarios, with two nodes.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::Cluster;

use super::{Scenario, families, sessions};

pub const SCENARIOS: &[Scenario] =
    &[("a_cluster_of_ipv6_alone_serves_names_services_sessions_and_the_outside", ipv6_alone)];

const NODES: u16 = 2;
const NODE_PORT: u16 = 30_080;

fn ipv6_alone(_: &Cluster) -> Result<()> {
    let off = std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    if off.map_or(true, |off| off.trim() != "0") {
        println!("SKIPPED: IPv6 is off on this machine");
        return Ok(());
    }
    let cluster = Cluster::up_with("six", NODES, "ipv6")?;
    every_address_is_of_ipv6(&cluster)?;
    for node in cluster.all_node_addresses()? {
        families::fetch(SocketAddr::new(node.parse()?, NODE_PORT))?;
    }
    pods_reach_each_other_and_services_by_name(&cluster)?;
    what_leaves_has_the_node_s_address(&cluster)?;
    sessions::logs(&cluster)?;
    sessions::exec(&cluster)?;
    sessions::port_forward(&cluster)
}

fn every_address_is_of_ipv6(cluster: &Cluster) -> Result<()> {
    let asked = [
        ("nodes", "{.items[*].status.addresses[?(@.type==\"InternalIP\")].address}"),
        ("pods", "{.items[*].status.podIPs[*].ip} {.items[*].status.hostIPs[*].ip}"),
        ("services", "{.items[*].spec.clusterIPs[*]}"),
        ("endpointslices", "{.items[*].endpoints[*].addresses[*]}"),
    ];
    for (kind, path) in asked {
        let path = format!("jsonpath={path}");
        let said = cluster.kubectl(&["get", kind, "--all-namespaces", "-o", &path])?;
        let addresses: Vec<IpAddr> = said
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| said.clone())?;
        ensure!(!addresses.is_empty() && addresses.iter().all(IpAddr::is_ipv6), "{kind} have {addresses:?}");
    }
    Ok(())
}

fn demo(cluster: &Cluster, pod: &str, words: &[&str]) -> Result<String> {
    cluster.kubectl(&[&["-n", "demo", "exec", pod, "--", "demo"], words].concat())
}

fn pods_reach_each_other_and_services_by_name(cluster: &Cluster) -> Result<()> {
    let pods = families::pods(cluster)?;
    ensure!(pods.iter().any(|(.., node)| *node != pods[0].2), "all replicas are on {}", pods[0].2);
    for (to, ips, _) in &pods {
        let url = format!("http://[{}]:8080/", ips.first().context("a pod without an address")?);
        let said = demo(cluster, &pods[0].0, &["fetch", &url])?;
        ensure!(said.contains(to.as_str()), "{to} was asked and {said} answered");
    }
    // The name of the API server is served by the same server as all others, at an address of IPv6.
    let named = demo(cluster, "deploy/hello", &["resolve", "kubernetes.default.svc.cluster.local"])?;
    ensure!(named.lines().all(|line| line.contains(':')) && !named.is_empty(), "the name leads to {named}");
    families::all_answer(cluster, &["fetch", "http://hello.demo/", "40"])?;
    families::all_answer(cluster, &["ask", "hello.demo:81", "40"])
}

/// Who is outside sees a node and answers it, for nobody there knows the way to pods.
fn what_leaves_has_the_node_s_address(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.all_node_addresses()?;
    let first: std::net::Ipv6Addr = nodes.first().context("no nodes")?.parse()?;
    // The machine is the first host of the node network.
    let [a, b, c, d, ..] = first.segments();
    let outside = TcpListener::bind((std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 1), 0))?;
    let at = outside.local_addr()?;
    let seen = std::thread::spawn(move || -> Result<IpAddr> {
        let (mut stream, peer) = outside.accept()?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // The whole head, or closing would reset what the client still writes.
        let head = BufReader::new(&stream).lines().map_while(Result::ok);
        let _lines = head.take_while(|line| !line.is_empty()).count();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nyes")?;
        Ok(peer.ip())
    });
    let said = demo(cluster, "deploy/hello", &["fetch", &format!("http://{at}/")])?;
    let seen = seen.join().map_err(|_| anyhow::anyhow!("the server outside panicked"))??;
    ensure!(said.contains("yes"), "outside said {said:?}");
    ensure!(nodes.contains(&seen.to_string()), "{seen} was seen outside, nodes have {nodes:?}");
    Ok(())
}
