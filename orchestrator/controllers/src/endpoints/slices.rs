//! Slices of at most a hundred endpoints, changed as little as can be: every write of a slice is sent to every
//! node. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use penstock_informers::Meta;
use penstock_informers::identity::controller_reference;

use super::SERVICE_NAME;
use super::backends::{Backends, PortKey, families};
use super::trigger::annotate;

pub(crate) const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ENDPOINTS_MAX: usize = 100;

/// A change of one slice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(String),
}

/// What all slices of one owner have in common.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// The owner's name, from which those of slices are made.
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Beside others, which stay.
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner: OwnerReference,
    /// Families that keep one empty slice when they have no endpoints, so that watchers see there are none.
    pub(crate) placeholders: Vec<String>,
}

/// The slices of a Service's pods.
pub(crate) fn of_service(service: &Service) -> Template {
    Template {
        name: service.name().to_owned(),
        namespace: service.ns().to_owned(),
        labels: labels(service),
        annotations: BTreeMap::new(),
        owner: controller_reference(service),
        placeholders: families(service),
    }
}

/// The changes that make the slices say which backends there are, because of what happened at `trigger`.
pub(crate) fn plan_slices(
    template: &Template,
    mut backends: Backends,
    existing: &[Arc<EndpointSlice>],
    trigger: Option<Timestamp>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut by_group: BTreeMap<(String, Vec<PortKey>), Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing.iter().filter(|s| !s.deleting()) {
        let mut ports: Vec<PortKey> = slice.ports.iter().flatten().map(PortKey::from_port).collect();
        ports.sort();
        by_group.entry((slice.address_type.clone(), ports)).or_default().push(slice);
    }
    for family in &template.placeholders {
        if !backends.keys().any(|(f, _)| f == family) {
            backends.insert((family.clone(), Vec::new()), Vec::new());
        }
    }
    for (group, slices) in &by_group {
        if !backends.contains_key(group) {
            changes.extend(slices.iter().map(|s| Change::Delete(s.name().to_owned())));
        }
    }
    for ((family, ports), endpoints) in backends {
        let group = by_group.remove(&(family.clone(), ports.clone())).unwrap_or_default();
        changes.extend(plan_group(template, &family, &ports, endpoints, &group, trigger));
    }
    // New and changed slices before deletions: an endpoint is never absent in between.
    changes.sort_by_key(|c| matches!(c, Change::Delete(_)));
    changes
}

fn identity(endpoint: &Endpoint) -> (String, String) {
    let uid = endpoint.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default();
    (uid, endpoint.addresses.first().cloned().unwrap_or_default())
}

struct Draft<'a> {
    slice: &'a EndpointSlice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn plan_group(
    template: &Template,
    family: &str,
    ports: &[PortKey],
    endpoints: Vec<Endpoint>,
    existing: &[&Arc<EndpointSlice>],
    trigger: Option<Timestamp>,
) -> Vec<Change> {
    let placeholder = endpoints.is_empty();
    let mut wanted: BTreeMap<_, Endpoint> = endpoints.into_iter().map(|e| (identity(&e), e)).collect();
    let mut drafts: Vec<Draft<'_>> = existing.iter().map(|s| keep(s, &mut wanted, template)).collect();
    let mut left: Vec<Endpoint> = wanted.into_values().collect();
    // What is new goes first into slices that are written anyway, then into the fullest one that has room.
    for draft in drafts.iter_mut().filter(|d| d.changed) {
        fill(draft, &mut left);
    }
    if !left.is_empty() && left.len() < ENDPOINTS_MAX {
        let roomy = drafts.iter_mut().filter(|d| d.endpoints.len() + left.len() <= ENDPOINTS_MAX);
        if let Some(draft) = roomy.max_by_key(|d| d.endpoints.len()) {
            fill(draft, &mut left);
        }
    }
    let mut changes = Vec::new();
    let mut kept = 0;
    for draft in drafts {
        let empty = draft.endpoints.is_empty();
        if empty && !(placeholder && kept == 0) {
            changes.push(Change::Delete(draft.slice.name().to_owned()));
            continue;
        }
        kept += 1;
        if draft.changed {
            changes.push(Change::Update(Box::new(update(draft, template, trigger))));
        }
    }
    while !left.is_empty() || (placeholder && kept == 0) {
        let rest = left.split_off(left.len().min(ENDPOINTS_MAX));
        changes.push(Change::Create(Box::new(new_slice(template, family, ports, left, trigger))));
        left = rest;
        kept += 1;
    }
    changes
}

