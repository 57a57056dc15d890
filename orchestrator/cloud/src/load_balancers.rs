//! Services of type LoadBalancer: gets each its addresses from the provider, writes them into the status with a
//! condition that says how it stands, and gives them back when the Service goes or changes its type.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::{Cache, Delta, EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue};
use serde_json::{Value, json};

use crate::address_pool::AddressPool;
use crate::announced::{self, Holders};
use crate::bare_metal::BareMetal;
use crate::plan::{Claim, Refusal, Request};
use crate::provider::LoadBalancers;

/// Names the pool a Service wants its addresses from.
pub const POOL_ANNOTATION: &str = "penstock.io/address-pool";
/// Services with the same value may have one address, on ports of their own.
pub const SHARE_ANNOTATION: &str = "penstock.io/share-address";
/// The class that means us; a Service without one is ours too.
pub const CLASS: &str = "penstock.io/address-pool";
/// Whether the Service has its addresses.
pub const CONDITION: &str = "AddressAssigned";

/// A Service that found no address looks again after this, or when something changes that could help.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// See the module.
pub struct Controller {
    pub(crate) client: Client,
    pub(crate) services: Arc<Cache<Service>>,
    pub(crate) pools: Arc<Cache<AddressPool>>,
    pub(crate) nodes: Arc<Cache<Node>>,
    pub(crate) provider: Arc<BareMetal>,
    pub(crate) recorder: Recorder,
    pub(crate) queue: Arc<WorkQueue<Key>>,
    /// Pools whose status may have changed.
    pub(crate) pool_queue: Arc<WorkQueue<Key>>,
}

// === impl Controller ===

impl Controller {
    /// Takes note of what the Service has, before anything is given out.
    pub(crate) fn note(&self, service: &Service) {
        if is_ours(service) {
            self.provider.note(&service.key().to_string(), &addresses(service), &claim(service));
        }
    }

    /// A pool came, changed or went: everybody may have to move, or find what was missing. Its status, which we
    /// write, concerns nobody.
    pub(crate) fn pool_changed(&self, delta: &Delta<'_, AddressPool>) {
        if let Delta::Updated { old, new } = delta
            && old.spec == new.spec
            && old.deleting() == new.deleting()
        {
            return;
        }
        self.services.list().iter().filter(|s| is_ours(s)).for_each(|s| self.queue.add(s.key()));
        self.count_again();
    }

    /// A node said something else about what it announces.
    pub(crate) fn node_changed(&self, delta: &Delta<'_, Node>) {
        if announced::may_differ(delta) {
            let have = |service: &Service| is_ours(service) && !addresses(service).is_empty();
            self.services.list().iter().filter(|s| have(s)).for_each(|s| self.queue.add(s.key()));
        }
    }

    fn holders(&self) -> Holders {
        let nodes = self.nodes.list();
        announced::holders(nodes.iter().map(AsRef::as_ref))
    }

    fn count_again(&self) {
        self.pools.list().iter().for_each(|pool| self.pool_queue.add(pool.key()));
    }

    async fn release(&self, key: &Key) {
        if self.provider.release(&key.to_string()).await {
            // Someone may be waiting for the address.
            let waiting = self.services.list().into_iter().filter(|s| is_ours(s) && addresses(s).is_empty());
            waiting.for_each(|s| self.queue.add(s.key()));
            self.count_again();
        }
    }

    /// Writes addresses and conditions, if they are not there already.
    async fn write(
        &self,
        service: &Service,
        addresses: &[IpAddr],
        conditions: Vec<Condition>,
    ) -> Result<(), Failure> {
        let Some(status) = plan_status(service, addresses, conditions) else { return Ok(()) };
        let patch = json!({
            "metadata": {"uid": service.uid_str(), "resourceVersion": service.metadata.resource_version},
            "status": status,
        });
        let api: Api<Service> = Api::namespaced(self.client.clone(), service.ns());
        let patched = api.patch_status(service.name(), &PatchParams::default(), &Patch::Merge(&patch)).await;
        gone_is_fine(patched).map(drop).during(|| format!("status of service {}", service.key()))
    }

