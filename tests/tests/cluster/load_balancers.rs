//! Load balancers without a cloud: an address from a pool is answered for by one node, and by another when that node dies.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::{eventually, until};
use penstock_tests::lateness::Lateness;
use penstock_tests::netns::ip;

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("an_address_of_a_dead_node_is_served_by_another_within_two_seconds", failover),
    ("services_that_share_an_address_are_served_by_its_holder", shared),
    ("with_the_local_policy_a_node_with_an_endpoint_holds_the_address", local_policy),
    ("a_pool_without_addresses_left_says_so", exhausted),
];

/// Hosts of these tests are shared: what takes a second and a half on a quiet one may take longer here, and longer still by
/// what this one is seen to be late.
const FAILOVER_MAX: Duration = Duration::from_secs(4);
/// One thread after the other is late: the agent that takes over, the pod that answers, the client.
const LATE_ONES: u32 = 3;
/// How long a request may take: a lost packet is noticed, and asked again, sooner than the network would.
const REQUEST_MAX: Duration = Duration::from_millis(200);
/// So many answers in a row are an end of the failover, not luck.
const ANSWERS_IN_A_ROW: usize = 20;

const NAMESPACE: &str = "balanced";

/// The namespace of one scenario; gone with it, however it ends.
struct Stage<'a>(&'a Cluster);

/// A node that no packet reaches; its link is back with the end of the value.
struct CutOff(String);

impl<'a> Stage<'a> {
    fn set(cluster: &'a Cluster) -> Result<Self> {
        cluster.kubectl(&["create", "namespace", NAMESPACE])?;
        let stage = Self(cluster);
        let account = ["-n", NAMESPACE, "get", "serviceaccount", "default"];
        until(PATIENCE, "the namespace has its account", || cluster.kubectl(&account).is_ok())?;
        Ok(stage)
    }

    fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.0.kubectl(&[&["-n", NAMESPACE], words].concat())
    }

    fn apply(&self, objects: &str) -> Result<()> {
        self.0.kubectl_with(&["-n", NAMESPACE, "apply", "-f", "-"], objects).map(drop)
    }

    /// The demo's server, on nodes by the given operator and name, ready.
    fn serve(&self, name: &str, operator: &str, node: &str) -> Result<()> {
        self.apply(&format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  replicas: 2
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      terminationGracePeriodSeconds: 0
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
            - matchExpressions:
              - {{ key: kubernetes.io/hostname, operator: {operator}, values: [{node}] }}
      containers:
      - {{ name: main, image: penstock.local/demo:1, args: [serve] }}
"
        ))?;
        self.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"]).map(drop)
    }

    /// A load balancer in front of the pods of an app.
    fn balance(&self, name: &str, app: &str, port: u16, annotations: &str, more: &str) -> Result<()> {
        self.apply(&format!(
            "
apiVersion: v1
kind: Service
metadata: {{ name: {name}, annotations: {{ {annotations} }} }}
spec:
  type: LoadBalancer
  selector: {{ app: {app} }}
  ports: [{{ port: {port}, targetPort: 8080 }}]
  {more}
"
        ))
    }

    fn address(&self, service: &str) -> Result<String> {
        let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
        eventually(PATIENCE, || {
            let address = self.kubectl(&["get", "service", service, "-o", path])?;
            ensure!(!address.is_empty(), "{service} has no address");
            Ok(address)
        })
    }

    /// Reason and message of a condition.
    fn condition(&self, service: &str, kind: &str) -> Result<(String, String)> {
        let path = format!(
            "jsonpath={{range .status.conditions[?(@.type==\"{kind}\")]}}{{.reason}}|{{.message}}{{end}}"
        );
        let said = self.kubectl(&["get", "service", service, "-o", &path])?;
        let (reason, message) = said.split_once('|').unwrap_or_default();
        Ok((reason.to_owned(), message.to_owned()))
    }

    /// The node that the Service's condition says holds its address; not one of `others`.
    fn holder(&self, service: &str, others: &[&str]) -> Result<String> {
        eventually(PATIENCE, || {
            let (reason, message) = self.condition(service, "AddressAnnounced")?;
            let node = message.split(' ').next().unwrap_or_default().to_owned();
            ensure!(
                reason == "Announced" && !others.contains(&node.as_str()),
                "{service}: {reason}: {message}"
            );
            Ok(node)
        })
    }

    fn has_event(&self, reason: &str, part: &str) -> Result<()> {
        eventually(PATIENCE, || {
            let selector = format!("reason={reason}");
            let said = self.kubectl(&[
                "get",
                "events",
                "--field-selector",
                &selector,
                "-o",
                "jsonpath={.items[*].message}",
            ])?;
            ensure!(said.contains(part), "no event {reason} with {part:?}: {said}");
            Ok(())
        })
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"]) {
            eprintln!("{error:#}");
        }
    }
}

