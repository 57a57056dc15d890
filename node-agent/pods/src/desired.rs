//! A pod as the workers want it: the API object, and its containers of all kinds in one ordered list. Pure.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// Where a pod came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The API server.
    Api,
    /// A manifest on this node; its API object is only a mirror.
    File,
}

/// What part a container has in the life of its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next.
    Init,
    /// Starts among the init containers and runs as long as the pod.
    Sidecar,
    /// What the pod is for.
    App,
    /// Added to a running pod to look at it; never restarted.
    Ephemeral,
}

/// One container of the pod.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its part.
    pub role: Role,
    /// As in the pod (ephemeral containers in the same shape).
    pub container: Container,
    /// Whose processes an ephemeral container sees.
    pub target: Option<String>,
    /// See [`hash`].
    pub hash: String,
}

/// A pod to be run.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The object, as last seen.
    pub pod: Pod,
    /// Source.
    pub origin: Origin,
    /// Never empty.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Init and sidecar containers in order, then app, then ephemeral.
    pub specs: Vec<Spec>,
}

impl Desired {
    /// `None` when the object lacks what every stored pod has.
    pub fn new(pod: Pod, origin: Origin) -> Option<Self> {
        let uid = pod.metadata.uid.clone().filter(|uid| !uid.is_empty())?;
        let namespace = pod.metadata.namespace.clone()?;
        let name = pod.metadata.name.clone()?;
        let spec = pod.spec.as_ref()?;
        let init = spec.init_containers.iter().flatten().map(|c| Spec {
            role: if is_sidecar(c) { Role::Sidecar } else { Role::Init },
            hash: hash(c),
            container: c.clone(),
            target: None,
        });
        let app = spec.containers.iter().map(|c| Spec {
            role: Role::App,
            hash: hash(c),
            container: c.clone(),
            target: None,
        });
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(|e| {
            let container = plain(e);
            Spec {
                role: Role::Ephemeral,
                hash: hash(&container),
                container,
                target: e.target_container_name.clone(),
            }
        });
        let specs = init.chain(app).chain(ephemeral).collect();
        Some(Self { origin, uid, namespace, name, specs, pod })
    }

    /// The pod's spec.
    pub fn spec(&self) -> &PodSpec {
        // Checked by `new`; an empty default only exists to keep this total.
        static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
        self.pod.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodSpec::default))
    }

    /// `Always`, `OnFailure` or `Never`.
    pub fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    /// Whether the pod uses the node's network.
    pub fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&Spec> {
        self.specs.iter().find(|s| s.container.name == name)
    }

    /// Whether the API asked for the pod's end.
    pub fn is_deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Seconds between the polite and the final signal.
    pub fn grace_seconds(&self) -> i64 {
        let meta = &self.pod.metadata;
        let asked = if self.is_deleting() { meta.deletion_grace_period_seconds } else { None };
        asked.or(self.spec().termination_grace_period_seconds).unwrap_or(30).max(0)
    }

    /// Whether the API already holds a final phase.
    pub fn is_terminal(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }
}

/// Whether an init container is a sidecar.
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// Hash of the fields whose change means a new container. Only the image of a live pod's container can change without
/// a resize; kubelets hash name and image since 1.31, and so do we. FNV-1a, because the value must be the same in every
/// build of the agent: an adopted container is compared with it.
pub fn hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let bytes = container.name.bytes().chain([0]).chain(image.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

fn plain(e: &EphemeralContainer) -> Container {
    Container {
        args: e.args.clone(),
        command: e.command.clone(),
        env: e.env.clone(),
        env_from: e.env_from.clone(),
        image: e.image.clone(),
        image_pull_policy: e.image_pull_policy.clone(),
        name: e.name.clone(),
        security_context: e.security_context.clone(),
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path.clone(),
        termination_message_policy: e.termination_message_policy.clone(),
        tty: e.tty,
        volume_mounts: e.volume_mounts.clone(),
        working_dir: e.working_dir.clone(),
        ..Default::default()
    }
}
