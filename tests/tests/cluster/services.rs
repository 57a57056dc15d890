//! What Services mean from outside: types that change in place, endpoints written by hand, policies, health checks, names
//! that lead elsewhere, addresses of a node that come later, and events about what is wrong.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::{eventually, until};

use super::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("a_service_changes_its_type_in_place_and_traffic_follows", types),
    ("endpoints_written_by_hand_serve_a_service_without_a_selector", by_hand),
    (
        "a_service_with_a_local_policy_answers_on_nodes_with_endpoints_and_health_checks_say_which",
        local_policy,
    ),
    (
        "a_service_with_direct_return_is_answered_by_the_backend_s_node_and_not_by_the_one_asked",
        direct_return,
    ),
    ("a_client_of_a_service_with_affinity_keeps_its_backend", affinity),
    ("what_is_wrong_with_a_service_is_an_event_on_it", events),
    ("the_health_of_the_service_proxy_is_answered_on_every_node", healthz),
];

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection that is dropped is waited for.
const SILENCE: Duration = Duration::from_secs(2);

/// Objects of one scenario in a namespace of its own, which goes with them.
struct Stage<'a> {
    cluster: &'a Cluster,
    namespace: &'static str,
}

impl<'a> Stage<'a> {
    /// A namespace with a deployment of the demo, `web`.
    fn new(cluster: &'a Cluster, namespace: &'static str, replicas: u32) -> Result<Self> {
        cluster.kubectl(&["create", "namespace", namespace])?;
        let stage = Self { cluster, namespace };
        stage.apply(&format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: web }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app: web }} }}
  template:
    metadata: {{ labels: {{ app: web }} }}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{ name: main, image: \"penstock.local/demo:1\", args: [serve] }}
"
        ))?;
        stage.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"])?;
        Ok(stage)
    }

    fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["--namespace", self.namespace], words].concat())
    }

    fn apply(&self, yaml: &str) -> Result<String> {
        self.cluster.kubectl_with(&["--namespace", self.namespace, "apply", "-f", "-"], yaml)
    }

    fn get(&self, what: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", what, "-o", &format!("jsonpath={path}")])
    }

    /// Which pods answer a URL that a pod of the demo fetches.
    fn who_answers(&self, url: &str, times: &str) -> Result<BTreeSet<String>> {
        let said = self.kubectl(&["exec", "deploy/web", "--", "demo", "fetch", url, times])?;
        let name = |line: &str| Some(line.strip_prefix("hello from ")?.split(' ').next()?.to_owned());
        Ok(said.lines().filter_map(name).collect())
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.kubectl(&["delete", "namespace", self.namespace, "--timeout=60s"]) {
            eprintln!("left behind: namespace {}: {error:#}", self.namespace);
        }
    }
}

/// The answer to a request, or why there is none.
fn ask(address: &str, port: &str, path: &str) -> std::io::Result<String> {
    ask_for(ANSWER_TIMEOUT, address, port, path)
}

fn ask_for(patience: Duration, address: &str, port: &str, path: &str) -> std::io::Result<String> {
    let target: SocketAddr = format!("{address}:{port}")
        .parse()
        .map_err(|_| std::io::Error::new(ErrorKind::InvalidInput, format!("{address}:{port}")))?;
    let mut stream = TcpStream::connect_timeout(&target, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  selector: { app: web }
  ports: [{ name: http, port: 80, targetPort: 8080 }]
";

/// What the programs of a node counted under a name.
fn event(cluster: &Cluster, node: &str, name: &str) -> Result<u64> {
    let counters = cluster.counters(node)?;
    counters["events"][name].as_u64().with_context(|| format!("no event {name} in {counters}"))
}

fn direct_return(cluster: &Cluster) -> Result<()> {
    const TIMES: u64 = 20;
    let stage = Stage::new(cluster, "direct-return", 1)?;
    stage.apply(WEB)?;
    stage.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"type":"NodePort"}}"#])?;
    stage.kubectl(&["annotate", "service", "web", "penstock.io/forwarding=dsr"])?;
    let port = stage.get("service/web", "{.spec.ports[0].nodePort}")?;
    let backend = stage.get("pods", "{.items[0].spec.nodeName}")?;
    let entries = cluster.node_names().into_iter().zip(cluster.node_addresses()?);
    let (entry, address) = entries.clone().find(|(name, _)| *name != backend).context("another node")?;
    let told = || event(cluster, &entry, "direct_told");
    // The annotation is seen a moment after it is made.
    until(PATIENCE, "the Service is served so", || {
        let before = told().unwrap_or_default();
        ask(&address, &port, "/").is_ok() && told().is_ok_and(|now| now > before)
    })?;
    let received = || event(cluster, &backend, "direct_received");
    let (told_before, received_before) = (told()?, received()?);
    let replied = event(cluster, &entry, "uplink_replied")?;
    for _ in 0..TIMES {
        let answer = ask(&address, &port, "/")?;
        ensure!(answer.contains("hello from web"), "{answer}");
    }
    ensure!(told()? >= told_before + TIMES, "{entry} told it of fewer than {TIMES} connections");
    ensure!(received()? >= received_before + TIMES, "{backend} heard it of fewer than {TIMES} connections");
    let replied_since = event(cluster, &entry, "uplink_replied")? - replied;
    ensure!(replied_since < TIMES, "{entry} turned {replied_since} answers round");
    Ok(())
}

