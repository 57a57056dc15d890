//! A node that cannot load the eBPF programs: its Services work all the same, it says why, and the programs take over when
//! they can be loaded.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::{eventually, until};

use super::Scenario;
use super::traffic::ask_http;

pub const SCENARIOS: &[Scenario] =
    &[("a_node_without_programs_serves_services_in_user_space_and_says_why", stands_in)];

const NODE: &str = "node-1";

fn stands_in(cluster: &Cluster) -> Result<()> {
    ensure!(degraded(cluster)?.0 == "False", "the node is degraded before anything broke");
    let away = Away::take()?;
    cluster.kill_9(NODE, "node-agent")?;
    until(PATIENCE, "the node says that it is degraded", || {
        degraded(cluster).is_ok_and(|(status, reason, _)| (&*status, &*reason) == ("True", "EbpfNotLoaded"))
    })?;
    let (_, _, message) = degraded(cluster)?;
    for part in ["no eBPF object at", "cargo xtask ebpf", "masquerading", "SCTP"] {
        ensure!(message.contains(part), "the condition does not say {part:?}: {message}");
    }
    until(PATIENCE, "the programs of the agent before are gone", || {
        cluster
            .in_node(NODE, &["ls", "/sys/fs/bpf/penstock/links"])
            .is_ok_and(|links| links.trim().is_empty())
    })?;
    serves(cluster).context("served in user space")?;
    let routes = cluster.in_node(NODE, &["ip", "route", "show", "table", "local", "proto", "81"])?;
    ensure!(routes.lines().count() > 1, "no routes of the userspace proxy: {routes}");
    let rules = cluster.in_node(NODE, &["iptables-save"])?;
    ensure!(!rules.lines().any(|line| line.starts_with("-A")), "packet filter rules: {rules}");
    until(PATIENCE, "an Event of the node", || {
        let events =
            cluster.kubectl(&["get", "events", "-o", "custom-columns=R:.reason,N:.involvedObject.name"]);
        events.is_ok_and(|text| {
            text.lines().any(|line| line.contains("ServiceProxyDegraded") && line.contains(NODE))
        })
    })?;
    in_use(cluster).context("a port that another process has")?;

    drop(away);
    until(PATIENCE, "the node is whole again", || {
        degraded(cluster).is_ok_and(|(status, ..)| status == "False")
    })?;
    let routes = cluster.in_node(NODE, &["ip", "route", "show", "table", "local", "proto", "81"])?;
    ensure!(routes.trim().is_empty(), "routes of the userspace proxy are left: {routes}");
    serves(cluster).context("served by the programs again")
}

/// Status, reason and message of the condition.
fn degraded(cluster: &Cluster) -> Result<(String, String, String)> {
    let field = |name: &str| {
        let path = format!("jsonpath={{.status.conditions[?(@.type==\"ServiceProxyDegraded\")].{name}}}");
        cluster.kubectl(&["get", "node", NODE, "-o", &path])
    };
    Ok((field("status")?, field("reason")?, field("message")?))
}

/// A ClusterIP and a name from a pod of the node, TCP and UDP, and a NodePort from the host.
fn serves(cluster: &Cluster) -> Result<()> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{\"\\n\"}{end}";
    let pods = cluster.kubectl(&["--namespace", "demo", "get", "pods", "-o", path])?;
    let pod = pods.lines().find_map(|line| line.strip_suffix(&format!(" {NODE}")));
    let pod = pod.with_context(|| format!("no pod of the demo is on {NODE}: {pods}"))?;
    let address =
        cluster.kubectl(&["-n", "demo", "get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}"])?;
    let by_address = format!("http://{address}/");
    for words in [
        ["fetch", &by_address, "6"],
        ["fetch", "http://hello.demo.svc.cluster.local/", "6"],
        ["ask", "hello.demo:81", "6"],
    ] {
        eventually(PATIENCE, || {
            let said =
                cluster.kubectl(&[&["-n", "demo", "exec", pod, "--", "demo"][..], &words[..]].concat())?;
            let answers = said.lines().filter(|line| line.starts_with("hello from ")).count();
            ensure!(answers == 6, "{words:?} in {pod} was answered {answers} times of 6: {said}");
            Ok(())
        })?;
    }
    let node = cluster.node_addresses()?.remove(0);
    eventually(PATIENCE, || ask_http(&format!("{node}:30080"))).map(drop)
}

/// A NodePort that another process has: an Event says so, and everything else is served.
fn in_use(cluster: &Cluster) -> Result<()> {
    let holder = Holder::start(cluster)?;
    let service = "apiVersion: v1\nkind: Service\nmetadata: { name: taken, namespace: demo }\nspec:\n  type: NodePort\n  \
         selector: { app: hello }\n  ports: [{ port: 80, targetPort: 8080, nodePort: 31999 }]\n";
    cluster.kubectl_with(&["apply", "-f", "-"], service)?;
    let told = until(PATIENCE, "an Event of the Service", || {
        let words = [
            "-n",
            "demo",
            "get",
            "events",
            "-o",
            "custom-columns=R:.reason,N:.involvedObject.name,M:.message",
        ];
        cluster.kubectl(&words).is_ok_and(|text| {
            text.lines().any(|line| line.contains("AddressNotServed") && line.contains(":31999/TCP"))
        })
    });
    let served = told.and_then(|()| serves(cluster));
    drop(holder);
    cluster.kubectl(&["-n", "demo", "delete", "service", "taken"])?;
    served
}

/// A process of the node that listens where a NodePort is to be.
struct Holder(std::process::Child);

impl Holder {
    fn start(cluster: &Cluster) -> Result<Self> {
        let words = ["busybox", "nc", "-ll", "-p", "31999", "-e", "true"];
        let holder = Self(cluster.in_node_command(NODE, &words)?.spawn().context("cannot run busybox")?);
        let address: SocketAddr = format!("{}:31999", cluster.node_addresses()?.remove(0)).parse()?;
        until(PATIENCE, "the process listens", || TcpStream::connect(address).is_ok())?;
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The eBPF object of the cluster's agents, moved away until this is dropped.
struct Away {
    object: PathBuf,
    elsewhere: PathBuf,
}

impl Away {
    fn take() -> Result<Self> {
        let program = std::env::current_exe()?;
        let folder = program.ancestors().nth(2).context("no target folder")?;
        let away =
            Self { object: folder.join("penstock.bpf.o"), elsewhere: folder.join("penstock.bpf.o.away") };
        std::fs::rename(&away.object, &away.elsewhere)
            .with_context(|| format!("cannot move {} away", away.object.display()))?;
        Ok(away)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        if let Err(error) = std::fs::rename(&self.elsewhere, &self.object) {
            eprintln!("{} stays at {}: {error}", self.object.display(), self.elsewhere.display());
        }
    }
}
