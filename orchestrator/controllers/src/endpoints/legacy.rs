//! The Endpoints object of a Service, for clients that do not read slices. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use penstock_informers::Meta;

use super::backends::{self, PortKey};
use super::trigger::{TRIGGER_TIME, annotate};
use crate::pod;

const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ADDRESSES_MAX: usize = 1000;

/// Whether this controller wrote the object.
pub(crate) fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.label(MANAGED_BY_LABEL) == Some(MANAGED_BY)
}

/// The object as it should be, because of what happened at `trigger`.
pub(crate) fn plan_endpoints(service: &Service, pods: &[Arc<Pod>], trigger: Option<Timestamp>) -> Endpoints {
    let publish = backends::publishes_not_ready(service);
    let ipv6 = backends::families(service).first().is_some_and(|f| f == "IPv6");
    let mut groups: BTreeMap<Vec<PortKey>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for pod in pods.iter().filter(|p| !pod::is_finished(p) && (publish || !p.deleting())) {
        let Some(ip) = backends::addresses(pod).into_iter().find(|a| a.is_ipv6() == ipv6) else {
            continue;
        };
        let ports = backends::resolve_ports(service, pod);
        let has_ports =
            service.spec.as_ref().is_some_and(|s| s.ports.as_ref().is_some_and(|p| !p.is_empty()));
        if has_ports && ports.is_empty() {
            continue;
        }
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: backends::hostname(service, pod),
            node_name: pod::node_name(pod).map(str::to_owned),
            target_ref: Some(backends::target(pod)),
        };
        let (ready, not_ready) = groups.entry(ports).or_default();
        if publish || pod::is_ready(pod) { ready.push(address) } else { not_ready.push(address) }
    }
    let truncated = truncate(&mut groups);
    let subsets: Vec<EndpointSubset> = groups
        .into_iter()
        .map(|(ports, (ready, not_ready))| EndpointSubset {
            addresses: sorted(ready),
            not_ready_addresses: sorted(not_ready),
            ports: (!ports.is_empty()).then(|| ports.iter().map(port).collect()),
        })
        .collect();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let mut annotations = BTreeMap::new();
    annotate(&mut annotations, trigger);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            ..Default::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// The object to write, if what is there differs.
pub(crate) fn plan_update(existing: &Endpoints, wanted: Endpoints) -> Option<Endpoints> {
    let over = |e: &Endpoints| e.annotation(OVER_CAPACITY).map(str::to_owned);
    let same = existing.subsets.as_deref().unwrap_or_default()
        == wanted.subsets.as_deref().unwrap_or_default()
        && existing.metadata.labels == wanted.metadata.labels
        && over(existing) == over(&wanted);
    if same {
        return None;
    }
    let mut annotations = existing.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    annotations.remove(TRIGGER_TIME);
    annotations.extend(wanted.metadata.annotations.unwrap_or_default());
    let metadata = ObjectMeta {
        labels: wanted.metadata.labels,
        annotations: Some(annotations),
        ..existing.metadata.clone()
    };
    Some(Endpoints { metadata, subsets: wanted.subsets })
}

fn truncate(groups: &mut BTreeMap<Vec<PortKey>, (Vec<EndpointAddress>, Vec<EndpointAddress>)>) -> bool {
    let total: usize = groups.values().map(|(r, n)| r.len() + n.len()).sum();
    let mut excess = total.saturating_sub(ADDRESSES_MAX);
    // Those that do not serve go first.
    for list in groups.values_mut().map(|(_, not_ready)| not_ready) {
        let cut = excess.min(list.len());
        list.truncate(list.len() - cut);
        excess -= cut;
    }
    for list in groups.values_mut().map(|(ready, _)| ready) {
        let cut = excess.min(list.len());
        list.truncate(list.len() - cut);
        excess -= cut;
    }
    total > ADDRESSES_MAX
}

fn sorted(mut addresses: Vec<EndpointAddress>) -> Option<Vec<EndpointAddress>> {
    addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
    (!addresses.is_empty()).then_some(addresses)
}

fn port(port: &PortKey) -> EndpointPort {
    EndpointPort {
        name: (!port.name.is_empty()).then(|| port.name.clone()),
        port: port.port,
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}