impl CutOff {
    fn node(cluster: &Cluster, node: &str) -> Result<Self> {
        let link = cluster.host_link(node)?;
        ip(&format!("link set {link} down"))?;
        Ok(Self(link))
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        if let Err(error) = ip(&format!("link set {} up", self.0)) {
            eprintln!("{error:#}");
        }
    }
}

/// Which pod answers, asked from the host.
fn ask(address: &str, port: u16) -> Result<String> {
    let target: SocketAddr = format!("{address}:{port}").parse()?;
    let mut stream = TcpStream::connect_timeout(&target, REQUEST_MAX)?;
    stream.set_read_timeout(Some(REQUEST_MAX))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?.1;
    Ok(body.split(' ').nth(2).context("the answer names no pod")?.to_owned())
}

/// The link address this host has for an address of the node network.
fn neighbour(address: &str) -> Result<String> {
    let said = ip(&format!("neigh show {address}"))?;
    let mut words = said.split_whitespace().skip_while(|word| *word != "lladdr");
    Ok(words.nth(1).with_context(|| format!("no neighbour {address}: {said}"))?.to_owned())
}

fn failover(cluster: &Cluster) -> Result<()> {
    let stage = Stage::set(cluster)?;
    stage.balance("web", "web", 80, "", "")?;
    let address = stage.address("web")?;
    let first = stage.holder("web", &[])?;
    stage.has_event("AddressAnnounced", &format!("{first} announces {address}"))?;
    // On the other nodes: a pod that dies with its node is another matter.
    stage.serve("web", "NotIn", &first)?;
    eventually(PATIENCE, || ask(&address, 80))?;
    let before = neighbour(&address)?;

    let cut = CutOff::node(cluster, &first)?;
    let (since, lateness) = (Instant::now(), Lateness::watch());
    cluster.kill_9(&first, "node-agent")?;
    let mut in_a_row = 0;
    let (mut served_after, mut late) = (Duration::ZERO, Duration::ZERO);
    // What was on its way when the link went may still be answered: only the new holder's answers count.
    while in_a_row < ANSWERS_IN_A_ROW || neighbour(&address).is_ok_and(|mac| mac == before) {
        ensure!(since.elapsed() < PATIENCE, "{address} is not served any more");
        match ask(&address, 80) {
            Ok(_) if in_a_row == 0 => {
                (in_a_row, served_after, late) = (1, since.elapsed(), lateness.so_far());
            }
            Ok(_) => in_a_row += 1,
            Err(_) => in_a_row = 0,
        }
    }
    println!("{address} of {first} was served again after {served_after:?}, on a machine {late:?} late");
    let limit = FAILOVER_MAX + LATE_ONES * late;
    ensure!(served_after < limit, "{address} was served again only after {served_after:?}, not {limit:?}");
    let second = stage.holder("web", &[&first])?;

    // It takes back what is its own, and no request is lost on the way.
    drop(cut);
    let back = eventually(PATIENCE, || -> Result<String> {
        let answered = ask(&address, 80);
        ensure!(answered.is_ok(), "a request failed as {first} came back: {answered:?}");
        let (_, message) = stage.condition("web", "AddressAnnounced")?;
        ensure!(message.starts_with(&first), "{message}");
        Ok(message)
    })?;
    println!("{second} gave it back: {back}");
    until(PATIENCE, "the host knows the first link address again", || {
        ask(&address, 80).is_ok() && neighbour(&address).is_ok_and(|mac| mac == before)
    })
}