/// What stays in a slice; taken out of what is wanted.
fn keep<'a>(
    slice: &'a Arc<EndpointSlice>,
    wanted: &mut BTreeMap<(String, String), Endpoint>,
    template: &Template,
) -> Draft<'a> {
    let has = |name: &String, value: &String| slice.annotation(name) == Some(value.as_str());
    let mut changed = slice.metadata.labels.as_ref() != Some(&template.labels)
        || !template.annotations.iter().all(|(name, value)| has(name, value));
    let mut endpoints = Vec::new();
    for old in slice.endpoints.iter().flatten() {
        match wanted.remove(&identity(old)) {
            Some(new) => {
                changed |= !same_endpoint(old, &new);
                endpoints.push(new);
            }
            None => changed = true,
        }
    }
    Draft { slice, endpoints, changed }
}

fn same_endpoint(a: &Endpoint, b: &Endpoint) -> bool {
    let target = |e: &Endpoint| e.target_ref.as_ref().map(|t| (t.uid.clone(), t.name.clone()));
    a.conditions == b.conditions
        && a.addresses == b.addresses
        && a.hostname == b.hostname
        && a.node_name == b.node_name
        && a.zone == b.zone
        && a.hints == b.hints
        && target(a) == target(b)
}

fn fill(draft: &mut Draft<'_>, left: &mut Vec<Endpoint>) {
    let room = ENDPOINTS_MAX.saturating_sub(draft.endpoints.len()).min(left.len());
    if room > 0 {
        draft.endpoints.extend(left.drain(..room));
        draft.changed = true;
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name().to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels
}

fn update(draft: Draft<'_>, template: &Template, trigger: Option<Timestamp>) -> EndpointSlice {
    let mut slice = draft.slice.clone();
    slice.endpoints = Some(draft.endpoints);
    slice.metadata.labels = Some(template.labels.clone());
    let annotations = slice.metadata.annotations.get_or_insert_default();
    annotations.extend(template.annotations.clone());
    annotate(annotations, trigger);
    slice
}

fn new_slice(
    template: &Template,
    family: &str,
    ports: &[PortKey],
    endpoints: Vec<Endpoint>,
    trigger: Option<Timestamp>,
) -> EndpointSlice {
    let mut annotations = template.annotations.clone();
    annotate(&mut annotations, trigger);
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", template.name)),
            namespace: Some(template.namespace.clone()),
            labels: Some(template.labels.clone()),
            annotations: Some(annotations),
            owner_references: Some(vec![template.owner.clone()]),
            ..Default::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.iter().map(PortKey::to_port).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::backends::observe_backends;
    use super::super::trigger::TRIGGER_TIME;
    use super::*;
    use crate::pod::tests::{test_pod, time};
    use k8s_openapi::api::core::v1::{Pod, PodIP};

    fn service() -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "s", "labels": {"team": "a"}},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_service_that_prefers_near_endpoints_says_for_whom_each_is_meant() {
        let hints = |distribution: &str| {
            let mut service = service();
            service.spec.as_mut().unwrap().traffic_distribution = Some(distribution.to_owned());
            let zones = [("n1".to_owned(), "z1".to_owned())].into();
            let backends = observe_backends(&service, &pods(1), &zones);
            let endpoint = backends.into_values().flatten().next().unwrap();
            let hints = endpoint.hints.unwrap_or_default();
            let zones: Vec<_> = hints.for_zones.unwrap_or_default().into_iter().map(|it| it.name).collect();
            let nodes: Vec<_> = hints.for_nodes.unwrap_or_default().into_iter().map(|it| it.name).collect();
            (zones.join(","), nodes.join(","))
        };
        let both = |zone: &str, node: &str| (zone.to_owned(), node.to_owned());
        assert_eq!(hints("PreferClose"), both("z1", ""));
        assert_eq!(hints("PreferSameZone"), both("z1", ""));
        assert_eq!(hints("PreferSameNode"), both("z1", "n1"));
        assert_eq!(hints("Whatever"), both("", ""));
    }

    fn pods(count: usize) -> Vec<Arc<Pod>> {
        let pod = |i: usize| {
            let mut pod = test_pod(&format!("p{i}"), Some("n1"), "Running", Some(1));
            let status = pod.status.as_mut().unwrap();
            status.pod_ips = Some(vec![PodIP { ip: format!("10.244.{}.{}", i / 250, i % 250 + 1) }]);
            Arc::new(pod)
        };
        (0..count).map(pod).collect()
    }

    fn round(pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) -> Vec<Change> {
        let service = service();
        let zones = [("n1".to_owned(), "z1".to_owned())].into();
        let backends = observe_backends(&service, pods, &zones);
        plan_slices(&of_service(&service), backends, existing, Some(Timestamp::from_second(5).unwrap()))
    }

    fn created(changes: Vec<Change>) -> Vec<Arc<EndpointSlice>> {
        let slices = changes.into_iter().filter_map(|c| match c {
            Change::Create(slice) => Some(*slice),
            _ => None,
        });
        let named = slices.enumerate().map(|(i, mut s)| {
            s.metadata.name = Some(format!("web-{i}"));
            Arc::new(s)
        });
        named.collect()
    }

    #[test]
    fn a_ready_pod_is_one_complete_endpoint() {
        let slices = created(round(&pods(1), &[]));
        let endpoint = &slices[0].endpoints.as_ref().unwrap()[0];
        assert_eq!(endpoint.addresses, ["10.244.0.1"]);
        assert_eq!(endpoint.zone.as_deref(), Some("z1"));
        assert_eq!(endpoint.conditions.as_ref().unwrap().ready, Some(true));
        assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8080));
        assert_eq!(slices[0].label(SERVICE_NAME), Some("web"));
        assert_eq!(slices[0].label("team"), Some("a"));
        assert_eq!(slices[0].annotation(TRIGGER_TIME), Some("1970-01-01T00:00:05Z"));
        assert!(round(&pods(1), &slices).is_empty(), "nothing to do twice");
    }

    #[test]
    fn a_going_pod_still_serves_but_is_not_ready() {
        let mut going = pods(1)[0].as_ref().clone();
        going.metadata.deletion_timestamp = Some(time(9));
        let slices = created(round(&[Arc::new(going)], &[]));
        let conditions = slices[0].endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
        assert_eq!(
            (conditions.ready, conditions.serving, conditions.terminating),
            (Some(false), Some(true), Some(true))
        );
    }

    #[test]
    fn many_endpoints_fill_slices_and_one_change_writes_one_slice() {
        let slices = created(round(&pods(250), &[]));
        let sizes: Vec<usize> = slices.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
        let changes = round(&pods(251), &slices);
        assert!(
            matches!(changes.as_slice(), [Change::Update(s)] if s.endpoints.as_ref().unwrap().len() == 51)
        );
        let changes = round(&pods(250)[1..], &slices);
        assert_eq!(changes.len(), 1, "one pod less is one write");
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let slices = created(round(&[], &[]));
        assert_eq!(slices.len(), 1);
        assert!(slices[0].endpoints.as_ref().unwrap().is_empty());
        let changes = round(&pods(1), &slices);
        assert!(matches!(changes.last(), Some(Change::Delete(_))), "the placeholder goes when pods come");
    }
}
