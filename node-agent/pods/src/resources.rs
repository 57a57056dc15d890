//! Requests and limits as the kernel takes them, and the QoS class that follows from them. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use penstock_runtime::LinuxResources;

use crate::desired::is_sidecar;
use crate::quantity;

/// Period of the CPU quota, µs.
pub const CPU_PERIOD_US: i64 = 100_000;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// Requests equal limits everywhere.
    Guaranteed,
    /// Some request or limit.
    Burstable,
    /// None.
    BestEffort,
}

impl Qos {
    /// As in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

type List = BTreeMap<String, Quantity>;

fn amount(list: Option<&List>, name: &str) -> Option<i64> {
    let value = list?.get(name)?;
    if name == "cpu" { quantity::milli(value) } else { quantity::whole(value) }
}

/// What a container asks for: its request, or its limit when there is only that.
pub fn request(resources: Option<&ResourceRequirements>, name: &str) -> Option<i64> {
    let resources = resources?;
    amount(resources.requests.as_ref(), name).or_else(|| amount(resources.limits.as_ref(), name))
}

/// What a container may use at most. CPU in thousandths, everything else in whole units.
pub fn limit(resources: Option<&ResourceRequirements>, name: &str) -> Option<i64> {
    amount(resources?.limits.as_ref(), name).filter(|v| *v > 0)
}

/// Class of a pod (kubernetes `pkg/apis/core/v1/helper/qos`).
pub fn qos(spec: &PodSpec) -> Qos {
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let pod = spec.resources.as_ref();
    let groups: Vec<Option<&ResourceRequirements>> = match pod {
        Some(r) if r.requests.is_some() || r.limits.is_some() => vec![pod],
        _ => containers().map(|c| c.resources.as_ref()).collect(),
    };
    let positive = |r: &Option<&ResourceRequirements>, name| {
        request(*r, name).is_some_and(|v| v > 0) || limit(*r, name).is_some()
    };
    if !groups.iter().any(|r| positive(r, "cpu") || positive(r, "memory")) {
        return Qos::BestEffort;
    }
    let guaranteed = |r: &Option<&ResourceRequirements>| {
        ["cpu", "memory"].iter().all(|name| limit(*r, name).is_some() && request(*r, name) == limit(*r, name))
    };
    if groups.iter().all(guaranteed) { Qos::Guaranteed } else { Qos::Burstable }
}

/// What the kernel is told of one cgroup, a container's or a pod's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// v1 shares.
    pub cpu_shares: i64,
    /// µs each [`CPU_PERIOD_US`]; `None` is no limit.
    pub cpu_quota_us: Option<i64>,
    /// Bytes; `None` is no limit.
    pub memory_bytes: Option<i64>,
}

impl Limits {
    /// As runtimes take them: zero is not set.
    pub fn for_runtime(&self, oom_score_adj: i64) -> LinuxResources {
        LinuxResources {
            cpu_period_us: CPU_PERIOD_US,
            cpu_quota_us: self.cpu_quota_us.unwrap_or(0),
            cpu_shares: self.cpu_shares,
            memory_limit_bytes: self.memory_bytes.unwrap_or(0),
            oom_score_adj,
            memory_swap_limit_bytes: self.memory_bytes.unwrap_or(0),
        }
    }
}

/// See [`Limits`].
pub fn compile_limits(container: &Container) -> Limits {
    let resources = container.resources.as_ref();
    Limits {
        cpu_shares: shares(request(resources, "cpu").unwrap_or(0)),
        cpu_quota_us: limit(resources, "cpu").map(quota),
        memory_bytes: limit(resources, "memory"),
    }
}

/// Shares of v1 for thousandths of a processor, within what the kernel takes.
pub fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

fn quota(milli: i64) -> i64 {
    (milli * CPU_PERIOD_US / 1000).max(1000)
}

/// Settings of one container. `oom_score_adj_min` is the lowest value this agent may set.
pub fn compile_container(
    spec: &PodSpec,
    container: &Container,
    node_memory_bytes: i64,
    oom_score_adj_min: i64,
) -> LinuxResources {
    let score = oom_score_adj(spec, container, node_memory_bytes, oom_score_adj_min);
    compile_limits(container).for_runtime(score)
}

/// Who dies first when memory runs out; not less than `min`.
pub fn oom_score_adj(spec: &PodSpec, container: &Container, node_memory_bytes: i64, min: i64) -> i64 {
    rank(spec, container, node_memory_bytes).max(min)
}

