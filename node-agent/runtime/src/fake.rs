//! A runtime in memory: containers are records whose end a test decides. Faults are queued by call name.
//! It never runs anything, and it must behave as a runtime does where the agent depends on it: ids are never reused,
//! stops are idempotent, removals cascade, exits raise events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::types::*;
use crate::{EventReceiver, Runtime, RuntimeError, StreamOptions};

/// See the module.
pub struct Fake {
    state: Mutex<State>,
    events: broadcast::Sender<RuntimeEvent>,
    clock_ns: AtomicI64,
}

#[derive(Default)]
struct State {
    next_id: u64,
    sandboxes: BTreeMap<String, (SandboxConfig, SandboxStatus)>,
    containers: BTreeMap<String, FakeContainer>,
    images: BTreeMap<String, Image>,
    /// Views of images: key to image.
    views: BTreeMap<String, String>,
    faults: BTreeMap<&'static str, VecDeque<RuntimeError>>,
    calls: Vec<String>,
    exec_exit_codes: BTreeMap<String, i32>,
    away: bool,
}

struct FakeContainer {
    sandbox: String,
    config: ContainerConfig,
    status: ContainerStatus,
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

impl Fake {
    /// An empty runtime whose network is ready.
    pub fn new() -> Self {
        let (events, _) = broadcast::channel(256);
        Self { state: Mutex::default(), events, clock_ns: AtomicI64::new(1_700_000_000_000_000_000) }
    }

    /// Makes an image present.
    pub fn add_image(&self, reference: &str) {
        let image = Image {
            id: format!("sha256:{reference}"),
            tags: vec![reference.to_string()],
            size_bytes: 1,
            ..Default::default()
        };
        self.state.lock().images.insert(reference.to_string(), image);
    }

    /// The next call of this name (as in CRI: `RunPodSandbox`, `StartContainer`, …) fails so. May be called repeatedly.
    pub fn fail_next(&self, call: &'static str, error: RuntimeError) {
        self.state.lock().faults.entry(call).or_default().push_back(error);
    }

    /// While away, every call is `Unavailable`; containers go on.
    pub fn set_away(&self, away: bool) {
        self.state.lock().away = away;
    }

    /// Ends a running container.
    pub fn exit(&self, id: &str, code: i32, reason: &str) {
        let now = self.tick();
        if let Some(container) = self.state.lock().containers.get_mut(id) {
            container.status.state = ContainerState::Exited;
            container.status.exit_code = code;
            container.status.reason = reason.to_string();
            container.status.finished_at = now;
        }
        let _ = self.events.send(RuntimeEvent { id: id.to_string(), kind: RuntimeEventKind::Exited });
    }

    /// What commands that begin with this word answer (0 unless set).
    pub fn set_exec_exit_code(&self, program: &str, code: i32) {
        self.state.lock().exec_exit_codes.insert(program.to_string(), code);
    }

    /// Names and subjects of all calls so far that change something, in order.
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// Ids of running containers with this name.
    pub fn running(&self, name: &str) -> Vec<String> {
        let state = self.state.lock();
        let matching = state.containers.values().filter(|c| c.config.name == name);
        matching.filter(|c| c.status.state == ContainerState::Running).map(|c| c.status.id.clone()).collect()
    }

    /// The config a container was created with.
    pub fn container_config(&self, id: &str) -> Option<ContainerConfig> {
        self.state.lock().containers.get(id).map(|c| c.config.clone())
    }

    fn tick(&self) -> i64 {
        self.clock_ns.fetch_add(1_000_000, Ordering::Relaxed)
    }

    fn enter(&self, call: &'static str) -> Result<parking_lot::MutexGuard<'_, State>, RuntimeError> {
        let mut state = self.state.lock();
        if state.away {
            return Err(RuntimeError::Unavailable { endpoint: "fake".into(), message: "away".into() });
        }
        match state.faults.get_mut(call).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }
}

fn not_found(id: &str) -> RuntimeError {
    RuntimeError::NotFound { what: id.to_string() }
}

fn has_labels(have: &BTreeMap<String, String>, want: &[(String, String)]) -> bool {
    want.iter().all(|(k, v)| have.get(k) == Some(v))
}

// === impl Runtime ===

#[async_trait]
impl Runtime for Fake {
    async fn version(&self) -> Result<Version, RuntimeError> {
        drop(self.enter("Version")?);
        Ok(Version { name: "fake".into(), version: "1".into() })
    }

    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        drop(self.enter("Status")?);
        let ok = |kind: &str| RuntimeCondition { kind: kind.into(), ok: true, ..Default::default() };
        Ok(RuntimeStatus { conditions: vec![ok("RuntimeReady"), ok("NetworkReady")], handlers: Vec::new() })
    }