    async fn assign(&self, service: &Service) -> Result<Next, Failure> {
        let has = addresses(service);
        match self.provider.ensure(&plan_request(service)).await {
            Ok(wanted) => {
                let list: Vec<String> = wanted.iter().map(ToString::to_string).collect();
                let message = format!("the Service has {}", list.join(", "));
                let now = Timestamp::now();
                let assigned = plan_condition(service, CONDITION, ("True", "Assigned", message), now);
                let word = announced::tell(&wanted, &self.holders());
                let announced = plan_condition(service, announced::CONDITION, word, now);
                let news = differs(condition_of(service, announced::CONDITION), &announced);
                self.write(service, &wanted, vec![assigned, announced.clone()]).await?;
                if news && announced.status == "True" {
                    self.recorder.record(service, EventType::Normal, "AddressAnnounced", announced.message);
                }
                if wanted != has {
                    let message = format!("Ensured load balancer at {}", list.join(", "));
                    self.recorder.record(service, EventType::Normal, "EnsuredLoadBalancer", message);
                    self.count_again();
                }
                Ok(Next::Done)
            }
            Err(refusal) => self.refuse(service, refusal).await,
        }
    }

    /// An address that is not the Service's any more must not stay in its status: somebody else may be given it.
    async fn refuse(&self, service: &Service, refusal: Refusal) -> Result<Next, Failure> {
        self.release(&service.key()).await;
        let message = refusal.to_string();
        let told = condition_of(service, CONDITION)
            .is_some_and(|c| c.reason == refusal.reason() && c.message == message);
        let word = ("False", refusal.reason(), message.clone());
        let condition = plan_condition(service, CONDITION, word, Timestamp::now());
        self.write(service, &[], vec![condition]).await?;
        if !told {
            let message = format!("Error syncing load balancer: {message}");
            self.recorder.record(service, EventType::Warning, "SyncLoadBalancerFailed", message);
        }
        Err(Failure::Wait { reason: message, after: LOOK_AGAIN })
    }
}

/// Whether the Service is ours to serve.
fn is_ours(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| {
        s.type_.as_deref() == Some("LoadBalancer")
            && s.load_balancer_class.as_deref().is_none_or(|class| class == CLASS)
            && !service.deleting()
    })
}

/// Addresses in the status.
fn addresses(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|s| s.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|i| i.ip.as_ref()?.parse().ok()).collect()
}

fn condition_of<'s>(service: &'s Service, kind: &str) -> Option<&'s Condition> {
    service.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

fn is_our_condition(condition: &Condition) -> bool {
    [CONDITION, announced::CONDITION].contains(&condition.type_.as_str())
}

/// Whether a condition would say something new.
fn differs(old: Option<&Condition>, new: &Condition) -> bool {
    old.is_none_or(|old| (&new.status, &new.reason, &new.message) != (&old.status, &old.reason, &old.message))
}

fn claim(service: &Service) -> Claim {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten();
    Claim {
        sharing_key: service.annotation(SHARE_ANNOTATION).filter(|key| !key.is_empty()).map(str::to_owned),
        ports: ports.map(|p| (p.protocol.clone().unwrap_or_else(|| "TCP".into()), p.port)).collect(),
        local_only: spec.and_then(|s| s.external_traffic_policy.as_deref()) == Some("Local"),
    }
}

fn plan_request(service: &Service) -> Request {
    let spec = service.spec.clone().unwrap_or_default();
    let families = spec.ip_families.unwrap_or_default();
    let has = |family: &str| families.iter().any(|f| f == family);
    Request {
        service: service.key().to_string(),
        has: addresses(service),
        wanted: spec.load_balancer_ip.and_then(|ip| ip.parse().ok()),
        pool: service.annotation(POOL_ANNOTATION).filter(|name| !name.is_empty()).map(str::to_owned),
        ipv4: families.is_empty() || has("IPv4"),
        ipv6: has("IPv6"),
        claim: claim(service),
    }
}

/// The condition as it should be; its time moves only with its status.
fn plan_condition(
    service: &Service,
    kind: &str,
    (status, reason, message): (&str, &str, String),
    now: Timestamp,
) -> Condition {
    let since =
        condition_of(service, kind).filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
    Condition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        last_transition_time: since.unwrap_or(Time(now)),
        observed_generation: service.metadata.generation,
    }
}