fn types(cluster: &Cluster) -> Result<()> {
    let stage = Stage::new(cluster, "service-types", 2)?;
    stage.apply(WEB)?;
    let patch =
        |spec: &str| stage.kubectl(&["patch", "service", "web", "-p", &format!("{{\"spec\":{spec}}}")]);
    let all = |url: &str| -> Result<()> {
        eventually(PATIENCE, || {
            let seen = stage.who_answers(url, "20")?;
            ensure!(seen.len() == 2, "{url} is answered by {seen:?}");
            Ok(())
        })
    };
    all("http://web/")?;
    let ip = stage.get("service/web", "{.spec.clusterIP}")?;

    patch("{\"type\":\"NodePort\"}")?;
    let port = stage.get("service/web", "{.spec.ports[0].nodePort}")?;
    ensure!(stage.get("service/web", "{.spec.clusterIP}")? == ip, "it got another address");
    for address in cluster.node_addresses()? {
        until(PATIENCE, &format!("{address}:{port} answers"), || {
            ask(&address, &port, "/").is_ok_and(|answer| answer.contains("hello from web"))
        })?;
    }
    patch("{\"type\":\"ClusterIP\"}")?;
    for address in cluster.node_addresses()? {
        until(PATIENCE, &format!("{address}:{port} is closed"), || {
            ask(&address, &port, "/").is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        })?;
    }
    all(&format!("http://{ip}/"))?;

    // Its name leads to another's, by the node's own DNS.
    patch("{\"type\":\"ExternalName\",\"externalName\":\"hello.demo.svc.cluster.local\"}")?;
    eventually(PATIENCE, || {
        let seen = stage.who_answers("http://web/", "10")?;
        ensure!(seen.iter().all(|name| name.starts_with("hello")) && !seen.is_empty(), "{seen:?} answered");
        Ok(())
    })?;
    let closed = stage.who_answers(&format!("http://{ip}/"), "1");
    ensure!(closed.is_err(), "its former address still answers: {closed:?}");

    patch("{\"type\":\"ClusterIP\"}")?;
    all("http://web/")?;
    let ip = stage.get("service/web", "{.spec.clusterIP}")?;
    all(&format!("http://{ip}/"))
}

fn by_hand(cluster: &Cluster) -> Result<()> {
    let stage = Stage::new(cluster, "service-by-hand", 1)?;
    let pod = stage.get("pods", "{.items[0].status.podIP}")?;
    let endpoints = |ip: &str| {
        format!(
            "apiVersion: v1\nkind: Endpoints\nmetadata: {{ name: manual }}\nsubsets: [{{ addresses: [{{ ip: {ip} }}], ports: [{{ name: http, port: 8080 }}] }}]\n"
        )
    };
    stage.apply("apiVersion: v1\nkind: Service\nmetadata: { name: manual }\nspec: { ports: [{ name: http, port: 80 }] }\n")?;
    stage.apply(&endpoints(&pod))?;
    let answers = |url: &str| {
        eventually(PATIENCE, || {
            let seen = stage.who_answers(url, "3")?;
            ensure!(seen.len() == 1, "{url}: {seen:?}");
            Ok(())
        })
    };
    answers("http://manual/")?;
    let refused = stage.apply(&endpoints("127.0.0.1"));
    ensure!(
        refused.as_ref().is_err_and(|error| format!("{error:#}").contains("loopback")),
        "an endpoint on the loopback: {refused:?}"
    );

    // A slice instead, and no Endpoints at all.
    stage.kubectl(&["delete", "endpoints", "manual"])?;
    until(PATIENCE, "the mirrored slice goes", || {
        let slices = ["get", "endpointslices", "-l", "kubernetes.io/service-name=manual", "-o", "name"];
        stage.kubectl(&slices).is_ok_and(|names| names.trim().is_empty())
    })?;
    stage.apply(&format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: manual-one, labels: {{ kubernetes.io/service-name: manual }} }}
addressType: IPv4
ports: [{{ name: http, port: 8080 }}]
endpoints: [{{ addresses: [{pod}] }}]
"
    ))?;
    answers("http://manual/")
}

