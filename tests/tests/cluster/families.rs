//! Two address families: every pod and node has an address of each, and a Service that wants both is reached by both.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::eventually;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("pods_and_nodes_have_an_address_of_each_family", addresses),
    ("pods_of_different_nodes_reach_each_other_over_ipv6", across_nodes),
    ("a_dual_stack_service_is_reached_by_both_cluster_ips_both_node_ports_and_its_name", dual_service),
    ("a_dual_stack_load_balancer_is_reached_from_outside_by_both_addresses", load_balancer),
    ("a_service_gains_and_loses_its_second_family_under_way", in_place),
];

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: both, namespace: demo }
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: { app: hello }
  ports:
  - { name: http, port: 80, targetPort: http, nodePort: 30090 }
  - { name: who, port: 81, targetPort: who, protocol: UDP }
"#;

/// Whether the cluster has two families; says so when not.
fn is_dual(cluster: &Cluster) -> Result<bool> {
    let addresses = cluster.all_node_addresses()?;
    let dual = [true, false].iter().all(|v6| addresses.iter().any(|address| address.contains(':') == *v6));
    if !dual {
        println!(
            "SKIPPED: the cluster has one family: IPv6 is off on this machine, or PENSTOCK_IP_FAMILIES leaves it out"
        );
    }
    Ok(dual)
}

/// Pods of the demo: name, addresses, node.
pub fn pods(cluster: &Cluster) -> Result<Vec<(String, Vec<IpAddr>, String)>> {
    let path =
        "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIPs[*].ip}{\"\\n\"}{end}";
    let said = cluster.kubectl(&["-n", "demo", "get", "pods", "-l", "app=hello", "-o", path])?;
    said.lines()
        .map(|line| {
            let mut words = line.split(' ');
            let (name, node) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let ips = words.map(str::parse).collect::<Result<_, _>>().context("a pod's address")?;
            Ok((name.to_owned(), ips, node.to_owned()))
        })
        .collect()
}

fn addresses(cluster: &Cluster) -> Result<()> {
    if !is_dual(cluster)? {
        return Ok(());
    }
    let nodes = cluster.all_node_addresses()?;
    ensure!(nodes.len() == 2 * cluster.node_names().len(), "nodes have {nodes:?}");
    for (name, ips, _) in pods(cluster)? {
        let families: Vec<bool> = ips.iter().map(IpAddr::is_ipv4).collect();
        ensure!(families == [true, false], "{name} has {ips:?}");
    }
    Ok(())
}

fn demo(cluster: &Cluster, pod: &str, words: &[&str]) -> Result<String> {
    cluster.kubectl(&[&["-n", "demo", "exec", pod, "--", "demo"], words].concat())
}

fn across_nodes(cluster: &Cluster) -> Result<()> {
    if !is_dual(cluster)? {
        return Ok(());
    }
    let pods = pods(cluster)?;
    let nodes: BTreeSet<_> = pods.iter().map(|(_, _, node)| node).collect();
    ensure!(nodes.len() > 1, "all replicas are on {nodes:?}: nothing crosses");
    for (from, _, _) in &pods {
        for (to, ips, _) in &pods {
            let address = ips.iter().find(|ip| ip.is_ipv6()).context("no IPv6 address")?;
            let said = demo(cluster, from, &["fetch", &format!("http://[{address}]:8080/")])?;
            ensure!(said.contains(to.as_str()), "{from} asked {to} and {said} answered");
        }
    }
    Ok(())
}

pub fn all_answer(cluster: &Cluster, words: &[&str]) -> Result<()> {
    let replicas = pods(cluster)?.len();
    eventually(PATIENCE, || {
        let said = demo(cluster, "deploy/hello", words)?;
        let seen: BTreeSet<_> = said.lines().filter_map(|line| line.split(' ').nth(2)).collect();
        ensure!(seen.len() == replicas, "{words:?} reached only {seen:?}");
        Ok(())
    })
}

fn cluster_ips(cluster: &Cluster) -> Result<Vec<String>> {
    let path = "jsonpath={.spec.clusterIPs[*]}";
    let said = cluster.kubectl(&["-n", "demo", "get", "service", "both", "-o", path])?;
    Ok(said.split_whitespace().map(str::to_owned).collect())
}

