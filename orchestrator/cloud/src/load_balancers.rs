//! Services of type LoadBalancer: gets each an address from the provider, writes it into the status, and gives it
//! back when the Service goes or changes its type.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::{Cache, Delta, EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue};

use crate::bare_metal::BareMetal;
use crate::provider::{LoadBalancers, Request};

/// A Service that found no address looks again after this, or when one is given back.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// See the module.
pub struct Controller {
    pub(crate) client: Client,
    pub(crate) services: Arc<Cache<Service>>,
    pub(crate) provider: BareMetal,
    pub(crate) recorder: Recorder,
    pub(crate) queue: Arc<WorkQueue<Key>>,
}

impl Controller {
    pub(crate) fn note(&self, service: &Service) {
        if wants_balancer(service) {
            self.provider.note(&service.key().to_string(), &addresses(service));
        }
    }

    pub(crate) fn changed(&self, delta: &Delta<'_, Service>) {
        self.queue.add(delta.object().key());
    }

    async fn release(&self, key: &Key) {
        if self.provider.release(&key.to_string()).await {
            // Someone may be waiting for the address.
            let waiting =
                self.services.list().into_iter().filter(|s| wants_balancer(s) && addresses(s).is_empty());
            waiting.for_each(|s| self.queue.add(s.key()));
        }
    }

    async fn write(&self, service: &Service, addresses: &[IpAddr]) -> Result<(), Failure> {
        let ingress: Vec<LoadBalancerIngress> = addresses
            .iter()
            .map(|a| LoadBalancerIngress {
                ip: Some(a.to_string()),
                ip_mode: Some("VIP".into()),
                ..Default::default()
            })
            .collect();
        let status = LoadBalancerStatus { ingress: (!ingress.is_empty()).then_some(ingress) };
        // A merge patch replaces lists whole; an explicit null clears the last address.
        let ingress = serde_json::to_value(&status.ingress).unwrap_or_default();
        let patch = serde_json::json!({
            "metadata": {"uid": service.uid_str()}, "status": {"loadBalancer": {"ingress": ingress}},
        });
        let api: Api<Service> = Api::namespaced(self.client.clone(), service.ns());
        let patched = api.patch_status(service.name(), &PatchParams::default(), &Patch::Merge(&patch)).await;
        gone_is_fine(patched).map(drop).during(|| format!("status of service {}", service.key()))
    }
}

/// Whether the Service is ours to serve.
fn wants_balancer(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| {
        s.type_.as_deref() == Some("LoadBalancer") && s.load_balancer_class.is_none() && !service.deleting()
    })
}

/// Addresses in the status.
fn addresses(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|s| s.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|i| i.ip.as_ref()?.parse().ok()).collect()
}

fn plan_request(service: &Service) -> Request {
    let spec = service.spec.clone().unwrap_or_default();
    let families = spec.ip_families.unwrap_or_default();
    let has = |family: &str| families.iter().any(|f| f == family);
    Request {
        service: service.key().to_string(),
        wanted: spec.load_balancer_ip.and_then(|ip| ip.parse().ok()),
        ipv4: families.is_empty() || has("IPv4"),
        ipv6: has("IPv6"),
    }
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "load-balancers";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(service) = self.services.get(key) else {
            self.release(key).await;
            return Ok(Next::Done);
        };
        let has = addresses(&service);
        if !wants_balancer(&service) {
            let foreign = service.spec.as_ref().is_some_and(|s| s.load_balancer_class.is_some());
            self.release(key).await;
            if !has.is_empty() && !foreign && !service.deleting() {
                self.write(&service, &[]).await?;
            }
            return Ok(Next::Done);
        }
        match self.provider.ensure(&plan_request(&service)).await {
            Ok(wanted) if wanted == has => Ok(Next::Done),
            Ok(wanted) => {
                self.write(&service, &wanted).await?;
                let list: Vec<String> = wanted.iter().map(ToString::to_string).collect();
                let message = format!("Ensured load balancer at {}", list.join(", "));
                self.recorder.record(service.as_ref(), EventType::Normal, "EnsuredLoadBalancer", message);
                Ok(Next::Done)
            }
            Err(error) => {
                let message = format!("Error syncing load balancer: {error}");
                self.recorder.record(service.as_ref(), EventType::Warning, "SyncLoadBalancerFailed", message);
                Err(Failure::Wait { reason: error.to_string(), after: LOOK_AGAIN })
            }
        }
    }
}