fn shared(cluster: &Cluster) -> Result<()> {
    let stage = Stage::set(cluster)?;
    let key = "penstock.io/share-address: front";
    stage.serve("one", "NotIn", "none")?;
    stage.serve("two", "NotIn", "none")?;
    stage.balance("one", "one", 80, key, "")?;
    stage.balance("two", "two", 8081, key, "")?;
    // Nobody of the host's network may ask the third.
    stage.balance("closed", "two", 8082, key, "loadBalancerSourceRanges: [192.0.2.0/24]")?;
    let address = stage.address("one")?;
    for other in ["two", "closed"] {
        ensure!(stage.address(other)? == address, "{other} shares the address");
    }
    ensure!(stage.holder("one", &[])? == stage.holder("two", &[])?, "one node holds it for both");
    for (port, app) in [(80, "one-"), (8081, "two-")] {
        let pod = eventually(PATIENCE, || ask(&address, port))?;
        ensure!(pod.starts_with(app), "{pod} answers at port {port}");
    }
    ensure!(ask(&address, 8082).is_err(), "a client outside the source ranges is not let in");
    Ok(())
}

fn local_policy(cluster: &Cluster) -> Result<()> {
    let stage = Stage::set(cluster)?;
    stage.balance("local", "local", 80, "", "externalTrafficPolicy: Local")?;
    let address = stage.address("local")?;
    eventually(PATIENCE, || {
        let (reason, message) = stage.condition("local", "AddressAnnounced")?;
        ensure!(reason == "NoAnnouncingNode" && message.contains("ready endpoint"), "{reason}: {message}");
        Ok(())
    })?;
    for node in ["node-2", "node-3"] {
        stage.serve("local", "In", node)?;
        eventually(PATIENCE, || {
            let holder = stage.holder("local", &[])?;
            ensure!(holder == node, "{holder} holds the address of pods on {node}");
            Ok(())
        })?;
        eventually(PATIENCE, || ask(&address, 80))?;
    }
    Ok(())
}

fn exhausted(cluster: &Cluster) -> Result<()> {
    let ranges = cluster.kubectl(&["get", "addresspool", "nodes", "-o", "jsonpath={.spec.addresses[0]}"])?;
    let network = ranges.rsplit_once('.').and_then(|(most, _)| most.split('-').next()?.rsplit_once('.'));
    let only = format!("{}.250", network.context("the pool has no range")?.0);
    let pool = format!(
        "
apiVersion: penstock.io/v1alpha1
kind: AddressPool
metadata: {{ name: tiny }}
spec: {{ addresses: [{only}/32], autoAssign: false }}
"
    );
    let stage = Stage::set(cluster)?;
    cluster.kubectl_with(&["apply", "-f", "-"], &pool)?;
    let outcome = (|| {
        let named = "penstock.io/address-pool: tiny";
        stage.balance("first", "none", 80, named, "")?;
        ensure!(stage.address("first")? == only, "the pool's only address");
        stage.balance("second", "none", 80, named, "")?;
        eventually(PATIENCE, || {
            let (reason, message) = stage.condition("second", "AddressAssigned")?;
            ensure!(reason == "AddressPoolExhausted" && message.contains("tiny"), "{reason}: {message}");
            Ok(())
        })?;
        stage.has_event("SyncLoadBalancerFailed", "address pool tiny are in use")?;
        eventually(PATIENCE, || {
            let row = cluster.kubectl(&["get", "addresspool", "tiny", "--no-headers"])?;
            let words: BTreeSet<&str> = row.split_whitespace().collect();
            ensure!(words.contains("Exhausted"), "{row}");
            Ok(())
        })?;
        let wrong = pool.replace("tiny", "wrong").replace(&format!("{only}/32"), "many");
        let refused = cluster.kubectl_with(&["apply", "-f", "-"], &wrong);
        let said = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(said.contains("spec.addresses[0]"), "a pool of no addresses is refused: {said}");
        // What is given back, the one who waits gets.
        stage.kubectl(&["delete", "service", "first"])?;
        ensure!(stage.address("second")? == only, "the one who waited");
        Ok(())
    })();
    cluster.kubectl(&["delete", "addresspool", "tiny"])?;
    outcome
}