fn host_of(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

fn dual_service(cluster: &Cluster) -> Result<()> {
    if !is_dual(cluster)? {
        return Ok(());
    }
    cluster.kubectl_with(&["apply", "-f", "-"], SERVICE)?;
    let ips = cluster_ips(cluster)?;
    ensure!(ips.len() == 2, "it has {ips:?}");
    for ip in &ips {
        all_answer(cluster, &["fetch", &format!("http://{}/", host_of(ip)), "40"])?;
        all_answer(cluster, &["ask", &format!("{}:81", host_of(ip)), "40"])?;
    }
    for address in cluster.all_node_addresses()? {
        let target = SocketAddr::new(address.parse()?, 30090);
        eventually(PATIENCE, || fetch(target).map(drop))?;
    }
    let slices = "jsonpath={range .items[*]}{.addressType}{\"\\n\"}{end}";
    let slices = cluster.kubectl(&[
        "-n",
        "demo",
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=both",
        "-o",
        slices,
    ])?;
    let families: BTreeSet<_> = slices.lines().collect();
    ensure!(families == BTreeSet::from(["IPv4", "IPv6"]), "its slices are of {families:?}");
    let said = demo(cluster, "deploy/hello", &["resolve", "both.demo.svc.cluster.local"])?;
    let named: BTreeSet<_> = said.lines().map(str::to_owned).collect();
    ensure!(named == BTreeSet::from_iter(ips.clone()), "the name leads to {named:?}, it has {ips:?}");
    let dns = "jsonpath={.spec.clusterIPs[*]}";
    let dns = cluster.kubectl(&["-n", "kube-system", "get", "service", "kube-dns", "-o", dns])?;
    ensure!(dns.split_whitespace().count() == 2, "DNS is served on {dns}");
    cluster.kubectl(&["-n", "demo", "delete", "service", "both"]).map(drop)
}

/// What a server of the demo answers.
pub fn fetch(target: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: both\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.contains("hello from"), "{target} said {answer:?}");
    Ok(answer)
}

fn load_balancer(cluster: &Cluster) -> Result<()> {
    if !is_dual(cluster)? {
        return Ok(());
    }
    let balanced = SERVICE.replace("NodePort\n", "LoadBalancer\n").replace("name: both", "name: balanced");
    cluster.kubectl_with(&["apply", "-f", "-"], &balanced.replace(", nodePort: 30090", ""))?;
    let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
    let mut addresses = Vec::new();
    eventually(PATIENCE, || {
        let said = cluster.kubectl(&["-n", "demo", "get", "service", "balanced", "-o", path])?;
        addresses = said.split_whitespace().map(str::parse).collect::<Result<Vec<IpAddr>, _>>()?;
        ensure!(addresses.len() == 2, "it has {addresses:?}");
        Ok(())
    })?;
    ensure!(addresses[0].is_ipv4() && addresses[1].is_ipv6(), "it has {addresses:?}");
    for address in addresses {
        eventually(PATIENCE, || fetch(SocketAddr::new(address, 80)).map(drop))?;
    }
    cluster.kubectl(&["-n", "demo", "delete", "service", "balanced"]).map(drop)
}

fn in_place(cluster: &Cluster) -> Result<()> {
    if !is_dual(cluster)? {
        return Ok(());
    }
    let single = SERVICE.replace("RequireDualStack", "SingleStack");
    cluster.kubectl_with(&["apply", "-f", "-"], &single)?;
    let first = cluster_ips(cluster)?;
    ensure!(first.len() == 1, "it has {first:?}");
    let policy = |policy: &str| {
        let patch = format!("{{\"spec\":{{\"ipFamilyPolicy\":\"{policy}\"}}}}");
        cluster.kubectl(&["-n", "demo", "patch", "service", "both", "--type=merge", "-p", &patch]).map(drop)
    };
    policy("PreferDualStack")?;
    let both = cluster_ips(cluster)?;
    ensure!(both.len() == 2 && both[0] == first[0], "it has {both:?}");
    all_answer(cluster, &["fetch", &format!("http://{}/", host_of(&both[1])), "40"])?;
    policy("SingleStack")?;
    ensure!(cluster_ips(cluster)? == first);
    let gone = format!("http://{}/", host_of(&both[1]));
    eventually(PATIENCE, || {
        ensure!(demo(cluster, "deploy/hello", &["fetch", &gone]).is_err(), "{gone} still answers");
        Ok(())
    })?;
    all_answer(cluster, &["fetch", &format!("http://{}/", first[0]), "40"])?;
    cluster.kubectl(&["-n", "demo", "delete", "service", "both"]).map(drop)
}
