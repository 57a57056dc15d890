//! What the kernel holds a cgroup to right now, and whether that is what was meant. Pure.
//!
//! Runtimes before containerd 1.7 do not tell, and those after tell what they were told; so the truth is read from the
//! cgroup's own files (see `cgroups`), in the words of whichever version has the controllers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use penstock_runtime::LinuxResources;

use crate::resources::{CPU_PERIOD_US, Limits, compile_limits};

/// Kernels round memory limits down to pages, and no page is larger than this.
const PAGE_MAX_BYTES: i64 = 64 << 10;

/// An upper bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// None is set.
    Unlimited,
    /// This much.
    At(i64),
}

/// How CPU is shared when it is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuShare {
    /// v1.
    Shares(i64),
    /// v2, which runtimes derive from shares, each in its way and not one to one.
    Weight(i64),
}

/// See the module. What cannot be read is `None`, and counts as what was meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InForce {
    /// Share.
    pub cpu: Option<CpuShare>,
    /// µs each [`CPU_PERIOD_US`].
    pub cpu_quota_us: Option<Bound>,
    /// Bytes.
    pub memory: Option<Bound>,
    /// Bytes in use that the kernel could not give back at once.
    pub memory_used: Option<i64>,
}

/// What of a cgroup is not as it was meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Difference {
    /// Shares.
    pub cpu_share: bool,
    /// Quota.
    pub cpu_quota: bool,
    /// Memory limit.
    pub memory: bool,
}

impl Difference {
    /// Whether there is any.
    pub fn any(self) -> bool {
        self.cpu_share || self.cpu_quota || self.memory
    }
}

// === impl InForce ===

impl InForce {
    /// A runtime's word, where files cannot be read.
    pub fn told(r: &LinuxResources) -> Self {
        let bound = |value: i64| if value > 0 { Bound::At(value) } else { Bound::Unlimited };
        let period = if r.cpu_period_us > 0 { r.cpu_period_us } else { CPU_PERIOD_US };
        Self {
            cpu: (r.cpu_shares > 0).then_some(CpuShare::Shares(r.cpu_shares)),
            cpu_quota_us: Some(bound(r.cpu_quota_us * CPU_PERIOD_US / period)),
            memory: Some(bound(r.memory_limit_bytes)),
            memory_used: None,
        }
    }

    /// Whether nothing is known at all.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// What of `meant` is not in force.
    pub fn difference(&self, meant: &Limits) -> Difference {
        let quota = match self.cpu_quota_us {
            None => false,
            Some(bound) => bound != meant.cpu_quota_us.map_or(Bound::Unlimited, Bound::At),
        };
        let memory = match (self.memory, meant.memory_bytes) {
            (None, _) | (Some(Bound::Unlimited), None) => false,
            (Some(Bound::At(is)), Some(meant)) => !(0..PAGE_MAX_BYTES).contains(&(meant - is)),
            (Some(_), _) => true,
        };
        let cpu_share = match self.cpu {
            None => false,
            Some(CpuShare::Shares(is)) => is != meant.cpu_shares,
            Some(CpuShare::Weight(is)) => !weights(meant.cpu_shares).contains(&is),
        };
        Difference { cpu_share, cpu_quota: quota, memory }
    }

    /// The wider of what is in force and what is meant: what a pod needs while its containers change.
    pub fn widened(&self, meant: &Limits) -> Limits {
        let wider = |is: Option<Bound>, meant: Option<i64>| match (is, meant) {
            (Some(Bound::Unlimited), _) | (_, None) => None,
            (Some(Bound::At(is)), Some(meant)) => Some(is.max(meant)),
            (None, meant) => meant,
        };
        let shares = match self.cpu {
            Some(CpuShare::Shares(is)) => is.max(meant.cpu_shares),
            Some(CpuShare::Weight(is)) => shares_of_weight(is).max(meant.cpu_shares),
            None => meant.cpu_shares,
        };
        Limits {
            cpu_shares: shares,
            cpu_quota_us: wider(self.cpu_quota_us, meant.cpu_quota_us),
            memory_bytes: wider(self.memory, meant.memory_bytes),
        }
    }

    /// A container's resources as they are: `given`, with every amount replaced that is not in force.
    pub fn shown(&self, container: &Container, given: &ResourceRequirements) -> ResourceRequirements {
        let difference = self.difference(&compile_limits(container));
        let mut shown = given.clone();
        let limits = shown.limits.get_or_insert_default();
        if difference.cpu_quota {
            put(limits, "cpu", self.cpu_quota_us, |us| format!("{}m", us * 1000 / CPU_PERIOD_US));
        }
        if difference.memory {
            put(limits, "memory", self.memory, |bytes| bytes.to_string());
        }
        if limits.is_empty() {
            shown.limits = None;
        }
        if difference.cpu_share
            && let Some(requested) = shown.requests.as_mut().and_then(|r| r.get_mut("cpu"))
            && let Some(cpu) = self.cpu
        {
            let shares = match cpu {
                CpuShare::Shares(shares) => shares,
                CpuShare::Weight(weight) => shares_of_weight(weight),
            };
            // Rounded up: shares were rounded down from thousandths.
            *requested = Quantity(format!("{}m", (shares * 1000 + 1023) / 1024));
        }
        shown
    }
}

