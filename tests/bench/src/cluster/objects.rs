//! The Services and EndpointSlices of a measurement, made and changed through the API.
//!
//! Slices are as a controller makes them: each endpoint with its pod and its node, so that they weigh what they weigh in a
//! cluster.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// All endpoints are here, at first in the former, once they were moved in the latter.
pub const ENDPOINT_RANGES: [&str; 2] = ["11.0.0.0/8", "12.0.0.0/8"];
pub const ENDPOINT_PORT: u16 = 8080;
pub const SERVICE_PORT: u16 = 80;
const NAMESPACE: &str = "default";
/// Requests under way at a time while the cluster is filled.
const AT_ONCE: usize = 64;
/// Nodes on which the endpoints are said to be: others than those that are measured.
const OTHER_NODES: u32 = 100;

/// Services that were made, by number, with their addresses.
pub struct Fleet {
    client: kube::Client,
    pub vips: Vec<Ipv4Addr>,
    endpoints_each: u32,
}

/// Whether the API server serves and has the namespace that is used.
pub async fn is_ready(client: &kube::Client) -> Result<()> {
    Api::<Namespace>::all(client.clone()).get(NAMESPACE).await.context("the first namespace")?;
    Ok(())
}

/// Registers a node as its other half would.
pub async fn make_node(client: &kube::Client, name: &str, address: Ipv4Addr) -> Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await.context("making a Node")?;
    let status = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": address }] } });
    let patch = Patch::Merge(status);
    nodes.patch_status(name, &PatchParams::default(), &patch).await.context("a Node's address")?;
    Ok(())
}

// === impl Fleet ===

impl Fleet {
    /// Makes so many Services with so many endpoints each.
    pub async fn make(client: &kube::Client, services: u32, endpoints_each: u32) -> Result<Fleet> {
        let making = (0..services).map(|number| make(client.clone(), number, endpoints_each));
        let mut made = futures::stream::iter(making).buffered(AT_ONCE);
        let mut vips = Vec::with_capacity(services as usize);
        while let Some(vip) = made.next().await {
            vips.push(vip?);
            if vips.len() % 10_000 == 0 {
                eprintln!("  {} services are made", vips.len());
            }
        }
        Ok(Fleet { client: client.clone(), vips, endpoints_each })
    }

    /// The address of the Service that is last by name.
    pub fn last(&self) -> Result<Ipv4Addr> {
        self.vips.last().copied().context("a fleet of no services")
    }

    /// Moves all endpoints of one Service to addresses that nothing had before, by one write. Returns how long the write
    /// took; it is acknowledged then.
    pub async fn move_endpoints(&self, number: u32, change: u32) -> Result<Duration> {
        let slices = Api::<EndpointSlice>::namespaced(self.client.clone(), NAMESPACE);
        let first = u32::from(moved_prefix(change));
        let patch = Patch::Merge(json!({ "endpoints": endpoints(number, first + 1, self.endpoints_each) }));
        let begin = std::time::Instant::now();
        slices.patch(&name(number), &PatchParams::default(), &patch).await.context("changing a slice")?;
        Ok(begin.elapsed())
    }
}

/// The /24 to which a change moves endpoints.
pub fn moved_prefix(change: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(12, 0, 0, 0)) + (change << 8))
}

/// Names sort by number.
fn name(number: u32) -> String {
    format!("service-{number:06}")
}

async fn make(client: kube::Client, number: u32, endpoints_each: u32) -> Result<Ipv4Addr> {
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": name(number), "namespace": NAMESPACE },
        "spec": { "ports": [{ "name": "http", "port": SERVICE_PORT, "targetPort": ENDPOINT_PORT }] },
    }))?;
    let services = Api::<Service>::namespaced(client.clone(), NAMESPACE);
    let made = services.create(&PostParams::default(), &service).await.context("making a Service")?;
    let vip = made.spec.and_then(|spec| spec.cluster_ip).context("a Service without an address")?;
    let first = u32::from(Ipv4Addr::new(11, 0, 0, 1)) + number * endpoints_each;
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {
            "name": name(number),
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": name(number),
                "endpointslice.kubernetes.io/managed-by": "bench.penstock.io",
            },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": ENDPOINT_PORT, "protocol": "TCP" }],
        "endpoints": endpoints(number, first, endpoints_each),
    }))?;
    let slices = Api::<EndpointSlice>::namespaced(client, NAMESPACE);
    slices.create(&PostParams::default(), &slice).await.context("making an EndpointSlice")?;
    vip.parse().context("a Service's address")
}

fn endpoints(number: u32, first: u32, count: u32) -> Vec<Value> {
    (0..count)
        .map(|index| {
            let address = Ipv4Addr::from(first + index);
            json!({
                "addresses": [address],
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": format!("worker-{}", (number + index) % OTHER_NODES),
                "targetRef": {
                    "kind": "Pod",
                    "namespace": NAMESPACE,
                    "name": format!("{}-{index}", name(number)),
                    "uid": format!("00000000-0000-4000-8000-{:012x}", u32::from(address)),
                },
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_moved_to_addresses_of_their_change_alone() {
        let moved = endpoints(7, u32::from(moved_prefix(300)) + 1, 25);
        assert_eq!(moved[0]["addresses"][0], "12.1.44.1");
        assert_eq!(moved[24]["addresses"][0], "12.1.44.25");
        assert!(name(9) < name(10) && name(9_999) < name(50_000));
    }
}
