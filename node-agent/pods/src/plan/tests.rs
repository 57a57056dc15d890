//! Plans for pods in every stage of their life.

use penstock_runtime::{ContainerStatus, SandboxInfo, SandboxStatus};
use serde_json::json;

use super::*;
use crate::desired::Origin;
use crate::memory::Health;

fn pod(spec: serde_json::Value) -> Desired {
    let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
    Desired::new(serde_json::from_value(pod).unwrap(), Origin::Api).unwrap()
}

fn sandbox(state: SandboxState) -> SandboxStatus {
    let info = SandboxInfo { id: "s".into(), state, created_at: 1, ..Default::default() };
    SandboxStatus { info, addresses: vec!["10.244.0.2".into()] }
}

fn ready() -> PodRuntime {
    PodRuntime { sandboxes: vec![sandbox(SandboxState::Ready)], ..Default::default() }
}

/// A container in sandbox `s`; `exit` none means running.
fn container(name: &str, attempt: u32, exit: Option<i32>) -> Observed {
    let status = ContainerStatus {
        id: format!("{name}-{attempt}"),
        name: name.into(),
        attempt,
        state: if exit.is_some() { ContainerState::Exited } else { ContainerState::Running },
        exit_code: exit.unwrap_or(0),
        started_at: 1_000_000_000,
        finished_at: if exit.is_some() { 2_000_000_000 } else { 0 },
        ..Default::default()
    };
    Observed { status, sandbox: "s".into(), ..Default::default() }
}

fn memory() -> Memory {
    Memory { volumes_ready: true, ..Default::default() }
}

fn now() -> Timestamp {
    Timestamp::from_second(3).unwrap()
}

fn live(desired: &Desired, seen: &PodRuntime, memory: &Memory) -> Plan {
    plan(desired, seen, memory, None, now())
}

fn starts(plan: &Plan) -> Vec<&str> {
    let mut out = Vec::new();
    for effect in &plan.effects {
        if let Effect::Start { name, .. } = effect {
            out.push(name.as_str());
        }
    }
    out
}

fn stops(plan: &Plan) -> Vec<(&str, i64)> {
    let mut out = Vec::new();
    for effect in &plan.effects {
        if let Effect::Stop { name, grace_seconds, .. } = effect {
            out.push((name.as_str(), *grace_seconds));
        }
    }
    out
}

#[test]
fn a_new_pod_gets_a_sandbox_first_and_all_containers_at_once_then() {
    let desired = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let first = live(&desired, &PodRuntime::default(), &Memory::default());
    assert_eq!(first.effects, [Effect::Prepare { attempt: 0, sandbox: true }]);
    assert_eq!(starts(&live(&desired, &ready(), &memory())), ["a", "b"]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let desired =
        pod(json!({"initContainers": [{"name": "i1"}, {"name": "i2"}], "containers": [{"name": "a"}]}));
    let mut seen = ready();
    assert_eq!(starts(&live(&desired, &seen, &memory())), ["i1"]);
    seen.containers = vec![container("i1", 0, None)];
    assert!(live(&desired, &seen, &memory()).effects.is_empty());
    seen.containers = vec![container("i1", 0, Some(0))];
    assert_eq!(starts(&live(&desired, &seen, &memory())), ["i2"]);
    seen.containers = vec![container("i2", 0, Some(0)), container("i1", 0, Some(0))];
    assert_eq!(starts(&live(&desired, &seen, &memory())), ["a"]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let desired = pod(
        json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}),
    );
    let mut seen = ready();
    seen.containers = vec![container("i", 0, Some(1))];
    assert_eq!(live(&desired, &seen, &memory()).effects, [Effect::StopSandbox { id: "s".into() }]);
    seen.sandboxes = vec![sandbox(SandboxState::NotReady)];
    assert!(live(&desired, &seen, &memory()).finished);
}

