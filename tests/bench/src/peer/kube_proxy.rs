//! The real kube-proxy, which follows an API server of ours and writes its rules into a node's namespace.
//!
//! It is a program of another version and of another house: told by its own flags, and asked by its own metrics. Must not
//! know what is measured.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::PostParams;
use penstock_tests::netns::Netns;
use serde_json::{Value, json};

use crate::cluster::objects;
use crate::control::{CLUSTER_CIDR, Control};
use crate::fleet::Port;
use crate::process::{Running, preferred};
use crate::programmed::{PROGRAM_MAX, programmed_at};
use crate::stage::Stage;
use crate::world::{NODE, OUTSIDE, World};

const NAMESPACE: &str = "default";
const NODE_NAME: &str = "node";
/// Seldom enough that no measurement meets it.
const REPEAT_EVERY: &str = "24h";

/// How it has the kernel serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Iptables,
    Nftables,
}

/// A running kube-proxy.
pub struct KubeProxy(Running);

impl Mode {
    pub const ALL: [Mode; 2] = [Mode::Iptables, Mode::Nftables];

    pub fn name(self) -> &'static str {
        match self {
            Mode::Iptables => "iptables",
            Mode::Nftables => "nftables",
        }
    }
}

/// Has it serve these ports on the node of a world. It and its control plane are gone afterwards; the rules stay.
pub fn serve(stage: &Stage, world: &World, fleet: &[Port], mode: Mode) -> Result<()> {
    let program = stage.scope.kube_proxy.as_ref().context("no kube-proxy was given")?;
    let folder = stage.folder.join(stage.fresh_name());
    std::fs::create_dir(&folder).context("a folder for a control plane")?;
    world.outside.run(|| {
        let control = Control::start(&folder, OUTSIDE)?;
        control.runtime.block_on(async {
            objects::make_node(&control.client, NODE_NAME, NODE).await?;
            make(&control.client, fleet).await
        })?;
        let kubeconfig = control.kubeconfig();
        let proxy = KubeProxy::start(program, mode, &kubeconfig, NODE_NAME, &world.node, &folder)?;
        proxy.wait_until_programmed(&world.node)
    })
}

// === impl KubeProxy ===

impl KubeProxy {
    /// Starts it for a node in its namespace. It ends with the calling thread, too.
    pub fn start(
        program: &Path,
        mode: Mode,
        kubeconfig: &Path,
        node: &str,
        netns: &Netns,
        folder: &Path,
    ) -> Result<KubeProxy> {
        let mut command = preferred(program);
        command.arg("--kubeconfig").arg(kubeconfig).args([
            format!("--hostname-override={node}"),
            format!("--proxy-mode={}", mode.name()),
            format!("--cluster-cidr={CLUSTER_CIDR}"),
            format!("--iptables-sync-period={REPEAT_EVERY}"),
        ]);
        // What they set is the whole machine's.
        command.args([
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        ]);
        if mode == Mode::Nftables && has_gate(program)? {
            command.arg(format!("--feature-gates={GATE}=true"));
        }
        let log = folder.join(format!("kube-proxy-{}.log", mode.name()));
        Ok(KubeProxy(Running::spawn(command, netns, log)?))
    }

    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Waits until the kernel has every Service.
    pub fn wait_until_programmed(&self, node: &Netns) -> Result<()> {
        let deadline = Instant::now() + PROGRAM_MAX;
        while !node.run(programmed_at).is_ok_and(|at| at > 0.0) {
            self.0.wait_a_little(deadline).context("kube-proxy did not program its services")?;
        }
        Ok(())
    }
}

/// Since 1.33 it always has the mode, and some day it will not know the name of the gate any more.
const GATE: &str = "NFTablesProxyMode";

fn has_gate(program: &Path) -> Result<bool> {
    let help = Command::new(program).arg("--help").output().context("asking kube-proxy for its flags")?;
    Ok([help.stdout, help.stderr].iter().any(|text| String::from_utf8_lossy(text).contains(GATE)))
}

// === What it follows ===

