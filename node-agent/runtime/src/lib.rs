//! The container runtime, as the rest of the agent sees it.
//!
//! One trait, [`Runtime`], with small types of our own: pods speak of sandboxes, containers and images and never of
//! protobuf. [`cri::Cri`] implements it over CRI v1 on a unix socket, [`fake::Fake`] in memory with faults on demand.
//! This crate must not know what a Kubernetes Pod is, nor decide when anything is started or stopped.

pub mod cri;
pub mod fake;

mod error;
mod types;

use std::time::Duration;

use async_trait::async_trait;

pub use error::RuntimeError;
pub use types::{
    ContainerConfig, ContainerFilter, ContainerInfo, ContainerSecurity, ContainerState, ContainerStats,
    ContainerStatus, Device, DnsConfig, ExecOutput, FsMount, FsUsage, IdMode, Image, ImageAuth,
    LinuxResources, Mount, MountPropagation, NamespaceOptions, PortMapping, Protocol, RuntimeCondition,
    RuntimeEvent, RuntimeEventKind, RuntimeHandler, RuntimeStatus, SandboxConfig, SandboxInfo, SandboxState,
    SandboxStatus, SeccompProfile, Version,
};

/// Events are a hint to look again; a receiver that lags loses the oldest and must observe everything.
pub type EventReceiver = tokio::sync::broadcast::Receiver<RuntimeEvent>;

/// What the agent asks of a container runtime. Every call may be repeated: stops and removals of what is gone
/// succeed. All calls have a deadline of their own; none waits for ever.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version of the runtime behind the socket.
    async fn version(&self) -> Result<Version, RuntimeError>;
    /// Conditions (`RuntimeReady`, `NetworkReady`) and handlers.
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError>;

    /// Creates and starts a sandbox, network included; returns its id.
    async fn run_sandbox(&self, config: &SandboxConfig, handler: &str) -> Result<String, RuntimeError>;
    /// Stops everything in the sandbox and gives its network back.
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Removes a sandbox and its containers.
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// State and addresses of one sandbox.
    async fn sandbox_status(&self, id: &str) -> Result<SandboxStatus, RuntimeError>;
    /// Sandboxes whose labels contain all of `labels` (all sandboxes when empty).
    async fn list_sandboxes(&self, labels: &[(String, String)]) -> Result<Vec<SandboxInfo>, RuntimeError>;

    /// Creates a container in a sandbox; returns its id.
    async fn create_container(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
        sandbox_config: &SandboxConfig,
    ) -> Result<String, RuntimeError>;
    /// Starts a created container.
    async fn start_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Asks the container to end, and kills it after `grace`.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;
    /// Removes a container that has ended.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Containers that match the filter.
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerInfo>, RuntimeError>;
    /// Everything known about one container.
    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError>;
    /// Changes limits of a running container.
    async fn update_resources(&self, id: &str, resources: &LinuxResources) -> Result<(), RuntimeError>;
    /// Makes the runtime open the container's log file anew (after it was renamed).
    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError>;

    /// Runs a command to its end. `timeout` zero means the runtime's own limit.
    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError>;
    /// URL of a one-time streaming session that runs a command.
    async fn exec_url(
        &self,
        id: &str,
        command: &[String],
        streams: StreamOptions,
    ) -> Result<String, RuntimeError>;
    /// URL of a one-time streaming session attached to the container's own process.
    async fn attach_url(&self, id: &str, streams: StreamOptions) -> Result<String, RuntimeError>;
    /// URL of a one-time streaming session that forwards ports of a sandbox.
    async fn port_forward_url(&self, sandbox: &str, ports: &[u16]) -> Result<String, RuntimeError>;

    /// Usage of all containers that match.
    async fn list_stats(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStats>, RuntimeError>;

    /// The image under a reference, if it is present.
    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError>;
    /// All images.
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError>;
    /// Pulls an image; returns the reference the runtime knows it by.
    async fn pull_image(
        &self,
        reference: &str,
        auth: Option<&ImageAuth>,
        sandbox_config: Option<&SandboxConfig>,
    ) -> Result<String, RuntimeError>;
    /// Removes an image.
    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError>;
    /// The files of an image, read only: what to mount, one over the other, to see them. They stay until the view is
    /// released; the same key finds the same view.
    async fn view_image(&self, image_id: &str, key: &str) -> Result<Vec<FsMount>, RuntimeError>;
    /// Lets a view of an image go, if there is one.
    async fn release_image_view(&self, key: &str) -> Result<(), RuntimeError>;
    /// Usage of the file systems images live on.
    async fn image_fs(&self) -> Result<Vec<FsUsage>, RuntimeError>;

    /// Container starts and exits as they happen. A runtime without events returns a channel that stays silent;
    /// [`Runtime::has_events`] then says so and callers poll.
    fn events(&self) -> EventReceiver;
    /// Whether events are flowing now.
    fn has_events(&self) -> bool;
}

/// Which streams an exec or attach session carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// The client sends input.
    pub stdin: bool,
    /// The client wants output.
    pub stdout: bool,
    /// The client wants errors on a stream of their own.
    pub stderr: bool,
    /// A terminal: one stream both ways, and resize messages.
    pub tty: bool,
}
