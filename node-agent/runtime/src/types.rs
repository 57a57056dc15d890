//! The vocabulary of [`crate::Runtime`]: plain data, no behaviour, no protobuf.
//! Times are nanoseconds since the Unix epoch, zero when the runtime does not know them.

use std::collections::BTreeMap;

/// Labels or annotations.
pub type Pairs = BTreeMap<String, String>;

/// Who the runtime is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Version {
    /// For example `containerd`.
    pub name: String,
    /// For example `1.6.20`.
    pub version: String,
}

/// One condition the runtime reports about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// `RuntimeReady` or `NetworkReady`.
    pub kind: String,
    /// Whether it holds.
    pub ok: bool,
    /// Machine-readable cause.
    pub reason: String,
    /// Words for people.
    pub message: String,
}

/// A runtime handler, as a RuntimeClass names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeHandler {
    /// Empty for the default handler.
    pub name: String,
    /// Mounts can be made read-only with everything below.
    pub recursive_read_only_mounts: bool,
    /// User namespaces work.
    pub user_namespaces: bool,
}

/// Health of the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// All conditions.
    pub conditions: Vec<RuntimeCondition>,
    /// Handlers; empty when the runtime does not say.
    pub handlers: Vec<RuntimeHandler>,
}

impl RuntimeStatus {
    /// The condition of this name, if reported.
    pub fn condition(&self, kind: &str) -> Option<&RuntimeCondition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }
}

/// Resolver settings the runtime writes into the sandbox's resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Addresses.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// For example `ndots:5`.
    pub options: Vec<String>,
}

/// Transport of a port mapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A host port; passed on to CNI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortMapping {
    /// Transport.
    pub protocol: Protocol,
    /// Inside.
    pub container_port: u16,
    /// On the node.
    pub host_port: u16,
    /// Address on the node, empty for all.
    pub host_ip: String,
}

/// Whose namespace a container lives in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum IdMode {
    /// Shared by the sandbox.
    #[default]
    Pod,
    /// Its own.
    Container,
    /// The node's.
    Node,
    /// That of another container, by id.
    Target(String),
}

/// The three namespaces a pod can choose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceOptions {
    /// Network: `Pod` or `Node`.
    pub network: IdMode,
    /// Processes.
    pub pid: IdMode,
    /// System V IPC: `Pod` or `Node`.
    pub ipc: IdMode,
}

/// Seccomp profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SeccompProfile {
    /// The runtime's default filter.
    RuntimeDefault,
    /// None.
    #[default]
    Unconfined,
    /// A file on the node.
    Localhost(String),
}

/// What a pod sandbox is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SandboxConfig {
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod UID.
    pub uid: String,
    /// Counts the sandboxes of one pod.
    pub attempt: u32,
    /// Host name; empty in the host's network.
    pub hostname: String,
    /// Directory below which container logs are written.
    pub log_directory: String,
    /// Resolver; none means the node's.
    pub dns: Option<DnsConfig>,
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
    /// Labels.
    pub labels: Pairs,
    /// Annotations.
    pub annotations: Pairs,
    /// Cgroup the pod lives below, without mount point.
    pub cgroup_parent: String,
    /// Namespaces.
    pub namespaces: NamespaceOptions,
    /// Some container of the pod is privileged.
    pub privileged: bool,
    /// User of the sandbox process.
    pub run_as_user: Option<i64>,
    /// Group of the sandbox process.
    pub run_as_group: Option<i64>,
    /// More groups.
    pub supplemental_groups: Vec<i64>,
    /// Filter of the sandbox process.
    pub seccomp: SeccompProfile,
    /// Namespaced kernel settings.
    pub sysctls: Pairs,
}

/// Whether the sandbox's process and network are up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SandboxState {
    /// Up.
    Ready,
    /// Stopped or dead.
    #[default]
    NotReady,
}

/// A sandbox in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxInfo {
    /// Runtime id.
    pub id: String,
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod UID.
    pub uid: String,
    /// Attempt.
    pub attempt: u32,
    /// State.
    pub state: SandboxState,
    /// Creation time, ns.
    pub created_at: i64,
    /// Labels.
    pub labels: Pairs,
    /// Annotations.
    pub annotations: Pairs,
}

/// A sandbox with its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxStatus {
    /// As in a list.
    pub info: SandboxInfo,
    /// Addresses, the first is the primary one; empty in the host's network.
    pub addresses: Vec<String>,
}

/// cgroup settings. Zero means not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinuxResources {
    /// µs.
    pub cpu_period_us: i64,
    /// µs a period.
    pub cpu_quota_us: i64,
    /// v1 shares; runtimes convert for v2.
    pub cpu_shares: i64,
    /// Bytes.
    pub memory_limit_bytes: i64,
    /// −1000..1000.
    pub oom_score_adj: i64,
    /// Bytes of swap and memory together.
    pub memory_swap_limit_bytes: i64,
}

/// How mounts made later travel between node and container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountPropagation {
    /// Not at all.
    #[default]
    Private,
    /// Into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A bind mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// Inside.
    pub container_path: String,
    /// On the node.
    pub host_path: String,
    /// Read only.
    pub readonly: bool,
    /// Propagation.
    pub propagation: MountPropagation,
}

/// A file system to be mounted, as mount(8) takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsMount {
    /// `overlay`, `bind`.
    pub fs_type: String,
    /// Device or directory.
    pub source: String,
    /// `ro`, `lowerdir=…`.
    pub options: Vec<String>,
}

/// A device node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Inside.
    pub container_path: String,
    /// On the node.
    pub host_path: String,
    /// Letters of `rwm`.
    pub permissions: String,
}