fn local_policy(cluster: &Cluster) -> Result<()> {
    let stage = Stage::new(cluster, "service-local", 1)?;
    stage.apply(&WEB.replace("spec:\n", "spec:\n  type: LoadBalancer\n  externalTrafficPolicy: Local\n"))?;
    let port = stage.get("service/web", "{.spec.ports[0].nodePort}")?;
    let health = stage.get("service/web", "{.spec.healthCheckNodePort}")?;
    let node = stage.get("pods", "{.items[0].spec.nodeName}")?;
    let with = stage.cluster.node_names().iter().position(|name| *name == node).context("a node of ours")?;
    for (number, address) in cluster.node_addresses()?.iter().enumerate() {
        let (status, count) = if number == with { ("200", 1) } else { ("503", 0) };
        eventually(PATIENCE, || {
            let answer = ask(address, &health, "/")?;
            ensure!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{address}: {answer}");
            ensure!(answer.contains(&format!("\"localEndpoints\":{count}")), "{address}: {answer}");
            Ok(())
        })?;
        // Who asks after health is told before the kernel is: for a moment nobody knows the port yet.
        let patience = if number == with { ANSWER_TIMEOUT } else { SILENCE };
        until(PATIENCE, &format!("{address} knows port {port}"), || {
            let answer = ask_for(patience, address, &port, "/");
            !answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        })?;
        match ask_for(patience, address, &port, "/") {
            Ok(answer) => ensure!(number == with && answer.contains("hello from web"), "{address}: {answer}"),
            // Dropped, not refused: others have endpoints.
            Err(error) => {
                ensure!(number != with && error.kind() == ErrorKind::TimedOut, "{address}: {error:?}");
            }
        }
    }
    stage.kubectl(&["delete", "service", "web"])?;
    for address in cluster.node_addresses()? {
        until(PATIENCE, "the health check port closes", || {
            ask(&address, &health, "/").is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        })?;
    }
    Ok(())
}

fn affinity(cluster: &Cluster) -> Result<()> {
    let stage = Stage::new(cluster, "service-affinity", 3)?;
    stage.apply(&WEB.replace("spec:\n", "spec:\n  sessionAffinity: ClientIP\n"))?;
    let pod = stage.get("pods", "{.items[0].metadata.name}")?;
    eventually(PATIENCE, || {
        let fetch = ["exec", &pod, "--", "demo", "fetch", "http://web/", "20"];
        let said = stage.kubectl(&fetch)?;
        let seen: BTreeSet<_> = said.lines().filter_map(|line| line.split(' ').nth(2)).collect();
        ensure!(seen.len() == 1, "a client with affinity met {seen:?}");
        Ok(())
    })
}

fn events(cluster: &Cluster) -> Result<()> {
    let stage = Stage::new(cluster, "service-events", 1)?;
    let service = |name: &str, annotation: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  annotations: {{ penstock.io/load-balancing: {annotation} }}\n\
             spec:\n  selector: {{ app: web }}\n  externalIPs: [192.0.2.200]\n  ports: [{{ port: 80, targetPort: 8080 }}]\n"
        )
    };
    stage.apply(&service("first", "maglev"))?;
    stage.apply(&service("second", "best"))?;
    eventually(PATIENCE, || {
        let told = stage.kubectl(&["describe", "service", "second"])?;
        for part in ["AddressConflict", "192.0.2.200 port 80", "BadLoadBalancing", "least-connections"] {
            ensure!(told.contains(part), "no {part} in: {told}");
        }
        Ok(())
    })?;
    let told = stage.kubectl(&["describe", "service", "first"])?;
    ensure!(!told.contains("AddressConflict"), "who has the address is not in conflict: {told}");
    let path = "{range .items[?(@.reason==\"AddressConflict\")]}{.metadata.name}{\"\\n\"}{end}";
    let conflicts = stage.get("events", path)?;
    ensure!(conflicts.lines().count() == 1, "one event for all nodes, not {conflicts}");
    Ok(())
}

fn healthz(cluster: &Cluster) -> Result<()> {
    for address in cluster.node_addresses()? {
        eventually(PATIENCE, || {
            let answer = ask(&address, "10256", "/healthz")?;
            ensure!(
                answer.starts_with("HTTP/1.1 200") && answer.contains("\"nodeEligible\":true"),
                "{answer}"
            );
            Ok(())
        })?;
    }
    let node = cluster.node_names().remove(0);
    let address = cluster.node_addresses()?.remove(0);
    let taint = "ToBeDeletedByClusterAutoscaler=1:NoSchedule";
    cluster.kubectl(&["taint", "node", &node, taint])?;
    let leaves = until(PATIENCE, "a node that is about to go says so", || {
        ask(&address, "10256", "/healthz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 503"))
    });
    cluster.kubectl(&["taint", "node", &node, &format!("{taint}-")])?;
    leaves
}
