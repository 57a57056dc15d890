//! EndpointSlices of Endpoints that a person wrote, for Services without a selector: nodes read slices only.
//!
//! As upstream's endpointslicemirroring-controller: a slice belongs to its Endpoints and goes with them, and one of a
//! Service that has a selector by now is deleted. The plan is pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use penstock_informers::cache::{Cache, Delta};
use penstock_informers::expectations::Expectations;
use penstock_informers::failure::{During, gone_is_fine, is_namespace_terminating};
use penstock_informers::identity::controller_reference;
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};

use super::SERVICE_NAME;
use super::backends::{Backends, PortKey};
use super::slices::{Change, MANAGED_BY_LABEL, Template, plan_slices};
use super::trigger::TRIGGER_TIME;
use crate::context::Context;

const WORKERS: usize = 2;
const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that were a lock, not addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Addresses of one subset that are mirrored; upstream's bound.
const ADDRESSES_MAX: usize = 1_000;

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        services: context.informers.cache(),
        endpoints: context.informers.cache(),
        slices: context.informers.cache(),
        expectations: Expectations::default(),
        queue: Arc::new(WorkQueue::new()),
        recorder: context.recorder("endpoint-slice-mirroring-controller"),
        client: context.client(),
    });
    tokio::join!(
        controller.services.wait_synced(),
        controller.endpoints.wait_synced(),
        controller.slices.wait_synced(),
    );
    let queue = controller.queue.clone();
    controller.services.subscribe(move |delta| queue.add(delta.object().key()));
    let queue = controller.queue.clone();
    controller.endpoints.subscribe(move |delta| queue.add(delta.object().key()));
    let handler = controller.clone();
    controller.slices.subscribe(move |delta| handler.slice_changed(delta));
    run_workers(controller.clone(), controller.queue.clone(), WORKERS, context.shutdown).await;
}

struct Controller {
    services: Arc<Cache<Service>>,
    endpoints: Arc<Cache<Endpoints>>,
    slices: Arc<Cache<EndpointSlice>>,
    /// Slices created and not seen yet, by Endpoints.
    expectations: Expectations,
    queue: Arc<WorkQueue<Key>>,
    recorder: Recorder,
    client: kube::Client,
}

impl Controller {
    fn slice_changed(&self, delta: &Delta<'_, EndpointSlice>) {
        let slice = delta.object();
        let Some(service) = slice.label(SERVICE_NAME).filter(|_| is_ours(slice)) else { return };
        let key = Key::new(slice.ns(), service);
        if let Delta::Added(_) = delta {
            self.expectations.creation_observed(&key);
        }
        self.queue.add(key);
    }

    fn own_slices(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.slices.list_namespace(&key.namespace);
        slices.retain(|slice| slice.label(SERVICE_NAME) == Some(&key.name) && is_ours(slice));
        slices
    }

    async fn apply(&self, key: &Key, changes: Vec<Change>) -> Result<(), Failure> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        for change in changes {
            match change {
                Change::Create(slice) => {
                    self.expectations.expect_creations(key, 1);
                    if let Err(error) = api.create(&PostParams::default(), &slice).await {
                        self.expectations.creation_observed(key);
                        if is_namespace_terminating(&error) {
                            return Ok(());
                        }
                        return Err(Failure::api(format!("creating a slice of Endpoints {key}"), error));
                    }
                }
                Change::Update(slice) => api
                    .replace(slice.name(), &PostParams::default(), &slice)
                    .await
                    .map(drop)
                    .during(|| format!("updating slice {}", slice.name()))?,
                Change::Delete(name) => gone_is_fine(api.delete(&name, &DeleteParams::default()).await)
                    .map(drop)
                    .during(|| format!("deleting slice {name}"))?,
            }
        }
        Ok(())
    }
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "endpoint-slice-mirroring";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let endpoints = self.endpoints.get(key);
        let service = self.services.get(key);
        let mirrored = match (&endpoints, &service) {
            (Some(endpoints), Some(service)) if is_mirrored(endpoints, service) => Some(endpoints),
            _ => None,
        };
        let existing = self.own_slices(key);
        let Some(endpoints) = mirrored else {
            self.expectations.clear(key);
            let deletions = existing.iter().filter(|slice| !slice.deleting());
            let deletions = deletions.map(|slice| Change::Delete(slice.name().to_owned())).collect();
            self.apply(key, deletions).await?;
            return Ok(Next::Done);
        };
        if !self.expectations.satisfied(key) {
            return Ok(Next::Done);
        }
        let left_out = endpoints.subsets.iter().flatten().any(|subset| count(subset) > ADDRESSES_MAX);
        if left_out {
            let message = format!(
                "only {ADDRESSES_MAX} addresses of a subset are mirrored to EndpointSlices: write slices yourself"
            );
            self.recorder.record(&**endpoints, EventType::Warning, "TooManyAddressesToMirror", message);
        }
        self.apply(key, plan(endpoints, &existing)).await?;
        Ok(Next::Done)
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.label(MANAGED_BY_LABEL) == Some(MANAGED_BY)
}

fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let selects =
        service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_some_and(|it| !it.is_empty());
    !selects
        && !endpoints.deleting()
        && endpoints.label(SKIP_MIRROR) != Some("true")
        && endpoints.annotation(LEADER).is_none()
}

fn count(subset: &EndpointSubset) -> usize {
    subset.addresses.iter().flatten().count() + subset.not_ready_addresses.iter().flatten().count()
}

/// The changes that make the slices say what the Endpoints say.
fn plan(endpoints: &Endpoints, existing: &[Arc<EndpointSlice>]) -> Vec<Change> {
    // When a person wrote is not known: the annotation of the Endpoints may be of an earlier change.
    plan_slices(&template(endpoints), observe(endpoints), existing, None)
}

