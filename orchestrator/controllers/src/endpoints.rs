//! EndpointSlices and legacy Endpoints of Services with a selector: which pods serve, on which port.
//!
//! Both are planned from the same view of service and pods; the plans are pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use penstock_informers::cache::{Cache, Delta};
use penstock_informers::expectations::Expectations;
use penstock_informers::failure::{During, gone_is_fine, is_already_exists, is_namespace_terminating};
use penstock_informers::selector::Selector;
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};

use crate::context::Context;

pub mod backends;
pub mod legacy;
pub mod mirror;
pub mod slices;
mod trigger;

use slices::MANAGED_BY;
use trigger::Triggers;

const WORKERS: usize = 5;
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Runs both controllers.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        services: context.informers.cache(),
        pods: context.informers.cache(),
        nodes: context.informers.cache(),
        slices: context.informers.cache(),
        endpoints: context.informers.cache(),
        expectations: Expectations::default(),
        triggers: Triggers::default(),
        queue: Arc::new(WorkQueue::new()),
        recorder: context.recorder("endpoint-slice-controller"),
    });
    tokio::join!(
        controller.services.wait_synced(),
        controller.pods.wait_synced(),
        controller.nodes.wait_synced(),
        controller.slices.wait_synced(),
        controller.endpoints.wait_synced(),
    );
    let queue = controller.queue.clone();
    controller.services.subscribe(move |delta| queue.add(delta.object().key()));
    let handler = controller.clone();
    controller.pods.subscribe(move |delta| handler.pod_changed(delta));
    let handler = controller.clone();
    controller.slices.subscribe(move |delta| handler.slice_changed(delta));
    let queue = controller.queue.clone();
    controller.endpoints.subscribe(move |delta| queue.add(delta.object().key()));
    let handler = controller.clone();
    controller.nodes.subscribe(move |delta| {
        if let Delta::Updated { old, new } = delta
            && backends::zone(old) != backends::zone(new)
        {
            handler.services.list().iter().for_each(|s| handler.queue.add(s.key()));
        }
    });
    run_workers(controller.clone(), controller.queue.clone(), WORKERS, context.shutdown).await;
}

struct Controller {
    client: Client,
    services: Arc<Cache<Service>>,
    pods: Arc<Cache<Pod>>,
    nodes: Arc<Cache<Node>>,
    slices: Arc<Cache<EndpointSlice>>,
    endpoints: Arc<Cache<Endpoints>>,
    /// Slices created and not seen yet, by service.
    expectations: Expectations,
    triggers: Triggers,
    queue: Arc<WorkQueue<Key>>,
    recorder: Recorder,
}

impl Controller {
    fn pod_changed(&self, delta: &Delta<'_, Pod>) {
        let pod = delta.object();
        let old = match delta {
            Delta::Updated { old, new } if backends::same_for_endpoints(old, new) => return,
            Delta::Updated { old, .. } => Some(old),
            _ => None,
        };
        for service in self.services.list_namespace(pod.ns()) {
            let selector = Selector::from_map(service.spec.as_ref().and_then(|s| s.selector.as_ref()));
            let was = old.is_some_and(|o| selector.matches(o.metadata.labels.as_ref()));
            if was || selector.matches(pod.metadata.labels.as_ref()) {
                self.queue.add(service.key());
            }
        }
    }

    fn slice_changed(&self, delta: &Delta<'_, EndpointSlice>) {
        let slice = delta.object();
        if let Some(service) = slice.label(SERVICE_NAME) {
            let key = Key::new(slice.ns(), service);
            if let Delta::Added(_) = delta
                && slice.label(slices::MANAGED_BY_LABEL) == Some(MANAGED_BY)
            {
                self.expectations.creation_observed(&key);
            }
            self.queue.add(key);
        }
    }

    fn own_slices(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.slices.list_namespace(&key.namespace);
        slices.retain(|s| {
            s.label(SERVICE_NAME) == Some(&key.name) && s.label(slices::MANAGED_BY_LABEL) == Some(MANAGED_BY)
        });
        slices
    }

    async fn apply_slices(&self, service: &Service, changes: Vec<slices::Change>) -> Result<(), Failure> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), service.ns());
        let key = service.key();
        for change in changes {
            match change {
                slices::Change::Create(slice) => {
                    self.expectations.expect_creations(&key, 1);
                    if let Err(error) = api.create(&PostParams::default(), &slice).await {
                        self.expectations.creation_observed(&key);
                        if is_namespace_terminating(&error) {
                            return Ok(());
                        }
                        let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
                        self.recorder.record(
                            service,
                            EventType::Warning,
                            "FailedToUpdateEndpointSlices",
                            message,
                        );
                        return Err(Failure::api(format!("creating a slice of {key}"), error));
                    }
                }
                slices::Change::Update(slice) => {
                    api.replace(slice.name(), &PostParams::default(), &slice)
                        .await
                        .during(|| format!("updating slice {}", slice.name()))?;
                }
                slices::Change::Delete(name) => {
                    gone_is_fine(api.delete(&name, &DeleteParams::default()).await)
                        .during(|| format!("deleting slice {name}"))?;
                }
            }
        }
        Ok(())
    }

    async fn ensure_endpoints(&self, service: &Service, wanted: Endpoints) -> Result<(), Failure> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), service.ns());
        let what = || format!("writing endpoints of {}", service.key());
        match self.endpoints.get(&service.key()) {
            Some(existing) => match legacy::plan_update(&existing, wanted) {
                Some(changed) => {
                    api.replace(service.name(), &PostParams::default(), &changed).await.map(drop).during(what)
                }
                None => Ok(()),
            },
            None => match api.create(&PostParams::default(), &wanted).await {
                Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) => Ok(()),
                other => other.map(drop).during(what),
            },
        }
    }
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "endpoints";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(service) = self.services.get(key) else {
            self.expectations.clear(key);
            self.triggers.forget(key);
            // Slices go with their owner; Endpoints of a selector's service carry no owner.
            if self.endpoints.get(key).is_some_and(|e| legacy::is_ours(&e)) {
                let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
                gone_is_fine(api.delete(&key.name, &DeleteParams::default()).await)
                    .during(|| format!("deleting endpoints {key}"))?;
            }
            return Ok(Next::Done);
        };
        let spec = service.spec.clone().unwrap_or_default();
        let selector = spec.selector.filter(|s| !s.is_empty());
        if selector.is_none() || spec.type_.as_deref() == Some("ExternalName") || service.deleting() {
            return Ok(Next::Done);
        }
        let selector = Selector::from_map(selector.as_ref());
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|p| selector.matches(p.metadata.labels.as_ref()));
        let zones: BTreeMap<String, String> = pods
            .iter()
            .filter_map(|p| {
                let node = crate::pod::node_name(p)?;
                let state = self.nodes.get(&Key::new("", node))?;
                Some((node.to_owned(), backends::zone(&state)?.to_owned()))
            })
            .collect();
        let mut trigger = None;
        if self.expectations.satisfied(key) {
            trigger = self.triggers.changed(&service, &pods);
            let backends = backends::observe_backends(&service, &pods, &zones);
            let changes =
                slices::plan_slices(&slices::of_service(&service), backends, &self.own_slices(key), trigger);
            self.apply_slices(&service, changes).await?;
        }
        self.ensure_endpoints(&service, legacy::plan_endpoints(&service, &pods, trigger)).await?;
        Ok(Next::Done)
    }
}