fn put(list: &mut BTreeMap<String, Quantity>, name: &str, is: Option<Bound>, text: fn(i64) -> String) {
    match is {
        Some(Bound::At(value)) => drop(list.insert(name.to_string(), Quantity(text(value)))),
        Some(Bound::Unlimited) => drop(list.remove(name)),
        None => {}
    }
}

/// The v2 weight this agent writes for shares: the kernel documents 1..10000 with default 100; shares 2..262144 map
/// linearly, as the OCI runtimes did for long.
pub fn weight(shares: i64) -> i64 {
    1 + (shares - 2) * 9999 / 262_142
}

/// The weights that runtimes are known to derive from shares: the linear one, and since runc 1.3.2 and crun 1.23 one in
/// which the default of 1024 shares is the default weight of 100 (opencontainers/cgroups, `ConvertCPUSharesToCgroupV2Value`).
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "both are below 2^19")]
fn weights(shares: i64) -> [i64; 2] {
    let log = (shares.max(2) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    [weight(shares), 10_f64.powf(exponent).ceil() as i64]
}

/// Shares of a linear weight.
fn shares_of_weight(weight: i64) -> i64 {
    2 + (weight - 1) * 262_142 / 9999
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(shares: i64, quota: Option<i64>, memory: Option<i64>) -> Limits {
        Limits { cpu_shares: shares, cpu_quota_us: quota, memory_bytes: memory }
    }

    fn in_force(cpu: CpuShare, quota: Bound, memory: Bound) -> InForce {
        InForce { cpu: Some(cpu), cpu_quota_us: Some(quota), memory: Some(memory), memory_used: None }
    }

    #[test]
    fn what_differs_is_told_apart_and_what_is_unknown_does_not_differ() {
        let is = in_force(CpuShare::Shares(512), Bound::At(50_000), Bound::At(64 << 20));
        assert!(!is.difference(&limits(512, Some(50_000), Some(64 << 20))).any());
        let wanted = is.difference(&limits(256, Some(50_000), None));
        assert_eq!(wanted, Difference { cpu_share: true, cpu_quota: false, memory: true });
        assert!(!InForce::default().difference(&limits(512, Some(1000), Some(1))).any());
    }

    #[test]
    fn a_memory_limit_is_in_force_when_the_kernel_rounded_it_to_pages() {
        let is = in_force(CpuShare::Shares(2), Bound::Unlimited, Bound::At(100_000_000 / 4096 * 4096));
        assert!(!is.difference(&limits(2, None, Some(100_000_000))).any());
        assert!(is.difference(&limits(2, None, Some(200_000_000))).memory);
    }

    #[test]
    fn weights_of_both_known_kinds_are_the_shares_they_stand_for() {
        for weight in [39, 100] {
            let is = in_force(CpuShare::Weight(weight), Bound::Unlimited, Bound::Unlimited);
            assert!(!is.difference(&limits(1024, None, None)).any(), "{weight}");
            assert!(is.difference(&limits(4096, None, None)).cpu_share, "{weight}");
        }
    }

    #[test]
    fn a_pod_is_widened_to_the_larger_of_both_and_never_narrowed() {
        let is = in_force(CpuShare::Shares(512), Bound::At(50_000), Bound::Unlimited);
        let meant = limits(256, Some(80_000), Some(64 << 20));
        assert_eq!(is.widened(&meant), limits(512, Some(80_000), None));
    }

    #[test]
    fn what_is_shown_is_what_is_in_force_in_the_words_of_the_pod_where_they_agree() {
        let container: Container = serde_json::from_value(serde_json::json!({"name": "c", "resources": {
            "requests": {"cpu": "0.5", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}}}))
        .unwrap();
        let given = container.resources.clone().unwrap();
        let same = in_force(CpuShare::Shares(512), Bound::At(100_000), Bound::At(64 << 20));
        assert_eq!(same.shown(&container, &given), given);
        let old = in_force(CpuShare::Shares(256), Bound::At(50_000), Bound::Unlimited);
        let shown = serde_json::to_value(old.shown(&container, &given)).unwrap();
        let want =
            serde_json::json!({"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "500m"}});
        assert_eq!(shown, want);
    }
}
