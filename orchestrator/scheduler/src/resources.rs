//! How much a pod asks for and how much a node has. CPU in milli-units, memory and ephemeral storage in bytes,
//! anything else in its own units.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use penstock_informers::quantity;

/// What a container that asks for nothing counts as when nodes are compared.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 << 20;

/// Amounts by resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(pub BTreeMap<String, i64>);

type Quantities = Option<BTreeMap<String, Quantity>>;

impl Resources {
    /// From the API's map.
    pub fn from_quantities(quantities: &Quantities) -> Self {
        let amount = |name: &str, q: &Quantity| {
            if name == "cpu" { quantity::milli(&q.0) } else { quantity::whole(&q.0) }
        };
        Self(quantities.iter().flatten().map(|(name, q)| (name.clone(), amount(name, q))).collect())
    }

    /// The amount of one resource, 0 when absent.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Adds amounts, saturating.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            *mine = mine.saturating_add(*amount);
        }
    }

    /// Takes amounts away, not below zero.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            if let Some(mine) = self.0.get_mut(name) {
                *mine = mine.saturating_sub(*amount).max(0);
            }
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }
}

/// What the node can give.
pub fn allocatable(node: &Node) -> Resources {
    let Some(status) = &node.status else {
        return Resources::default();
    };
    if status.allocatable.is_some() {
        Resources::from_quantities(&status.allocatable)
    } else {
        Resources::from_quantities(&status.capacity)
    }
}

/// What the pod asks for, counting sidecars for ever and init containers one at a time. While a resize is under way it
/// counts as the more of what it asks for and what its node still holds for it.
pub fn requests(pod: &Pod) -> Resources {
    sum(pod, requests_of)
}

/// The same with a default for containers that ask for no CPU or memory, so that scores see them.
pub fn requests_with_defaults(pod: &Pod) -> Resources {
    sum(pod, |requirements| {
        let mut requests = requests_of(requirements);
        requests.0.entry("cpu".into()).or_insert(DEFAULT_MILLI_CPU);
        requests.0.entry("memory".into()).or_insert(DEFAULT_MEMORY_BYTES);
        requests
    })
}

fn requests_of(requirements: Option<&ResourceRequirements>) -> Resources {
    requirements.map(|r| Resources::from_quantities(&r.requests)).unwrap_or_default()
}

fn sum(pod: &Pod, requests_of: impl Fn(Option<&ResourceRequirements>) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::default();
    };
    let of = |c: &Container| {
        let mut requests = requests_of(c.resources.as_ref());
        if let Some(held) = held(pod, &c.name) {
            if is_infeasible(pod) {
                requests.0.extend(held.0);
            } else {
                requests.raise_to(&held);
            }
        }
        requests
    };
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for init in spec.init_containers.iter().flatten() {
        let mut moment = of(init);
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&moment);
            peak.raise_to(&sidecars);
        } else {
            moment.add(&sidecars);
            peak.raise_to(&moment);
        }
    }
    total.add(&sidecars);
    total.raise_to(&peak);
    // Requests of the pod as a whole stand for those of its containers.
    if let Some(whole) = &spec.resources {
        total.0.extend(Resources::from_quantities(&whole.requests).0);
    }
    total.add(&Resources::from_quantities(&spec.overhead));
    total
}

/// What the node gave a container, as it says itself.
fn held(pod: &Pod, container: &str) -> Option<Resources> {
    let status = pod.status.as_ref()?;
    let all = [&status.container_statuses, &status.init_container_statuses];
    let mut all = all.into_iter().flat_map(|list| list.iter().flatten());
    let status = all.find(|s| s.name == container)?;
    status.allocated_resources.is_some().then(|| Resources::from_quantities(&status.allocated_resources))
}

/// Whether the node said that it will never give the pod what it asks for.
fn is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut pending = conditions.into_iter().flatten().filter(|c| c.type_ == "PodResizePending");
    pending.any(|c| c.status == "True" && c.reason.as_deref() == Some("Infeasible"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    fn container(cpu: &str, sidecar: bool) -> Container {
        Container {
            restart_policy: sidecar.then(|| "Always".to_owned()),
            resources: Some(ResourceRequirements {
                requests: Some([("cpu".to_owned(), Quantity(cpu.into()))].into()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn init_containers_run_one_at_a_time_and_sidecars_for_ever() {
        let pod = |init: Vec<Container>| Pod {
            spec: Some(PodSpec {
                containers: vec![container("100m", false), container("200m", false)],
                init_containers: Some(init),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(requests(&pod(vec![])).get("cpu"), 300);
        assert_eq!(requests(&pod(vec![container("500m", false), container("400m", false)])).get("cpu"), 500);
        assert_eq!(requests(&pod(vec![container("50m", true), container("500m", false)])).get("cpu"), 550);
        assert_eq!(requests(&pod(vec![container("50m", true)])).get("cpu"), 350);
    }

    #[test]
    fn a_pod_that_is_being_resized_counts_as_the_more_of_what_it_has_and_what_it_wants() {
        let pod = |wants: &str, has: &str, pending: &str| -> Pod {
            serde_json::from_value(serde_json::json!({
                "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": wants}}}]},
                "status": {
                    "conditions": [{"type": "PodResizePending", "status": "True", "reason": pending}],
                    "containerStatuses": [{"name": "a", "image": "i", "imageID": "i", "ready": true,
                        "restartCount": 0, "allocatedResources": {"cpu": has}}]},
            }))
            .unwrap()
        };
        assert_eq!(requests(&pod("500m", "200m", "Deferred")).get("cpu"), 500);
        assert_eq!(requests(&pod("200m", "500m", "")).get("cpu"), 500);
        assert_eq!(requests(&pod("64", "500m", "Infeasible")).get("cpu"), 500);
    }
}
