//! Resizes of pods whose containers run, wait, or are to be restarted.

use penstock_runtime::{ContainerState, ContainerStatus, SandboxInfo, SandboxState, SandboxStatus};
use serde_json::{Value, json};

use super::*;
use crate::desired::{Desired, Origin};
use crate::memory::Memory;
use crate::observed::PodRuntime;
use crate::plan::{Plan, plan};

const MIB: i64 = 1 << 20;

/// A pod of one container with these limits, and requests to match.
fn pod(cpu: &str, memory: &str, policy: Value) -> Desired {
    let amounts = json!({"cpu": cpu, "memory": memory});
    let container =
        json!({"name": "a", "resizePolicy": policy, "resources": {"requests": amounts, "limits": amounts}});
    let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": "OnFailure", "containers": [container]}});
    Desired::new(serde_json::from_value(pod).unwrap(), Origin::Api).unwrap()
}

fn in_force(cpu_milli: i64, memory_mib: i64, used_mib: i64) -> InForce {
    InForce {
        cpu: Some(CpuShare::Shares(cpu_milli * 1024 / 1000)),
        cpu_quota_us: Some(Bound::At(cpu_milli * 100)),
        memory: Some(Bound::At(memory_mib * MIB)),
        memory_used: Some(used_mib * MIB),
    }
}

/// A pod whose container `a-0` is held to this, and so is the pod.
fn seen(is: InForce) -> PodRuntime {
    let info =
        SandboxInfo { id: "s".into(), state: SandboxState::Ready, created_at: 1, ..Default::default() };
    let status = ContainerStatus {
        id: "a-0".into(),
        name: "a".into(),
        state: ContainerState::Running,
        started_at: 1_000_000_000,
        ..Default::default()
    };
    PodRuntime {
        sandboxes: vec![SandboxStatus { info, addresses: vec!["10.244.0.2".into()] }],
        containers: vec![Observed { status, sandbox: "s".into(), in_force: is, ..Default::default() }],
        in_force: is,
    }
}

fn memory() -> Memory {
    Memory { volumes_ready: true, ..Default::default() }
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::from_second(3).unwrap()
}

fn planned(desired: &Desired, seen: &PodRuntime, memory: &Memory) -> Plan {
    plan(desired, seen, memory, None, now())
}

fn limits(cpu_milli: i64, memory_mib: i64) -> Limits {
    Limits {
        cpu_shares: cpu_milli * 1024 / 1000,
        cpu_quota_us: Some(cpu_milli * 100),
        memory_bytes: Some(memory_mib * MIB),
    }
}

#[test]
fn what_is_in_force_is_left_alone() {
    let plan = planned(&pod("500m", "64Mi", json!([])), &seen(in_force(500, 64, 1)), &memory());
    assert_eq!(plan, Plan::default());
}

#[test]
fn a_pod_is_widened_before_and_narrowed_after_its_containers_change() {
    let plan = planned(&pod("1", "32Mi", json!([])), &seen(in_force(500, 64, 1)), &memory());
    let want = Resizing {
        before: limits(1000, 64),
        containers: vec![("a-0".into(), "a".into(), limits(1000, 32))],
        after: limits(1000, 32),
    };
    assert_eq!(plan.effects, [Effect::Resize(want)]);
    assert!(plan.resizing && plan.resize_blocked.is_none());
}

#[test]
fn a_memory_limit_below_what_is_used_is_kept_back_and_the_rest_is_done() {
    let plan = planned(&pod("1", "32Mi", json!([])), &seen(in_force(500, 64, 40)), &memory());
    let want = Resizing {
        before: limits(1000, 64),
        containers: vec![("a-0".into(), "a".into(), limits(1000, 64))],
        after: limits(1000, 64),
    };
    assert_eq!(plan.effects, [Effect::Resize(want)]);
    assert!(plan.resize_blocked.unwrap().contains("container a"));
    let only_memory = planned(&pod("500m", "32Mi", json!([])), &seen(in_force(500, 64, 40)), &memory());
    assert!(only_memory.effects.is_empty() && only_memory.resizing);
    assert!(only_memory.wake_after.is_some(), "it is tried again");
}

#[test]
fn a_container_whose_policy_says_so_is_restarted_and_that_is_not_its_end() {
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let desired = pod("500m", "128Mi", policy.clone());
    let mut seen_now = seen(in_force(500, 64, 1));
    let stop = planned(&desired, &seen_now, &memory());
    let widen = |e: &Effect| matches!(e, Effect::Resize(r) if r.containers.is_empty());
    assert!(stop.resizing);
    assert!(matches!(&stop.effects[0], Effect::Stop { id, replace: true, .. } if id == "a-0"), "{stop:?}");
    assert!(stop.effects[1..].iter().all(widen), "the pod is widened meanwhile: {stop:?}");
    // It ended well, and its pod restarts only what failed: yet it is started again, and at once.
    let mut replaced = memory();
    replaced.replaced.insert("a-0".into());
    replaced.crashes.entry("a".into()).or_default().advance();
    seen_now.containers[0].status.state = ContainerState::Exited;
    let again = planned(&desired, &seen_now, &replaced);
    assert!(again.effects.iter().any(|e| matches!(e, Effect::Start { attempt: 1, .. })), "{again:?}");
    let cpu_only = planned(&pod("1", "64Mi", policy), &seen(in_force(500, 64, 1)), &memory());
    assert!(cpu_only.effects.iter().all(|e| matches!(e, Effect::Resize(_))), "{cpu_only:?}");
}

#[test]
fn a_weight_says_nothing_certain_so_that_only_a_granted_resize_restarts_for_it() {
    let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let desired = pod("500m", "64Mi", policy);
    let is = InForce { cpu: Some(CpuShare::Weight(7)), ..in_force(500, 64, 1) };
    let mut memory = memory();
    let unsure = planned(&desired, &seen(is), &memory);
    assert!(unsure.effects.iter().all(|e| matches!(e, Effect::Resize(_))), "{unsure:?}");
    memory.restart_due.insert("a-0".into());
    let granted = planned(&desired, &seen(is), &memory);
    assert!(matches!(&granted.effects[0], Effect::Stop { replace: true, .. }), "{granted:?}");
}

#[test]
fn what_was_told_once_is_not_told_again_and_what_failed_waits() {
    let desired = pod("1", "64Mi", json!([]));
    let mut told = memory();
    told.told.insert("a-0".into(), limits(1000, 64));
    let mut now_wide = seen(in_force(500, 64, 1));
    now_wide.in_force = in_force(1000, 64, 1);
    assert!(planned(&desired, &now_wide, &told).effects.is_empty());
    let mut failed = memory();
    failed.resize.retry_at = Some(now() + SignedDuration::from_secs(2));
    let waits = planned(&desired, &seen(in_force(500, 64, 1)), &failed);
    assert!(waits.effects.is_empty() && waits.resizing);
    assert_eq!(waits.wake_after, Some(std::time::Duration::from_secs(2)));
}

#[test]
fn a_pod_is_widened_for_a_container_that_waits_to_start() {
    let mut crashed = seen(in_force(500, 64, 1));
    crashed.containers[0].status.state = ContainerState::Exited;
    crashed.containers[0].status.exit_code = 137;
    crashed.containers[0].in_force = InForce::default();
    let plan = planned(&pod("500m", "128Mi", json!([])), &crashed, &memory());
    let widens = |e: &Effect| matches!(e, Effect::Resize(r) if r.after == limits(500, 128));
    assert!(plan.effects.iter().any(widens), "{plan:?}");
}
