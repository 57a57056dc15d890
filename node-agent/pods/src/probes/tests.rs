//! Probing with a fake runtime, at the shortest period there is.

use std::sync::Arc;

use penstock_runtime::fake::Fake;
use penstock_runtime::{ContainerConfig, Runtime, SandboxConfig};

use super::*;

async fn target(fake: &Arc<Fake>, probes: serde_json::Value) -> Target {
    let sandbox = fake.run_sandbox(&SandboxConfig::default(), "").await.unwrap();
    let config = ContainerConfig::default();
    let id = fake.create_container(&sandbox, &config, &SandboxConfig::default()).await.unwrap();
    let mut container = serde_json::json!({"name": "c"});
    container.as_object_mut().unwrap().extend(probes.as_object().unwrap().clone());
    Target {
        container_id: id.clone(),
        container: serde_json::from_value(container).unwrap(),
        checker: Checker { runtime: fake.clone(), container_id: id, address: None },
        age: Duration::ZERO,
        health: Health::default(),
    }
}

#[tokio::test]
async fn readiness_is_told_at_once_and_liveness_fails_after_its_threshold() {
    let fake = Arc::new(Fake::new());
    fake.set_exec_exit_code("alive", 1);
    let exec = |word: &str| serde_json::json!({"exec": {"command": [word]}, "periodSeconds": 1, "failureThreshold": 2});
    let probes = serde_json::json!({"livenessProbe": exec("alive"), "readinessProbe": exec("ready")});
    let (sender, mut verdicts) = mpsc::channel(16);
    let began = Instant::now();
    let task = tokio::spawn(run(target(&fake, probes).await, sender));
    let mut is_ready = false;
    let dead_after = loop {
        let verdict = verdicts.recv().await.unwrap();
        match (verdict.kind, verdict.settled) {
            (Kind::Readiness, Some(true)) => is_ready = true,
            (Kind::Liveness, Some(false)) => break began.elapsed(),
            _ => {}
        }
    };
    task.abort();
    assert!(is_ready, "told before a period was over");
    // Two failures are needed, a period apart.
    assert!(dead_after >= Duration::from_secs(1), "{dead_after:?}");
}

#[tokio::test]
async fn nothing_else_is_asked_until_startup_passes() {
    let fake = Arc::new(Fake::new());
    fake.set_exec_exit_code("start", 1);
    let exec = |word: &str| serde_json::json!({"exec": {"command": [word]}, "periodSeconds": 1, "failureThreshold": 30});
    let probes = serde_json::json!({"startupProbe": exec("start"), "readinessProbe": exec("ready")});
    let (sender, mut verdicts) = mpsc::channel(16);
    let task = tokio::spawn(run(target(&fake, probes).await, sender));
    assert_eq!(verdicts.recv().await.unwrap().kind, Kind::Startup);
    fake.set_exec_exit_code("start", 0);
    let kinds = [verdicts.recv().await.unwrap(), verdicts.recv().await.unwrap()].map(|v| (v.kind, v.settled));
    task.abort();
    assert_eq!(kinds, [(Kind::Startup, Some(true)), (Kind::Readiness, Some(true))]);
}