#[test]
fn a_sidecar_lets_others_start_once_it_has_started_and_is_stopped_last() {
    let desired = pod(json!({"initContainers": [{"name": "side", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}]}));
    let mut seen = ready();
    seen.containers = vec![container("side", 0, None)];
    assert!(starts(&live(&desired, &seen, &memory())).is_empty());
    let mut started = memory();
    started.health.insert("side-0".into(), Health { started: true, ready: false });
    assert_eq!(starts(&live(&desired, &seen, &started)), ["a"]);
    seen.containers.insert(0, container("a", 0, None));
    let end = plan(&desired, &seen, &started, Some(Stop { grace_seconds: 7 }), now());
    assert_eq!(stops(&end), [("a", 7)]);
    seen.containers[0] = container("a", 0, Some(0));
    let end = plan(&desired, &seen, &started, Some(Stop { grace_seconds: 7 }), now());
    assert_eq!(stops(&end), [("side", 7)]);
}

#[test]
fn a_crashed_container_waits_out_its_pause() {
    let desired = pod(json!({"containers": [{"name": "a"}]}));
    let mut seen = ready();
    seen.containers = vec![container("a", 0, Some(1))];
    assert_eq!(starts(&live(&desired, &seen, &memory())), ["a"]);
    let mut crashed = memory();
    crashed.crashes.entry("a".into()).or_default().advance();
    let waiting = live(&desired, &seen, &crashed);
    assert!(starts(&waiting).is_empty());
    assert_eq!(waiting.waiting["a"].reason, "CrashLoopBackOff");
    assert_eq!(waiting.wake_after, Some(Duration::from_secs(9)));
}

#[test]
fn what_ended_is_started_again_only_as_the_policy_says() {
    for (policy, exit, again) in
        [("Never", 1, false), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Always", 0, true)]
    {
        let desired = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        let mut seen = ready();
        seen.containers = vec![container("a", 0, Some(exit))];
        assert_eq!(!starts(&live(&desired, &seen, &memory())).is_empty(), again, "{policy} {exit}");
    }
}

#[test]
fn an_adopted_container_keeps_running_while_its_volumes_are_served_again() {
    let desired = pod(json!({"containers": [{"name": "a"}]}));
    let mut seen = ready();
    seen.containers = vec![container("a", 0, None)];
    let adopted = live(&desired, &seen, &Memory::default());
    assert_eq!(adopted.effects, [Effect::Prepare { attempt: 0, sandbox: false }]);
}

#[test]
fn a_changed_image_replaces_the_container() {
    let desired =
        pod(json!({"containers": [{"name": "a", "image": "x"}], "terminationGracePeriodSeconds": 3}));
    let mut seen = ready();
    let mut old = container("a", 0, None);
    old.status.annotations.insert(names::CONTAINER_HASH.into(), "other".into());
    seen.containers = vec![old];
    assert_eq!(stops(&live(&desired, &seen, &memory())), [("a", 3)]);
}

#[test]
fn a_dead_sandbox_is_replaced_with_its_containers() {
    let desired = pod(json!({"containers": [{"name": "a"}]}));
    let seen = PodRuntime {
        sandboxes: vec![sandbox(SandboxState::NotReady)],
        containers: vec![container("a", 0, Some(137))],
        ..Default::default()
    };
    let want = [Effect::StopSandbox { id: "s".into() }, Effect::Prepare { attempt: 1, sandbox: true }];
    assert_eq!(live(&desired, &seen, &memory()).effects, want);
}

#[test]
fn an_ended_pod_gives_its_sandbox_back_and_is_finished() {
    let desired = pod(json!({"containers": [{"name": "a"}]}));
    let stop = Some(Stop { grace_seconds: 0 });
    let mut seen = ready();
    seen.containers = vec![container("a", 0, Some(0))];
    assert_eq!(
        plan(&desired, &seen, &memory(), stop, now()).effects,
        [Effect::StopSandbox { id: "s".into() }]
    );
    seen.sandboxes = vec![sandbox(SandboxState::NotReady)];
    assert!(plan(&desired, &seen, &memory(), stop, now()).finished);
}

#[test]
fn a_failed_liveness_probe_stops_the_container_with_its_own_grace() {
    let desired =
        pod(json!({"containers": [{"name": "a", "livenessProbe": {"terminationGracePeriodSeconds": 2}}]}));
    let mut seen = ready();
    seen.containers = vec![container("a", 0, None)];
    let mut condemned = memory();
    condemned.condemned.insert("a-0".into(), "failed".into());
    assert_eq!(stops(&live(&desired, &seen, &condemned)), [("a", 2)]);
    condemned.stopping.insert("a-0".into());
    assert!(stops(&live(&desired, &seen, &condemned)).is_empty());
}
