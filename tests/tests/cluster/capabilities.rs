//! What a runtime hands to the plugin beside the sandbox, in the runtime's own spelling: host ports and bandwidth.

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::eventually;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("annotations_limit_how_fast_a_pod_is_in_each_direction", annotations),
    ("a_host_port_is_served_on_the_addresses_of_its_node", host_port),
];

const NODE: &str = "node-1";

fn annotations(cluster: &Cluster) -> Result<()> {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: slow\n  annotations:\n    kubernetes.io/ingress-bandwidth: 16M\n    \
         kubernetes.io/egress-bandwidth: 8M\nspec:\n  nodeName: {NODE}\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - {{name: main, image: \"penstock.local/demo:1\", args: [serve]}}\n"
    );
    cluster.kubectl_with(&["apply", "-f", "-"], &pod)?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/slow", "--timeout=90s"])?;
    let address = cluster.kubectl(&["get", "pod", "slow", "-o", "jsonpath={.status.podIP}"])?;
    let route = cluster.in_node(NODE, &["ip", "route", "show", &format!("{address}/32")])?;
    let link = route.split_whitespace().skip_while(|word| *word != "dev").nth(1);
    let link = link.with_context(|| format!("no device leads to {address}: {route}"))?;
    let into = cluster.in_node(NODE, &["tc", "qdisc", "show", "dev", link])?;
    ensure!(into.contains("tbf") && into.contains("rate 16Mbit"), "the node's end of the link has: {into}");
    let id = cluster.kubectl(&[
        "get",
        "pod",
        "slow",
        "-o",
        "jsonpath={.status.containerStatuses[0].containerID}",
    ])?;
    let pid = process_of(cluster, id.rsplit('/').next().unwrap_or_default())?;
    let network = format!("--net=/proc/{pid}/ns/net");
    let out = cluster.in_node(NODE, &["nsenter", &network, "tc", "qdisc", "show", "dev", "eth0"])?;
    ensure!(out.contains("tbf") && out.contains("rate 8Mbit"), "the pod's end of the link has: {out}");
    cluster.kubectl(&["delete", "pod", "slow"]).map(drop)
}

/// A process of a container, found by its cgroup.
fn process_of(cluster: &Cluster, container: &str) -> Result<String> {
    let path = format!("*/{container}/cgroup.procs");
    let found = cluster
        .in_node(NODE, &["find", "/sys/fs/cgroup", "-path", &path, "-exec", "cat", "{}", ";", "-quit"])?;
    found.lines().next().map(str::to_owned).with_context(|| format!("{container} has no process"))
}

fn host_port(cluster: &Cluster) -> Result<()> {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: ported\nspec:\n  nodeName: {NODE}\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - name: main\n    image: penstock.local/demo:1\n    args: [serve]\n    ports: [{{containerPort: 8080, hostPort: 9090}}]\n"
    );
    cluster.kubectl_with(&["apply", "-f", "-"], &pod)?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/ported", "--timeout=90s"])?;
    let path = format!(
        "jsonpath={{.items[?(@.metadata.name==\"{NODE}\")].status.addresses[?(@.type==\"InternalIP\")].address}}"
    );
    let addresses = cluster.kubectl(&["get", "nodes", "-o", &path])?;
    ensure!(!addresses.trim().is_empty(), "{NODE} has no address");
    for address in addresses.split_whitespace() {
        eventually(PATIENCE, || {
            let said = super::families::fetch(std::net::SocketAddr::new(address.parse()?, 9090))?;
            ensure!(said.contains("ported"), "{address} said {said:?}");
            Ok(())
        })?;
    }
    cluster.kubectl(&["delete", "pod", "ported"]).map(drop)
}
