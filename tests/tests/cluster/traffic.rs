//! Traffic: by DNS name, ClusterIP and NodePort, TCP and UDP, within a node and across; and the proof of who carried it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::{eventually, until};
use penstock_tests::load::Load;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("a_pod_reaches_all_replicas_by_name_and_by_cluster_ip", by_name_and_cluster_ip),
    ("curl_in_a_pod_reaches_all_replicas_by_name_and_by_cluster_ip", by_curl),
    ("a_pod_reaches_all_replicas_over_udp", over_udp),
    ("every_node_serves_the_node_port_from_every_replica", by_node_port),
    ("pods_of_different_nodes_reach_each_other", across_nodes),
    ("the_ebpf_programs_carried_it_and_no_packet_filter_rule_is_ours", proof),
    ("a_deleted_replica_is_replaced_and_its_end_fails_no_request", replaced_replica),
];

const REPLICAS: usize = 3;

/// Runs the demo's client in a pod of the demo and returns which pods answered.
fn who_answers(cluster: &Cluster, words: &[&str]) -> Result<BTreeSet<String>> {
    let mut line = vec!["--namespace", "demo", "exec", "deploy/hello", "--", "demo"];
    line.extend(words);
    let said = cluster.kubectl(&line)?;
    Ok(said
        .lines()
        .filter_map(|line| Some(line.strip_prefix("hello from ")?.split(' ').next()?.to_owned()))
        .collect())
}

fn all_replicas(cluster: &Cluster, words: &[&str]) -> Result<()> {
    eventually(PATIENCE, || {
        let seen = who_answers(cluster, words)?;
        ensure!(seen.len() == REPLICAS, "{words:?} reached only {seen:?}");
        Ok(())
    })
}

fn cluster_ip(cluster: &Cluster) -> Result<String> {
    cluster.kubectl(&["--namespace", "demo", "get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}"])
}

fn by_name_and_cluster_ip(cluster: &Cluster) -> Result<()> {
    for name in ["hello", "hello.demo", "hello.demo.svc.cluster.local"] {
        all_replicas(cluster, &["fetch", &format!("http://{name}/"), "40"])?;
    }
    all_replicas(cluster, &["fetch", &format!("http://{}/", cluster_ip(cluster)?), "40"])
}

/// A pod that has this machine's own curl, with the libraries it is linked to.
const CURL_POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: curl, namespace: demo }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: curl
    image: penstock.local/demo:1
    command: [sleep, "3600"]
    volumeMounts:
    - { name: usr, mountPath: /usr, readOnly: true }
    - { name: lib, mountPath: /lib, readOnly: true }
    - { name: lib64, mountPath: /lib64, readOnly: true }
  volumes:
  - { name: usr, hostPath: { path: /usr, type: Directory } }
  - { name: lib, hostPath: { path: /lib } }
  - { name: lib64, hostPath: { path: /lib64 } }
"#;

fn by_curl(cluster: &Cluster) -> Result<()> {
    cluster.kubectl_with(&["apply", "-f", "-"], CURL_POD)?;
    cluster.kubectl(&["-n", "demo", "wait", "--for=condition=Ready", "pod/curl", "--timeout=60s"])?;
    for host in ["hello", "hello.demo", "hello.demo.svc.cluster.local", &cluster_ip(cluster)?] {
        eventually(PATIENCE, || {
            // One connection each, or curl would keep its first one.
            let url = format!("http://{host}/?[1-30]");
            let words = ["-n", "demo", "exec", "curl", "--", "/usr/bin/curl", "-sSf", "-m", "5"];
            let said = cluster.kubectl(&[&words[..], &["-H", "Connection: close", &url]].concat())?;
            let seen: BTreeSet<_> =
                said.lines().filter_map(|line| line.strip_prefix("hello from ")?.split(' ').next()).collect();
            ensure!(seen.len() == REPLICAS, "curl http://{host}/ reached only {seen:?}");
            Ok(())
        })?;
    }
    cluster.kubectl(&["-n", "demo", "delete", "pod", "curl"]).map(drop)
}

fn over_udp(cluster: &Cluster) -> Result<()> {
    all_replicas(cluster, &["ask", "hello.demo:81", "40"])
}

