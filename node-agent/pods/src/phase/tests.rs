//! Statuses of pods in every stage of their life.

use penstock_runtime::{ContainerState, ContainerStatus as Seen, SandboxInfo, SandboxState, SandboxStatus};
use serde_json::json;

use super::*;
use crate::desired::Origin;
use crate::memory::{Health, Waiting};
use crate::observed::Observed;

fn container(name: &str, attempt: u32, exit: Option<i32>) -> Observed {
    let status = Seen {
        id: format!("{name}-{attempt}"),
        name: name.into(),
        attempt,
        state: if exit.is_some() { ContainerState::Exited } else { ContainerState::Running },
        exit_code: exit.unwrap_or(0),
        started_at: 1_000_000_000,
        finished_at: 2_000_000_000,
        image: "img".into(),
        ..Default::default()
    };
    Observed { status, sandbox: "s".into(), ..Default::default() }
}

fn status(
    spec: serde_json::Value,
    containers: Vec<Observed>,
    memory: &Memory,
    plan: &Plan,
    ended: bool,
) -> PodStatus {
    let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
    let desired = Desired::new(serde_json::from_value(pod).unwrap(), Origin::Api).unwrap();
    let info = SandboxInfo { id: "s".into(), state: SandboxState::Ready, ..Default::default() };
    let sandboxes = vec![SandboxStatus { info, addresses: vec!["10.244.0.2".into()] }];
    let seen = PodRuntime { sandboxes, containers, ..Default::default() };
    compile_status(&Inputs {
        desired: &desired,
        seen: &seen,
        memory,
        plan,
        previous: &PodStatus::default(),
        node_ips: &[std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 240, 0, 11))],
        runtime_name: "containerd",
        ended,
        now: Timestamp::from_second(5).unwrap(),
    })
}

fn one() -> serde_json::Value {
    json!({"containers": [{"name": "a"}]})
}

fn healthy() -> Memory {
    let mut memory = Memory::default();
    memory.health.insert("a-0".into(), Health { started: true, ready: true });
    memory
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap()
}

fn state(status: &PodStatus) -> &k8s_openapi::api::core::v1::ContainerState {
    status.container_statuses.as_ref().unwrap()[0].state.as_ref().unwrap()
}

#[test]
fn a_running_and_ready_pod_says_so() {
    let status = status(one(), vec![container("a", 0, None)], &healthy(), &Plan::default(), false);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.0.2"));
    for kind in ["Ready", "ContainersReady", "Initialized", "PodReadyToStartContainers", "PodScheduled"] {
        assert_eq!(condition(&status, kind).status, "True", "{kind}");
    }
    let container = &status.container_statuses.unwrap()[0];
    assert_eq!(container.container_id.as_deref(), Some("containerd://a-0"));
    assert!(container.ready);
}

#[test]
fn a_container_that_waits_out_a_crash_shows_why_and_how_it_ended() {
    let mut plan = Plan::default();
    plan.waiting.insert("a".into(), Waiting { reason: "CrashLoopBackOff".into(), message: "m".into() });
    let status = status(one(), vec![container("a", 2, Some(3))], &Memory::default(), &plan, false);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(state(&status).waiting.as_ref().unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(container.restart_count, 2);
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert_eq!(condition(&status, "Ready").message.as_deref(), Some("containers with unready status: [a]"));
}

#[test]
fn the_phase_of_an_ended_pod_follows_its_exit_codes() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
    let phase = |policy, code, ended| {
        let seen = vec![container("a", 0, Some(code))];
        status(spec(policy), seen, &Memory::default(), &Plan::default(), ended).phase.unwrap()
    };
    assert_eq!(phase("Never", 0, false), "Succeeded");
    assert_eq!(phase("Never", 1, false), "Failed");
    assert_eq!(phase("OnFailure", 1, false), "Running");
    assert_eq!(phase("Always", 0, false), "Running");
    assert_eq!(phase("Always", 143, true), "Failed");
    assert_eq!(phase("Always", 0, true), "Succeeded");
}