    async fn run_sandbox(&self, config: &SandboxConfig, _handler: &str) -> Result<String, RuntimeError> {
        let now = self.tick();
        let mut state = self.enter("RunPodSandbox")?;
        state.next_id += 1;
        let id = format!("sandbox-{}", state.next_id);
        let addresses = match config.namespaces.network {
            IdMode::Node => Vec::new(),
            IdMode::Pod | IdMode::Container | IdMode::Target(_) => {
                vec![format!("10.244.0.{}", state.next_id)]
            }
        };
        let info = SandboxInfo {
            id: id.clone(),
            name: config.name.clone(),
            namespace: config.namespace.clone(),
            uid: config.uid.clone(),
            attempt: config.attempt,
            state: SandboxState::Ready,
            created_at: now,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        state.sandboxes.insert(id.clone(), (config.clone(), SandboxStatus { info, addresses }));
        state.calls.push(format!("run_sandbox {}", config.name));
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let now = self.tick();
        let mut state = self.enter("StopPodSandbox")?;
        state.calls.push(format!("stop_sandbox {id}"));
        if let Some((_, status)) = state.sandboxes.get_mut(id) {
            status.info.state = SandboxState::NotReady;
        }
        for container in state.containers.values_mut().filter(|c| c.sandbox == id) {
            if container.status.state == ContainerState::Running {
                container.status.state = ContainerState::Exited;
                container.status.exit_code = 137;
                container.status.finished_at = now;
            }
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.enter("RemovePodSandbox")?;
        state.calls.push(format!("remove_sandbox {id}"));
        state.sandboxes.remove(id);
        state.containers.retain(|_, c| c.sandbox != id);
        Ok(())
    }

    async fn sandbox_status(&self, id: &str) -> Result<SandboxStatus, RuntimeError> {
        let state = self.enter("PodSandboxStatus")?;
        state.sandboxes.get(id).map(|(_, status)| status.clone()).ok_or_else(|| not_found(id))
    }

    async fn list_sandboxes(&self, labels: &[(String, String)]) -> Result<Vec<SandboxInfo>, RuntimeError> {
        let state = self.enter("ListPodSandbox")?;
        let all = state.sandboxes.values().map(|(_, status)| status.info.clone());
        Ok(all.filter(|info| has_labels(&info.labels, labels)).collect())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
        _sandbox_config: &SandboxConfig,
    ) -> Result<String, RuntimeError> {
        let now = self.tick();
        let mut state = self.enter("CreateContainer")?;
        if !state.sandboxes.contains_key(sandbox) {
            return Err(not_found(sandbox));
        }
        state.next_id += 1;
        let id = format!("container-{}", state.next_id);
        let status = ContainerStatus {
            id: id.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            state: ContainerState::Created,
            created_at: now,
            image: config.image.clone(),
            image_ref: format!("sha256:{}", config.image),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            ..Default::default()
        };
        let container = FakeContainer { sandbox: sandbox.to_string(), config: config.clone(), status };
        state.containers.insert(id.clone(), container);
        state.calls.push(format!("create_container {}", config.name));
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let now = self.tick();
        let mut state = self.enter("StartContainer")?;
        let container = state.containers.get_mut(id).ok_or_else(|| not_found(id))?;
        container.status.state = ContainerState::Running;
        container.status.started_at = now;
        let call = format!("start_container {}", container.config.name);
        state.calls.push(call);
        let _ = self.events.send(RuntimeEvent { id: id.to_string(), kind: RuntimeEventKind::Started });
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        {
            let mut state = self.enter("StopContainer")?;
            let name = match state.containers.get(id) {
                Some(c) if c.status.state == ContainerState::Running => c.config.name.clone(),
                _ => return Ok(()),
            };
            state.calls.push(format!("stop_container {name} {}s", grace.as_secs()));
        }
        self.exit(id, 143, "Error");
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.enter("RemoveContainer")?;
        state.containers.remove(id);
        state.calls.push(format!("remove_container {id}"));
        Ok(())
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerInfo>, RuntimeError> {
        let state = self.enter("ListContainers")?;
        let matching = state.containers.values().filter(|c| {
            filter.sandbox.as_ref().is_none_or(|s| *s == c.sandbox)
                && has_labels(&c.config.labels, &filter.labels)
        });
        Ok(matching
            .map(|c| ContainerInfo {
                id: c.status.id.clone(),
                sandbox: c.sandbox.clone(),
                name: c.config.name.clone(),
                attempt: c.config.attempt,
                state: c.status.state,
                created_at: c.status.created_at,
                labels: c.config.labels.clone(),
                annotations: c.config.annotations.clone(),
            })
            .collect())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        let state = self.enter("ContainerStatus")?;
        state.containers.get(id).map(|c| c.status.clone()).ok_or_else(|| not_found(id))
    }

    async fn update_resources(&self, id: &str, resources: &LinuxResources) -> Result<(), RuntimeError> {
        let mut state = self.enter("UpdateContainerResources")?;
        let container = state.containers.get_mut(id).ok_or_else(|| not_found(id))?;
        container.config.resources = resources.clone();
        Ok(())
    }

    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let state = self.enter("ReopenContainerLog")?;
        state.containers.contains_key(id).then_some(()).ok_or_else(|| not_found(id))
    }

    async fn exec_sync(&self, id: &str, command: &[String], _: Duration) -> Result<ExecOutput, RuntimeError> {
        let state = self.enter("ExecSync")?;
        if !state.containers.contains_key(id) {
            return Err(not_found(id));
        }
        let program = command.first().map(String::as_str).unwrap_or_default();
        let exit_code = state.exec_exit_codes.get(program).copied().unwrap_or(0);
        Ok(ExecOutput { exit_code, ..Default::default() })
    }

    async fn exec_url(&self, _: &str, _: &[String], _: StreamOptions) -> Result<String, RuntimeError> {
        Err(RuntimeError::Unsupported { call: "Exec" })
    }

    async fn attach_url(&self, _: &str, _: StreamOptions) -> Result<String, RuntimeError> {
        Err(RuntimeError::Unsupported { call: "Attach" })
    }

    async fn port_forward_url(&self, _: &str, _: &[u16]) -> Result<String, RuntimeError> {
        Err(RuntimeError::Unsupported { call: "PortForward" })
    }

    async fn list_stats(&self, _filter: &ContainerFilter) -> Result<Vec<ContainerStats>, RuntimeError> {
        drop(self.enter("ListContainerStats")?);
        Ok(Vec::new())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        Ok(self.enter("ImageStatus")?.images.get(reference).cloned())
    }

    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(self.enter("ListImages")?.images.values().cloned().collect())
    }

    async fn pull_image(
        &self,
        reference: &str,
        _auth: Option<&ImageAuth>,
        _sandbox_config: Option<&SandboxConfig>,
    ) -> Result<String, RuntimeError> {
        self.enter("PullImage")?.calls.push(format!("pull_image {reference}"));
        self.add_image(reference);
        Ok(format!("sha256:{reference}"))
    }

    async fn view_image(&self, image_id: &str, key: &str) -> Result<Vec<FsMount>, RuntimeError> {
        let mut state = self.enter("View")?;
        if !state.images.values().any(|image| image.id == image_id) {
            return Err(RuntimeError::NotFound { what: image_id.to_string() });
        }
        state.views.insert(key.to_string(), image_id.to_string());
        Ok(Vec::new())
    }

    async fn release_image_view(&self, key: &str) -> Result<(), RuntimeError> {
        self.enter("Remove")?.views.remove(key);
        Ok(())
    }

    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError> {
        self.enter("RemoveImage")?.images.remove(reference);
        Ok(())
    }

    async fn image_fs(&self) -> Result<Vec<FsUsage>, RuntimeError> {
        drop(self.enter("ImageFsInfo")?);
        Ok(Vec::new())
    }

    fn events(&self) -> EventReceiver {
        self.events.subscribe()
    }

    fn has_events(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queued_fault_hits_one_call_and_the_next_succeeds() {
        let fake = Fake::new();
        fake.fail_next("Version", RuntimeError::Unsupported { call: "Version" });
        assert!(fake.version().await.is_err());
        assert!(fake.version().await.is_ok());
    }

    #[tokio::test]
    async fn removing_a_sandbox_removes_its_containers() {
        let fake = Fake::new();
        let sandbox = fake.run_sandbox(&SandboxConfig::default(), "").await.unwrap();
        let id = fake
            .create_container(&sandbox, &ContainerConfig::default(), &SandboxConfig::default())
            .await
            .unwrap();
        fake.start_container(&id).await.unwrap();
        fake.remove_sandbox(&sandbox).await.unwrap();
        assert!(fake.container_status(&id).await.unwrap_err().is_not_found());
    }
}