/// Makes Services and slices of what other peers are told as ports.
async fn make(client: &kube::Client, fleet: &[Port]) -> Result<()> {
    let services = Api::<Service>::namespaced(client.clone(), NAMESPACE);
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), NAMESPACE);
    for (vip, ports) in by_address(fleet) {
        let made = serde_json::from_value(service(vip, &ports))?;
        services.create(&PostParams::default(), &made).await.with_context(|| format!("the Service {vip}"))?;
        for slice in endpoint_slices(vip, &ports) {
            let made = serde_json::from_value(slice)?;
            slices
                .create(&PostParams::default(), &made)
                .await
                .with_context(|| format!("a slice of {vip}"))?;
        }
    }
    Ok(())
}

fn by_address(fleet: &[Port]) -> BTreeMap<Ipv4Addr, Vec<&Port>> {
    let mut services: BTreeMap<_, Vec<&Port>> = BTreeMap::new();
    for port in fleet {
        services.entry(port.vip).or_default().push(port);
    }
    services
}

fn name(vip: Ipv4Addr) -> String {
    format!("service-{:08x}", u32::from(vip))
}

fn protocol(port: &Port) -> &'static str {
    if port.udp { "UDP" } else { "TCP" }
}

fn service(vip: Ipv4Addr, ports: &[&Port]) -> Value {
    let listed: Vec<Value> = ports
        .iter()
        .map(|port| {
            let mut listed = json!({ "name": port.name, "port": port.port, "protocol": protocol(port) });
            if let Some(node_port) = port.node_port {
                listed["nodePort"] = node_port.into();
            }
            listed
        })
        .collect();
    let kind = if ports.iter().any(|port| port.node_port.is_some()) { "NodePort" } else { "ClusterIP" };
    json!({
        "metadata": { "name": name(vip), "namespace": NAMESPACE },
        "spec": { "type": kind, "clusterIP": vip, "ports": listed },
    })
}

/// A slice has one number for each port: backends at other numbers have a slice of their own.
fn endpoint_slices(vip: Ipv4Addr, ports: &[&Port]) -> Vec<Value> {
    let most = ports.iter().map(|port| port.backends.len()).max().unwrap_or(0);
    (0..most)
        .map(|index| {
            let of = |port: &&Port| port.backends.get(index).copied();
            let addresses: Vec<IpAddr> =
                ports.iter().filter_map(of).map(|backend| IpAddr::from(*backend.ip())).collect();
            let listed: Vec<Value> = ports
                .iter()
                .filter_map(|port| {
                    let number = of(port)?.port();
                    Some(json!({ "name": port.name, "port": number, "protocol": protocol(port) }))
                })
                .collect();
            json!({
                "metadata": {
                    "name": format!("{}-{index}", name(vip)),
                    "namespace": NAMESPACE,
                    "labels": {
                        "kubernetes.io/service-name": name(vip),
                        "endpointslice.kubernetes.io/managed-by": "bench.penstock.io",
                    },
                },
                "addressType": "IPv4",
                "ports": listed,
                "endpoints": addresses.first().map(|address| json!({
                    "addresses": [address],
                    "conditions": { "ready": true, "serving": true, "terminating": false },
                    "nodeName": NODE_NAME,
                })).into_iter().collect::<Vec<_>>(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{self, fleet};

    #[test]
    fn every_backend_of_every_port_is_in_a_slice() {
        let fleet = fleet(3, 2);
        let services = by_address(&fleet);
        assert_eq!(services.len(), 3);
        let used = &services[&fleet::VIP];
        let made = service(fleet::VIP, used);
        assert_eq!(made["spec"]["type"], "NodePort");
        assert_eq!(made["spec"]["ports"].as_array().map(Vec::len), Some(used.len()));
        let slices = endpoint_slices(fleet::VIP, used);
        assert_eq!(slices.len(), 2);
        for (index, slice) in slices.iter().enumerate() {
            assert_eq!(slice["ports"][0]["port"], used[0].backends[index].port());
            assert_eq!(slice["endpoints"][0]["addresses"][0], used[0].backends[index].ip().to_string());
        }
    }
}
