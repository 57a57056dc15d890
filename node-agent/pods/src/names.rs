//! Names other programs read from the runtime: labels and annotations of sandboxes and containers. They are the
//! agent's only memory of what it started, so changing one orphans everything that runs. Label names are those every
//! kubelet uses (kubernetes `pkg/kubelet/types/labels.go`); tools such as crictl depend on them.

/// Pod name, on sandboxes and containers.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Pod namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Pod UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Container name, on containers.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Hash of what a running container cannot change; see `desired::hash`.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// How often the container was restarted before this one.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Where the container leaves its last words.
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// `File` or `FallbackToLogsOnError`.
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Grace in seconds, for pods that are gone from the API when they are stopped.
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// On mirror pods: the hash of the manifest they mirror.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// On static pods: the hash of the manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// On static pods: where the manifest lies.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