fn template(endpoints: &Endpoints) -> Template {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.remove(SKIP_MIRROR);
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name().to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| name != LAST_APPLIED && name != TRIGGER_TIME);
    Template {
        name: endpoints.name().to_owned(),
        namespace: endpoints.ns().to_owned(),
        labels,
        annotations,
        owner: controller_reference(endpoints),
        // Who has no address has no slice: somebody may have written one.
        placeholders: Vec::new(),
    }
}

/// Endpoints by family and ports; of an address that is there twice with the same ports the ready one.
fn observe(endpoints: &Endpoints) -> Backends {
    let mut found: BTreeMap<_, BTreeMap<IpAddr, Endpoint>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let mut ports: Vec<PortKey> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| PortKey {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: port.port,
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        ports.sort();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let others = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, is_ready) in ready.chain(others).take(ADDRESSES_MAX) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
            let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let group = found.entry((family.to_owned(), ports.clone())).or_default();
            group.entry(ip).or_insert_with(|| endpoint(address, is_ready));
        }
    }
    found.into_iter().map(|(group, endpoints)| (group, endpoints.into_values().collect())).collect()
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(is_ready), ..Default::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoints(subsets: serde_json::Value) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "ns", "uid": "e", "labels": {"team": "a"},
                "annotations": {LAST_APPLIED: "{}", "note": "kept"}},
            "subsets": subsets,
        }))
        .unwrap()
    }

    fn created(changes: Vec<Change>) -> Vec<Arc<EndpointSlice>> {
        let slices = changes.into_iter().filter_map(|change| match change {
            Change::Create(slice) => Some(*slice),
            _ => None,
        });
        let named = slices.enumerate().map(|(number, mut slice)| {
            slice.metadata.name = Some(format!("db-{number}"));
            Arc::new(slice)
        });
        named.collect()
    }

    fn round(endpoints: &Endpoints, existing: &[Arc<EndpointSlice>]) -> Vec<Change> {
        plan(endpoints, existing)
    }

    #[test]
    fn written_addresses_become_slices_of_each_family_and_port_list() {
        let written = endpoints(json!([
            {"addresses": [{"ip": "192.0.2.1", "hostname": "one"}, {"ip": "2001:db8::1"}],
             "notReadyAddresses": [{"ip": "192.0.2.2", "nodeName": "n1"}], "ports": [{"name": "pg", "port": 5432}]},
            {"addresses": [{"ip": "192.0.2.1"}], "ports": [{"name": "metrics", "port": 9187}]},
        ]));
        let slices = created(round(&written, &[]));
        let said: Vec<_> = slices
            .iter()
            .map(|slice| {
                let endpoints = slice.endpoints.iter().flatten();
                let addresses: Vec<_> = endpoints
                    .map(|it| (it.addresses[0].as_str(), it.conditions.as_ref().and_then(|it| it.ready)))
                    .collect();
                (slice.address_type.as_str(), slice.ports.as_ref().unwrap()[0].port, addresses)
            })
            .collect();
        assert_eq!(
            said,
            [
                ("IPv4", Some(9187), vec![("192.0.2.1", Some(true))]),
                ("IPv4", Some(5432), vec![("192.0.2.1", Some(true)), ("192.0.2.2", Some(false))]),
                ("IPv6", Some(5432), vec![("2001:db8::1", Some(true))]),
            ]
        );
        let first = &slices[0];
        assert_eq!((first.label("team"), first.label(SERVICE_NAME)), (Some("a"), Some("db")));
        assert_eq!((first.annotation("note"), first.annotation(LAST_APPLIED)), (Some("kept"), None));
        assert_eq!(first.metadata.owner_references.as_ref().unwrap()[0].kind, "Endpoints");
        assert!(round(&written, &slices).is_empty(), "nothing to do twice");
    }

    #[test]
    fn what_is_no_longer_written_goes() {
        let one = json!([{"addresses": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}], "ports": [{"port": 80}]}]);
        let slices = created(round(&endpoints(one), &[]));
        let fewer = json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]);
        let changes = round(&endpoints(fewer), &slices);
        assert!(
            matches!(changes.as_slice(), [Change::Update(slice)] if slice.endpoints.as_ref().unwrap().len() == 1)
        );
        let changes = round(&endpoints(json!([])), &slices);
        assert!(matches!(changes.as_slice(), [Change::Delete(_)]), "{changes:?}");
    }

    #[test]
    fn only_services_without_a_selector_are_mirrored_and_only_what_wants_to_be() {
        let service = |selector: serde_json::Value| -> Service {
            serde_json::from_value(json!({"metadata": {"name": "db"}, "spec": {"selector": selector}}))
                .unwrap()
        };
        let mut written = endpoints(json!([]));
        assert!(is_mirrored(&written, &service(json!({}))));
        assert!(!is_mirrored(&written, &service(json!({"app": "db"}))));
        written.metadata.labels.get_or_insert_default().insert(SKIP_MIRROR.into(), "true".into());
        assert!(!is_mirrored(&written, &service(json!({}))));
    }

    #[test]
    fn a_thousand_addresses_of_a_subset_are_mirrored() {
        let addresses: Vec<_> =
            (0..1_100_u16).map(|n| json!({"ip": format!("10.0.{}.{}", n >> 8, n & 255)})).collect();
        let slices =
            created(round(&endpoints(json!([{"addresses": addresses, "ports": [{"port": 80}]}])), &[]));
        let total: usize = slices.iter().map(|slice| slice.endpoints.iter().flatten().count()).sum();
        assert_eq!((slices.len(), total), (10, ADDRESSES_MAX));
    }
}