#[test]
fn a_pod_without_containers_yet_is_pending() {
    let status = status(one(), vec![], &Memory::default(), &Plan::default(), false);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(state(&status).waiting.as_ref().unwrap().reason.as_deref(), Some("ContainerCreating"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
}

#[test]
fn a_pod_past_its_deadline_has_failed_and_says_why() {
    let memory = Memory {
        failed: Some(Waiting { reason: "DeadlineExceeded".into(), message: "too long".into() }),
        ..Memory::default()
    };
    let status = status(one(), vec![container("a", 0, Some(137))], &memory, &Plan::default(), true);
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
}

#[test]
fn a_readiness_gate_that_nobody_opened_keeps_the_pod_out() {
    let spec = json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "x/y"}]});
    let status = status(spec, vec![container("a", 0, None)], &healthy(), &Plan::default(), false);
    assert_eq!(condition(&status, "ContainersReady").status, "True");
    assert_eq!(condition(&status, "Ready").reason.as_deref(), Some("ReadinessGatesNotReady"));
}

#[test]
fn an_ephemeral_container_is_never_ready() {
    let spec = json!({"containers": [{"name": "a", "image": "i"}], "ephemeralContainers": [{"name": "e", "image": "i"}]});
    let containers = vec![container("a", 0, None), container("e", 0, None)];
    let status = status(spec, containers, &healthy(), &Plan::default(), false);
    let ephemeral = &status.ephemeral_container_statuses.as_ref().unwrap()[0];
    assert!(!ephemeral.ready && ephemeral.started.is_none());
    assert!(ephemeral.state.as_ref().unwrap().running.is_some());
    assert_eq!(ephemeral.last_state, Some(Default::default()));
}

#[test]
fn a_resize_shows_as_conditions_and_each_container_as_it_is_in_force() {
    let amounts = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "32Mi"}, "limits": {"cpu": cpu}});
    let spec = json!({"containers": [{"name": "a", "resources": amounts("1")}]});
    let mut running = container("a", 0, None);
    running.in_force = crate::in_force::InForce {
        cpu: Some(crate::in_force::CpuShare::Shares(512)),
        cpu_quota_us: Some(crate::in_force::Bound::At(50_000)),
        ..Default::default()
    };
    let mut memory = healthy();
    memory.resize.granted = Some(7);
    let plan = Plan { resizing: true, ..Default::default() };
    let progress = status(spec.clone(), vec![running.clone()], &memory, &plan, false);
    let condition = |status: &PodStatus, kind: &str| {
        let found = status.conditions.iter().flatten().find(|c| c.type_ == kind);
        found.map(|c| (c.status.clone(), c.reason.clone(), c.observed_generation))
    };
    let want = Some(("True".to_string(), None, Some(7)));
    assert_eq!(condition(&progress, "PodResizeInProgress"), want);
    assert_eq!(condition(&progress, "PodResizePending"), None);
    let shown = serde_json::to_value(&progress.container_statuses.unwrap()[0]).unwrap();
    assert_eq!(shown["allocatedResources"]["cpu"], "1");
    assert_eq!(shown["resources"], amounts("500m"));

    let blocked = Plan { resize_blocked: Some("too much in use".into()), ..plan };
    let error = status(spec.clone(), vec![running.clone()], &memory, &blocked, false);
    assert_eq!(condition(&error, "PodResizeInProgress").unwrap().1.as_deref(), Some("Error"));

    memory.resize.pending = Some(Waiting { reason: "Deferred".into(), message: "full".into() });
    let deferred = status(spec, vec![running], &memory, &Plan::default(), false);
    assert_eq!(condition(&deferred, "PodResizePending").unwrap().1.as_deref(), Some("Deferred"));
    assert_eq!(condition(&deferred, "PodResizeInProgress"), None);
}
