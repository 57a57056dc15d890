//! What the containers of a pod were given, which a resize may want to change. Pure.
//!
//! The API server stores what is asked for; what was given is only in the pod's status (`allocatedResources`,
//! `resources`), and is read from there after a restart of the agent. A container without such a status was never
//! started, and is given what it asks for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::desired::is_sidecar;
use crate::resources::{compile_limits, limit, request};

const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Resources by name of the container, for those that can be resized.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allocation(BTreeMap<String, ResourceRequirements>);

impl Allocation {
    /// What the pod asks for.
    pub fn asked(pod: &Pod) -> Self {
        let resources = |c: &Container| (c.name.clone(), c.resources.clone().unwrap_or_default());
        Self(resizable(pod).map(resources).collect())
    }

    /// What the pod was given, as far as its status tells.
    pub fn remembered(pod: &Pod) -> Self {
        let given = |c: &Container| {
            let asked = c.resources.clone().unwrap_or_default();
            let given = status(pod, &c.name).and_then(|s| recall(s, &asked));
            (c.name.clone(), given.unwrap_or(asked))
        };
        Self(resizable(pod).map(given).collect())
    }

    /// The pod with what it was given in place of what it asks for.
    pub fn given_to(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        let Some(spec) = pod.spec.as_mut() else { return pod };
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            if let Some(given) = self.0.get(&container.name) {
                let empty = *given == ResourceRequirements::default();
                container.resources = (!empty || container.resources.is_some()).then(|| given.clone());
            }
        }
        pod
    }

    /// Whether both are the same amounts, however they are written.
    pub fn is_same(&self, other: &Self) -> bool {
        let amounts =
            |a: &Self| -> Vec<_> { a.0.iter().map(|(name, r)| (name.clone(), amounts(r))).collect() };
        amounts(self) == amounts(other)
    }

    /// Containers of the pod that must restart to get what `wanted` gives them.
    pub fn restarts(&self, wanted: &Self, pod: &Pod) -> Vec<String> {
        let changed = |c: &&Container| {
            let with = |a: &Self| Container { resources: a.0.get(&c.name).cloned(), ..Container::default() };
            let (is, was) = (compile_limits(&with(wanted)), compile_limits(&with(self)));
            let cpu = (is.cpu_shares, is.cpu_quota_us) != (was.cpu_shares, was.cpu_quota_us);
            cpu && restarts_for(c, "cpu") || is.memory_bytes != was.memory_bytes && restarts_for(c, "memory")
        };
        resizable(pod).filter(changed).map(|c| c.name.clone()).collect()
    }
}

/// Whether a container wants to be restarted when it gets more or less of a resource.
pub fn restarts_for(container: &Container, resource: &str) -> bool {
    let mut policies = container.resize_policy.iter().flatten();
    policies.any(|p| p.resource_name == resource && p.restart_policy == "RestartContainer")
}

fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| {
        spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(|c| is_sidecar(c)))
    })
}

fn status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.container_statuses, &status.init_container_statuses];
    all.into_iter().flat_map(|list| list.iter().flatten()).find(|s| s.name == name)
}

/// `asked`, with CPU and memory as the status has them.
fn recall(status: &ContainerStatus, asked: &ResourceRequirements) -> Option<ResourceRequirements> {
    let shown = status.resources.as_ref()?;
    let requests = status.allocated_resources.as_ref().or(shown.requests.as_ref());
    Some(ResourceRequirements {
        requests: merge(asked.requests.as_ref(), requests),
        limits: merge(asked.limits.as_ref(), shown.limits.as_ref()),
        claims: asked.claims.clone(),
    })
}

type List = BTreeMap<String, Quantity>;

fn merge(asked: Option<&List>, given: Option<&List>) -> Option<List> {
    let mut merged = asked.cloned().unwrap_or_default();
    for resource in RESIZABLE {
        match given.and_then(|list| list.get(resource)) {
            Some(amount) => drop(merged.insert(resource.to_string(), amount.clone())),
            None => drop(merged.remove(resource)),
        }
    }
    (!merged.is_empty()).then_some(merged)
}

fn amounts(resources: &ResourceRequirements) -> Vec<(Option<i64>, Option<i64>)> {
    RESIZABLE.map(|name| (request(Some(resources), name), limit(Some(resources), name))).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(asked: Value, status: Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "a", "resources": asked,
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"},
                {"resourceName": "memory", "restartPolicy": "RestartContainer"}]}]},
            "status": {"containerStatuses": [status]}}))
        .unwrap()
    }

    fn shown(allocated: Value, resources: Value) -> Value {
        json!({"name": "a", "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
            "allocatedResources": allocated, "resources": resources})
    }

    #[test]
    fn a_restarted_agent_reads_from_the_status_what_it_had_given() {
        let asked = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2", "example.com/x": "1"}});
        let status =
            shown(json!({"cpu": "500m"}), json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}));
        let pod = pod(asked, status);
        let given = Allocation::remembered(&pod).given_to(&pod).spec.unwrap().containers[0].resources.clone();
        let want = json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "example.com/x": "1"}});
        assert_eq!(serde_json::to_value(given).unwrap(), want);
        assert!(!Allocation::remembered(&pod).is_same(&Allocation::asked(&pod)));
    }

    #[test]
    fn a_container_that_never_started_is_given_what_it_asks_for() {
        let asked = json!({"requests": {"cpu": "2"}});
        let status = json!({"name": "a", "ready": false, "restartCount": 0, "image": "i", "imageID": ""});
        let pod = pod(asked, status);
        assert_eq!(Allocation::remembered(&pod), Allocation::asked(&pod));
    }

    #[test]
    fn the_same_amount_written_otherwise_is_no_resize() {
        let none = shown(json!({}), json!({}));
        let one = Allocation::asked(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), none.clone()));
        let other = Allocation::asked(&pod(json!({"limits": {"cpu": "1000m", "memory": "1024Mi"}}), none));
        assert!(one.is_same(&other));
    }

    #[test]
    fn only_a_change_of_what_the_policy_names_restarts_the_container() {
        let with = |cpu: &str, memory: &str| {
            pod(json!({"limits": {"cpu": cpu, "memory": memory}}), shown(json!({}), json!({})))
        };
        let was = Allocation::asked(&with("1", "1Gi"));
        let restarts = |pod: &Pod| was.restarts(&Allocation::asked(pod), pod);
        assert!(restarts(&with("2", "1Gi")).is_empty());
        assert_eq!(restarts(&with("1", "2Gi")), ["a"]);
    }
}
