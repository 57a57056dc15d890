//! CPU weights of the classes of pods, in the cgroups that hold all pods of a class: what pods without any request get is
//! what the others leave, and those with some get together what they ask for.
//!
//! It exists because the kernel shares a processor among siblings first. Without it the cgroup of all best-effort pods weighs as
//! much as a pod that asks for a whole processor. Guaranteed pods have no class of theirs, and lie beside the two. (Kubernetes
//! `pkg/kubelet/cm/qos_container_manager_linux.go`, `setCPUCgroupConfig`.)

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::resources::{self, Qos};

/// How often the weights are set without a change, as other kubelets do: somebody may have changed or removed the cgroups.
const REPAIR_EVERY: Duration = Duration::from_secs(60);

/// Keeps the weights at what the pods of this node were given, until shutdown.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let mut asked = context.ledger.burstable_cpu();
    let mut is_told = false;
    loop {
        let burstable_milli = *asked.borrow_and_update();
        let mut failed = false;
        for (qos, shares) in plan(burstable_milli) {
            let Err(error) = context.cgroups.weigh(qos, shares) else { continue };
            if !is_told {
                tracing::warn!(class = qos.name(), %error, "the CPU weight of a class of pods is not set");
            }
            failed = true;
        }
        is_told = failed;
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = asked.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(REPAIR_EVERY) => {}
        }
    }
}

/// Shares of the cgroups of classes, when the burstable pods together ask for so many thousandths of a processor.
fn plan(burstable_milli: i64) -> [(Qos, i64); 2] {
    [(Qos::BestEffort, resources::shares(0)), (Qos::Burstable, resources::shares(burstable_milli))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_nothing_weighs_as_little_as_can_be_and_the_others_what_they_ask_for() {
        assert_eq!(plan(0), [(Qos::BestEffort, 2), (Qos::Burstable, 2)]);
        assert_eq!(plan(250), [(Qos::BestEffort, 2), (Qos::Burstable, 256)]);
        assert_eq!(plan(3_500), [(Qos::BestEffort, 2), (Qos::Burstable, 3_584)]);
        assert_eq!(plan(10_000_000)[1], (Qos::Burstable, 262_144), "as much as the kernel takes");
    }
}