/// What a container may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerSecurity {
    /// Capabilities to add, without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// Capabilities to drop.
    pub drop_capabilities: Vec<String>,
    /// Everything.
    pub privileged: bool,
    /// Namespaces.
    pub namespaces: NamespaceOptions,
    /// User id.
    pub run_as_user: Option<i64>,
    /// Group id; only with a user.
    pub run_as_group: Option<i64>,
    /// User by name, when the image says so.
    pub run_as_username: String,
    /// Root file system read only.
    pub readonly_rootfs: bool,
    /// More groups.
    pub supplemental_groups: Vec<i64>,
    /// No gain of privileges by exec.
    pub no_new_privs: bool,
    /// Seccomp.
    pub seccomp: SeccompProfile,
    /// `None`: the runtime's usual masks; `Some(empty)`: none (procMount Unmasked).
    pub masked_paths: Option<Vec<String>>,
    /// As `masked_paths`.
    pub readonly_paths: Option<Vec<String>>,
}

/// What a container is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerConfig {
    /// Name in the pod.
    pub name: String,
    /// Counts restarts.
    pub attempt: u32,
    /// Image reference or id.
    pub image: String,
    /// As the user wrote it.
    pub user_image: String,
    /// Replaces the image's entry point.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// Empty: the image's.
    pub working_dir: String,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// Bind mounts.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Labels.
    pub labels: Pairs,
    /// Annotations.
    pub annotations: Pairs,
    /// Below the sandbox's log directory.
    pub log_path: String,
    /// Keep an input open.
    pub stdin: bool,
    /// Close it after the first attach.
    pub stdin_once: bool,
    /// A terminal.
    pub tty: bool,
    /// Limits.
    pub resources: LinuxResources,
    /// Security.
    pub security: ContainerSecurity,
}

/// State of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ContainerState {
    /// Not started yet.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime lost track of it.
    #[default]
    Unknown,
}

/// Which containers to list. Empty fields match all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// Of this sandbox.
    pub sandbox: Option<String>,
    /// With all these labels.
    pub labels: Vec<(String, String)>,
}

/// A container in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerInfo {
    /// Runtime id.
    pub id: String,
    /// Its sandbox.
    pub sandbox: String,
    /// Name in the pod.
    pub name: String,
    /// Attempt.
    pub attempt: u32,
    /// State.
    pub state: ContainerState,
    /// Creation time, ns.
    pub created_at: i64,
    /// Labels.
    pub labels: Pairs,
    /// Annotations.
    pub annotations: Pairs,
}

/// Everything about one container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerStatus {
    /// Runtime id.
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// Attempt.
    pub attempt: u32,
    /// State.
    pub state: ContainerState,
    /// ns.
    pub created_at: i64,
    /// ns; zero when never started.
    pub started_at: i64,
    /// ns; zero while running.
    pub finished_at: i64,
    /// Exit status; 128 + signal when killed.
    pub exit_code: i32,
    /// Image as asked for.
    pub image: String,
    /// Digest reference or id.
    pub image_ref: String,
    /// For example `OOMKilled`, `Completed`, `Error`.
    pub reason: String,
    /// The runtime's words.
    pub message: String,
    /// Labels.
    pub labels: Pairs,
    /// Annotations.
    pub annotations: Pairs,
    /// Mounts in effect.
    pub mounts: Vec<Mount>,
    /// Absolute path of the log.
    pub log_path: String,
    /// Limits in effect, if the runtime tells.
    pub resources: Option<LinuxResources>,
}

/// Output of a finished command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// At most 16 MiB.
    pub stdout: Vec<u8>,
    /// At most 16 MiB.
    pub stderr: Vec<u8>,
    /// Exit status.
    pub exit_code: i32,
}

/// An image on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Content id, `sha256:…`.
    pub id: String,
    /// Names with tag.
    pub tags: Vec<String>,
    /// Names with digest.
    pub digests: Vec<String>,
    /// Bytes.
    pub size_bytes: u64,
    /// Numeric user of the image.
    pub uid: Option<i64>,
    /// Named user of the image.
    pub username: String,
    /// Not to be collected.
    pub pinned: bool,
}

/// Credentials for a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageAuth {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
    /// base64 of `user:password`, instead of the two.
    pub auth: String,
    /// Registry.
    pub server_address: String,
    /// OAuth identity token.
    pub identity_token: String,
    /// Bearer token.
    pub registry_token: String,
}

/// Usage of a file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// Mount point or a path on it.
    pub mountpoint: String,
    /// Bytes.
    pub used_bytes: u64,
    /// Inodes.
    pub inodes_used: u64,
}

/// Usage of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// Runtime id.
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// Labels.
    pub labels: Pairs,
    /// When measured, ns.
    pub timestamp: i64,
    /// CPU time since start, ns.
    pub cpu_total_ns: u64,
    /// Working set.
    pub memory_working_set_bytes: u64,
    /// Usage with caches.
    pub memory_usage_bytes: u64,
    /// Resident.
    pub memory_rss_bytes: u64,
    /// Writable layer.
    pub fs_used_bytes: u64,
    /// Writable layer.
    pub fs_inodes_used: u64,
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeEventKind {
    /// Its process started.
    Started,
    /// Its process ended (also of a sandbox).
    Exited,
    /// The kernel killed it for memory.
    OutOfMemory,
    /// Events may have been lost (reconnected): look at everything.
    Resync,
}

/// One event. The id is that of a container or of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// Runtime id; empty for `Resync`.
    pub id: String,
    /// What happened.
    pub kind: RuntimeEventKind,
}
