//! What the runtime has of one pod. [`observe`] reads it; everything else here is pure.

use std::collections::HashMap;

use penstock_runtime::{
    ContainerFilter, ContainerState, ContainerStatus, Runtime, RuntimeError, SandboxState, SandboxStatus,
};

use crate::in_force::InForce;
use crate::names;

/// A container with the sandbox it is in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The runtime's word.
    pub status: ContainerStatus,
    /// Sandbox id.
    pub sandbox: String,
    /// What the container left to say when it ended.
    pub message: String,
    /// What the kernel holds it to, while it runs.
    pub in_force: InForce,
}

impl Observed {
    /// Restarts before this one.
    pub fn restart_count(&self) -> u32 {
        self.status.attempt
    }

    /// Its process runs.
    pub fn is_running(&self) -> bool {
        self.status.state == ContainerState::Running
    }

    /// It ended, or the runtime lost it, which comes to the same.
    pub fn is_over(&self) -> bool {
        matches!(self.status.state, ContainerState::Exited | ContainerState::Unknown)
    }
}

/// Everything the runtime has of one pod, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodRuntime {
    /// Sandboxes.
    pub sandboxes: Vec<SandboxStatus>,
    /// Containers of all of them.
    pub containers: Vec<Observed>,
    /// What the kernel holds the pod to as a whole.
    pub in_force: InForce,
}

impl PodRuntime {
    /// The newest sandbox, if it is up.
    pub fn ready_sandbox(&self) -> Option<&SandboxStatus> {
        self.sandboxes.first().filter(|s| s.info.state == SandboxState::Ready)
    }

    /// The newest container of this name.
    pub fn newest(&self, name: &str) -> Option<&Observed> {
        self.containers.iter().find(|c| c.status.name == name)
    }

    /// The newest container of this name that was in the given sandbox.
    pub fn newest_in(&self, name: &str, sandbox: &str) -> Option<&Observed> {
        self.containers.iter().find(|c| c.status.name == name && c.sandbox == sandbox)
    }

    /// The newest ended container of this name other than `than`.
    pub fn previous(&self, name: &str, than: &str) -> Option<&Observed> {
        self.containers.iter().find(|c| c.status.name == name && c.status.id != than && c.is_over())
    }

    /// Whether anything still runs.
    pub fn any_running(&self) -> bool {
        self.containers.iter().any(Observed::is_running)
    }
}

/// Ended containers never change, so their status and message are asked for once.
#[derive(Debug, Default)]
pub struct Ended {
    known: HashMap<String, (ContainerStatus, String)>,
}

/// Adds what the kernel holds the pod and its running containers to; `read` reads one cgroup. Where nothing can be read
/// the runtime is believed, if it tells.
pub fn observe_limits(seen: &mut PodRuntime, read: impl Fn(Option<&str>) -> InForce) {
    seen.in_force = read(None);
    for container in seen.containers.iter_mut().filter(|c| c.is_running()) {
        let files = read(Some(&container.status.id));
        let told = container.status.resources.as_ref().filter(|_| files.is_unknown());
        container.in_force = told.map_or(files, InForce::told);
    }
}

/// Reads everything of the pod with this UID. `last_words` turns an ended container into its message.
///
/// # Errors
/// The runtime's, except for containers that vanish while being read.
pub async fn observe(
    runtime: &dyn Runtime,
    uid: &str,
    ended: &mut Ended,
    last_words: impl Fn(&ContainerStatus) -> String,
) -> Result<PodRuntime, RuntimeError> {
    let label = vec![(names::POD_UID.to_string(), uid.to_string())];
    let filter = ContainerFilter { sandbox: None, labels: label.clone() };
    let (sandboxes, containers) =
        tokio::try_join!(runtime.list_sandboxes(&label), runtime.list_containers(&filter))?;
    let mut seen = PodRuntime::default();
    for info in sandboxes {
        match runtime.sandbox_status(&info.id).await {
            Ok(status) => seen.sandboxes.push(status),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    ended.known.retain(|id, _| containers.iter().any(|c| c.id == *id));
    for info in containers {
        if let Some((status, message)) = ended.known.get(&info.id) {
            seen.containers.push(Observed {
                status: status.clone(),
                sandbox: info.sandbox,
                message: message.clone(),
                in_force: InForce::default(),
            });
            continue;
        }
        let mut status = match runtime.container_status(&info.id).await {
            Ok(status) => status,
            Err(e) if e.is_not_found() => continue,
            Err(e) => return Err(e),
        };
        if status.labels.is_empty() {
            status.labels = info.labels;
        }
        let mut message = String::new();
        if status.state == ContainerState::Exited {
            message = last_words(&status);
            ended.known.insert(info.id, (status.clone(), message.clone()));
        }
        let in_force = InForce::default();
        seen.containers.push(Observed { status, sandbox: info.sandbox, message, in_force });
    }
    seen.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.info.created_at, s.info.attempt)));
    seen.containers.sort_by_key(|c| std::cmp::Reverse((c.status.created_at, c.status.attempt)));
    Ok(seen)
}