/// As other kubelets rank containers (kubernetes `pkg/kubelet/qos/policy.go`).
fn rank(spec: &PodSpec, container: &Container, node_memory_bytes: i64) -> i64 {
    if spec.priority.unwrap_or(0) >= 2_000_000_000 {
        return -997;
    }
    match qos(spec) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let asked = request(container.resources.as_ref(), "memory").unwrap_or(0);
            let score = 1000 - 1000 * i128::from(asked) / i128::from(node_memory_bytes.max(1));
            i64::try_from(score).unwrap_or(2).clamp(3, 999)
        }
    }
}

/// What a whole pod asks for: CPU in thousandths, or bytes of memory.
pub fn pod_request(spec: &PodSpec, name: &str) -> i64 {
    let requested = pod_amount(spec, name, |r, n| Some(request(r, n).unwrap_or(0))).unwrap_or(0);
    request(spec.resources.as_ref(), name).unwrap_or(requested)
}

/// Limits of a whole pod, for its cgroup: set only where every container has one.
pub fn compile_pod(spec: &PodSpec) -> Limits {
    let cpu = limit(spec.resources.as_ref(), "cpu").or_else(|| pod_amount(spec, "cpu", limit));
    let memory = limit(spec.resources.as_ref(), "memory").or_else(|| pod_amount(spec, "memory", limit));
    Limits {
        cpu_shares: shares(pod_request(spec, "cpu")),
        cpu_quota_us: cpu.map(quota),
        memory_bytes: memory,
    }
}

type Amount = fn(Option<&ResourceRequirements>, &str) -> Option<i64>;

/// The larger of what apps need together and what any init container needs, sidecars counted throughout; `None` when a
/// container has no such amount.
fn pod_amount(spec: &PodSpec, name: &str, of: Amount) -> Option<i64> {
    let overhead = amount(spec.overhead.as_ref(), name).unwrap_or(0);
    let mut sidecars = 0;
    let mut most = 0;
    for init in spec.init_containers.iter().flatten() {
        let value = of(init.resources.as_ref(), name)?;
        if is_sidecar(init) {
            sidecars += value;
            most = most.max(sidecars);
        } else {
            most = most.max(sidecars + value);
        }
    }
    let mut apps = sidecars;
    for container in &spec.containers {
        apps += of(container.resources.as_ref(), name)?;
    }
    Some(apps.max(most) + overhead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        let list = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(k, v)| (k.to_string(), Quantity(v.to_string()))).collect())
        };
        let resources = ResourceRequirements { requests: list(requests), limits: list(limits), claims: None };
        Container { name: "c".into(), resources: Some(resources), ..Default::default() }
    }

    fn pod(containers: Vec<Container>) -> PodSpec {
        PodSpec { containers, ..Default::default() }
    }

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let all = [("cpu", "1"), ("memory", "1Gi")];
        assert_eq!(qos(&pod(vec![container(&[], &[])])), Qos::BestEffort);
        assert_eq!(qos(&pod(vec![container(&[("cpu", "1")], &[])])), Qos::Burstable);
        assert_eq!(qos(&pod(vec![container(&all, &all)])), Qos::Guaranteed);
        assert_eq!(qos(&pod(vec![container(&[], &all)])), Qos::Guaranteed);
        assert_eq!(qos(&pod(vec![container(&all, &all), container(&[], &[])])), Qos::Burstable);
    }

    #[test]
    fn cpu_becomes_shares_and_quota() {
        let c = container(&[("cpu", "250m")], &[("cpu", "500m"), ("memory", "64Mi")]);
        let r = compile_container(&pod(vec![c.clone()]), &c, 1 << 34, -1000);
        assert_eq!((r.cpu_shares, r.cpu_quota_us, r.cpu_period_us), (256, 50_000, 100_000));
        assert_eq!(r.memory_limit_bytes, 64 << 20);
    }

    #[test]
    fn the_oom_score_is_never_below_what_may_be_set() {
        let all = [("cpu", "1"), ("memory", "1Gi")];
        let c = container(&all, &all);
        assert_eq!(compile_container(&pod(vec![c.clone()]), &c, 1 << 34, -1000).oom_score_adj, -997);
        assert_eq!(compile_container(&pod(vec![c.clone()]), &c, 1 << 34, 0).oom_score_adj, 0);
    }

    #[test]
    fn a_pod_is_limited_only_when_every_container_is() {
        let limited = || container(&[], &[("memory", "64Mi"), ("cpu", "1")]);
        assert_eq!(compile_pod(&pod(vec![limited(), limited()])).memory_bytes, Some(128 << 20));
        assert_eq!(compile_pod(&pod(vec![limited(), container(&[], &[])])).memory_bytes, None);
    }
}