/// The part of the status that is ours, as a merge patch; none when it is so already. Of our conditions those that are
/// not given are taken away.
fn plan_status(service: &Service, wanted: &[IpAddr], conditions: Vec<Condition>) -> Option<Value> {
    let others = service.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let same_count = others.iter().filter(|c| is_our_condition(c)).count() == conditions.len();
    let same = same_count && conditions.iter().all(|new| !differs(condition_of(service, &new.type_), new));
    if addresses(service) == wanted && same {
        return None;
    }
    let ingress: Vec<LoadBalancerIngress> = wanted
        .iter()
        .map(|a| LoadBalancerIngress {
            ip: Some(a.to_string()),
            ip_mode: Some("VIP".into()),
            ..LoadBalancerIngress::default()
        })
        .collect();
    // A merge patch replaces lists whole; an explicit null clears the last address.
    let ingress = (!ingress.is_empty()).then_some(ingress);
    let conditions: Vec<Condition> =
        others.into_iter().filter(|c| !is_our_condition(c)).chain(conditions).collect();
    let conditions = (!conditions.is_empty()).then_some(conditions);
    Some(json!({"loadBalancer": {"ingress": ingress}, "conditions": conditions}))
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "load-balancers";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(service) = self.services.get(key) else {
            self.release(key).await;
            return Ok(Next::Done);
        };
        if is_ours(&service) {
            return self.assign(&service).await;
        }
        self.release(key).await;
        let foreign = service.spec.as_ref().is_some_and(|s| s.load_balancer_class.is_some());
        if !foreign && !service.deleting() {
            self.write(&service, &[], Vec::new()).await?;
        }
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value, status: Value) -> Service {
        let meta = json!({"name": "s", "namespace": "ns", "generation": 1,
            "annotations": {POOL_ANNOTATION: "lan", SHARE_ANNOTATION: "front"}});
        serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": status})).unwrap()
    }

    fn balanced(status: Value) -> Service {
        let ports = json!([{"port": 80}, {"port": 53, "protocol": "UDP"}]);
        service(json!({"type": "LoadBalancer", "loadBalancerIP": "192.0.2.9", "ports": ports}), status)
    }

    #[test]
    fn a_request_says_all_the_service_asks_for() {
        let has = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}});
        let request = plan_request(&balanced(has));
        assert_eq!(request.has, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            (request.pool.as_deref(), request.claim.sharing_key.as_deref()),
            (Some("lan"), Some("front"))
        );
        assert_eq!(request.claim.ports, [("TCP".to_owned(), 80), ("UDP".to_owned(), 53)].into());
        assert!(request.ipv4 && !request.ipv6);
    }

    #[test]
    fn another_class_is_another_ones() {
        assert!(is_ours(&balanced(Value::Null)));
        assert!(is_ours(&service(json!({"type": "LoadBalancer", "loadBalancerClass": CLASS}), Value::Null)));
        assert!(!is_ours(&service(json!({"type": "LoadBalancer", "loadBalancerClass": "a/b"}), Value::Null)));
        assert!(!is_ours(&service(json!({"type": "ClusterIP"}), Value::Null)));
    }

    #[test]
    fn a_status_is_written_once_and_keeps_others_conditions() {
        let now = Timestamp::UNIX_EPOCH;
        let foreign = json!({"type": "Other", "status": "True", "reason": "R", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let before = balanced(json!({"conditions": [foreign]}));
        let wanted = ["192.0.2.9".parse::<IpAddr>().unwrap()];
        let ours = |service: &Service| -> Vec<Condition> {
            let word = |reason| ("True", reason, "m".to_owned());
            [(CONDITION, word("Assigned")), (announced::CONDITION, word("Announced"))]
                .map(|(kind, word)| plan_condition(service, kind, word, now))
                .into()
        };
        let status = plan_status(&before, &wanted, ours(&before)).unwrap();
        assert_eq!(status["conditions"].as_array().unwrap().len(), 3);
        assert_eq!(status["loadBalancer"]["ingress"][0]["ip"], "192.0.2.9");
        let after = balanced(status);
        assert_eq!(plan_status(&after, &wanted, ours(&after)), None);
        let fewer = plan_status(&after, &wanted, ours(&after)[..1].to_vec()).unwrap();
        assert_eq!(fewer["conditions"].as_array().unwrap().len(), 2, "what is not told any more goes");
        let cleared = plan_status(&after, &[], Vec::new()).unwrap();
        assert_eq!(cleared["loadBalancer"]["ingress"], Value::Null);
        assert_eq!(cleared["conditions"].as_array().unwrap().len(), 1);
    }
}