fn by_node_port(cluster: &Cluster) -> Result<()> {
    for address in cluster.node_addresses()? {
        let mut seen = BTreeSet::new();
        until(PATIENCE, &format!("all replicas answer at {address}"), || {
            let answer = ask_http(&format!("{address}:30080"));
            seen.extend(answer.ok().and_then(|text| text.split(' ').nth(2).map(str::to_owned)));
            seen.len() == REPLICAS
        })?;
    }
    Ok(())
}

pub fn ask_http(address: &str) -> Result<String> {
    use std::io::{Read, Write};
    let target: SocketAddr = address.parse()?;
    let patience = std::time::Duration::from_secs(20);
    let mut stream = std::net::TcpStream::connect_timeout(&target, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").context("the answer is not HTTP")?.1.to_owned())
}

/// Every pod of the demo fetches straight from every other: no service in between.
fn across_nodes(cluster: &Cluster) -> Result<()> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.spec.nodeName}{\"\\n\"}{end}";
    let pods = cluster.kubectl(&["--namespace", "demo", "get", "pods", "-o", path])?;
    let pods: Vec<Vec<&str>> = pods.lines().map(|line| line.split(' ').collect()).collect();
    let nodes: BTreeSet<_> = pods.iter().map(|pod| pod[2]).collect();
    ensure!(nodes.len() > 1, "all replicas are on {nodes:?}: nothing crosses");
    for from in &pods {
        for to in &pods {
            let url = format!("http://{}:8080/", to[1]);
            let said =
                cluster.kubectl(&["--namespace", "demo", "exec", from[0], "--", "demo", "fetch", &url])?;
            ensure!(said.contains(to[0]), "{} asked {} and {said} answered", from[0], to[0]);
        }
    }
    Ok(())
}

fn proof(cluster: &Cluster) -> Result<()> {
    let translated = |node: &str| -> Result<u64> { Ok(sum(&cluster.counters(node)?)) };
    let node = cluster.node_names().remove(0);
    let before = translated(&node)?;
    let address = cluster.node_addresses()?.remove(0);
    for _ in 0..20 {
        ask_http(&format!("{address}:30080"))?;
    }
    let after = translated(&node)?;
    ensure!(after >= before + 20, "20 requests moved the programs' counters from {before} to {after} only");
    for node in cluster.node_names() {
        let rules = cluster.in_node(&node, &["iptables-save"])?;
        ensure!(!rules.lines().any(|line| line.starts_with("-A")), "{node} has packet filter rules: {rules}");
        let rules = cluster.in_node(&node, &["nft", "list", "ruleset"])?;
        ensure!(
            !rules.contains("rule") && !rules.contains("dnat"),
            "{node} has packet filter rules: {rules}"
        );
    }
    Ok(())
}

fn sum(value: &serde_json::Value) -> u64 {
    match value {
        serde_json::Value::Number(number) => number.as_u64().unwrap_or(0),
        serde_json::Value::Array(items) => items.iter().map(sum).sum(),
        serde_json::Value::Object(fields) => fields.values().map(sum).sum(),
        _ => 0,
    }
}

fn replaced_replica(cluster: &Cluster) -> Result<()> {
    let pods = || cluster.kubectl(&["--namespace", "demo", "get", "pods", "-o", "name"]);
    let victim =
        pods()?.lines().next().context("the demo has no pods")?.trim_start_matches("pod/").to_owned();
    cluster.kubectl(&["--namespace", "demo", "delete", "pod", &victim])?;
    let slices = ["--namespace", "demo", "get", "endpointslices", "-o", "yaml"];
    until(PATIENCE, "its endpoint goes", || {
        cluster.kubectl(&slices).is_ok_and(|text| !text.contains(&victim))
    })?;
    let target: SocketAddr = format!("{}:30080", cluster.node_addresses()?.remove(0)).parse()?;
    let load = Load::start(target);
    let rolled =
        cluster.kubectl(&["--namespace", "demo", "rollout", "status", "deployment/hello", "--timeout=90s"]);
    let enough = until(PATIENCE, "200 answers", || load.answered() > 200);
    let outcome = load.finish();
    rolled?;
    enough?;
    ensure!(
        outcome.failures.is_empty(),
        "after its endpoint was gone {} requests failed: {:?}",
        outcome.failures.len(),
        outcome.failures.first()
    );
    ensure!(pods()?.lines().count() == REPLICAS, "the replica was not replaced");
    Ok(())
}
