//! The long work of a worker. Each operation is a task of its own, idempotent, and ends with one [`Done`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use penstock_runtime::{ContainerFilter, Mount, RuntimeError, SandboxConfig};

use crate::context::Context;
use crate::desired::{Desired, Spec};
use crate::fields::Addresses;
use crate::memory::Waiting;
use crate::objects::Age;
use crate::probes::check::{Checker, Outcome};
use crate::resources::Limits;
use crate::rotation::{Leaving, Stage};
use crate::volumes::{self, VolumeError};
use crate::{container, env, hosts, image_volumes, last_words, names, quiet, resources, rotation};

/// How an operation ended.
pub(super) enum Done {
    Prepared { failure: Option<Duration> },
    SandboxStopped,
    Started { name: String, failure: Option<Waiting> },
    Stopped { id: String, ok: bool },
    Resized { told: Vec<(String, Limits)>, failure: Option<String> },
}

/// What every operation needs.
pub(super) struct Job {
    pub context: Arc<Context>,
    pub desired: Arc<Desired>,
    pub sandbox_config: SandboxConfig,
    /// How far the pod is that ends: its containers, and their stops, share it.
    pub leaving: Arc<Leaving>,
}

/// A container to be started.
pub(super) struct Start {
    pub name: String,
    pub sandbox: String,
    pub attempt: u32,
    pub target: Option<String>,
    pub addresses: Vec<String>,
}

fn wait(reason: &str, message: impl Into<String>) -> Waiting {
    Waiting { reason: reason.to_string(), message: message.into() }
}

impl Job {
    fn addresses(&self, pod: Vec<String>) -> Addresses {
        Addresses { hosts: self.context.config.node_ip_texts(), pod }
    }

    /// Cgroup, directories, volumes and sandbox; volumes and sandbox side by side.
    pub async fn prepare(self, with_sandbox: bool) -> Done {
        let (context, desired) = (&self.context, &self.desired);
        let spec = desired.spec();
        context.cgroups.ensure(resources::qos(spec), &resources::compile_pod(spec), &desired.uid);
        if let Err(error) = std::fs::create_dir_all(&self.sandbox_config.log_directory) {
            tracing::warn!(path = self.sandbox_config.log_directory, %error, "cannot make the log directory");
        }
        let node =
            self.addresses(if desired.host_network() { context.config.node_ip_texts() } else { Vec::new() });
        let volumes = async {
            if image_volumes::any(desired) {
                let secrets = self.pull_secrets().await;
                image_volumes::ensure(context, desired, &secrets, &self.sandbox_config).await?;
            }
            context.volumes.ensure(desired, &node, Age::Now).await
        };
        let sandbox = async {
            if !with_sandbox {
                return Ok(());
            }
            let handler = self.runtime_handler().await?;
            context
                .runtime
                .run_sandbox(&self.sandbox_config, &handler)
                .await
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        let (volumes, sandbox) = tokio::join!(volumes, sandbox);
        let mut failure = None;
        if let Err((volume, error)) = volumes {
            let message = format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}");
            context.events.warning(desired, None, "FailedMount", message);
            failure = Some(Duration::from_secs(1));
        }
        if let Err(message) = sandbox {
            context.events.warning(
                desired,
                None,
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {message}"),
            );
            failure = Some(Duration::from_secs(1));
        }
        Done::Prepared { failure }
    }

    async fn runtime_handler(&self) -> Result<String, String> {
        let Some(class) = self.desired.spec().runtime_class_name.as_deref().filter(|c| !c.is_empty()) else {
            return Ok(String::new());
        };
        let api: Api<RuntimeClass> = Api::all(self.context.client.clone());
        let found = api.get_opt(class).await.map_err(|e| e.to_string())?;
        found.map(|c| c.handler).ok_or_else(|| format!("RuntimeClass \"{class}\" not found"))
    }

    pub async fn stop_sandbox(self, id: String) -> Done {
        if let Err(error) = self.context.runtime.stop_sandbox(&id).await {
            self.context.events.warning(&self.desired, None, "FailedKillPod", error.to_string());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Done::SandboxStopped
    }

    /// Refreshes what volumes show. A failure keeps what they showed.
    pub async fn refresh(self, addresses: Vec<String>) {
        let addresses = self.addresses(addresses);
        if let Err((volume, error)) =
            self.context.volumes.ensure(&self.desired, &addresses, Age::Recent).await
        {
            tracing::debug!(pod = self.desired.name, volume, %error, "volume not refreshed");
        }
    }

    pub async fn start(self, start: Start) -> Done {
        let name = start.name.clone();
        let failure = self.try_start(start).await.err();
        if let Some(waiting) = &failure {
            let message = format!("Error: {}", waiting.message);
            self.context.events.warning(&self.desired, Some(&name), "Failed", message);
        } else {
            self.context.metrics.started_containers.inc();
        }
        Done::Started { name, failure }
    }

    async fn try_start(&self, start: Start) -> Result<(), Waiting> {
        let (context, desired) = (&self.context, &self.desired);
        let runtime = &*context.runtime;
        let config_error = |message: String| wait("CreateContainerConfigError", message);
        let spec = desired.container(&start.name).ok_or_else(|| config_error("no such container".into()))?;
        let reference = spec.container.image.clone().unwrap_or_default();
        let secrets = self.pull_secrets().await;
        let policy = spec.container.image_pull_policy.as_deref();
        let image = context.images.ensure(runtime, &reference, policy, &secrets, &self.sandbox_config).await;
        let (image, pulled) = image.map_err(|e| wait(e.reason(), e.to_string()))?;
        let what = if pulled {
            format!("Successfully pulled image \"{reference}\"")
        } else {
            format!("Container image \"{reference}\" already present on machine")
        };
        context.events.normal(desired, Some(&start.name), "Pulled", what);

        let addresses = self.addresses(start.addresses.clone());
        let env = self.environment(spec, &addresses).await?;
        let mounts = self.mounts(spec, &start, &env).await.map_err(|e| config_error(e.to_string()))?;
        let inputs = container::Inputs {
            attempt: start.attempt,
            image: &image,
            env,
            mounts,
            target: start.target.clone(),
            node_memory_bytes: context.node.memory_bytes,
            oom_score_adj_min: context.oom_score_adj_min,
        };
        let config = container::compile(desired, spec, inputs).map_err(|e| config_error(e.to_string()))?;
        let logs = PathBuf::from(&self.sandbox_config.log_directory).join(&start.name);
        std::fs::create_dir_all(&logs).map_err(|e| config_error(format!("{}: {e}", logs.display())))?;

        let failed = |reason: &'static str| move |error: RuntimeError| wait(reason, error.to_string());
        let id = runtime
            .create_container(&start.sandbox, &config, &self.sandbox_config)
            .await
            .map_err(failed("CreateContainerError"))?;
        context.events.normal(
            desired,
            Some(&start.name),
            "Created",
            format!("Created container: {}", start.name),
        );
        runtime.start_container(&id).await.map_err(failed("RunContainerError"))?;
        context.events.normal(
            desired,
            Some(&start.name),
            "Started",
            format!("Started container {}", start.name),
        );
        self.post_start(spec, &id, addresses.pod.first().cloned()).await;
        Ok(())
    }

    /// A hook that fails ends the container; what follows is its restart policy's matter.
    async fn post_start(&self, spec: &Spec, id: &str, address: Option<String>) {
        let Some(hook) = spec.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return;
        };
        let checker =
            Checker { runtime: self.context.runtime.clone(), container_id: id.to_string(), address };
        let ended = self.until_exit(id);
        let outcome = tokio::select! {
            outcome = checker.hook(hook, &spec.container, Duration::from_secs(24 * 3600)) => outcome,
            () = ended => Outcome::Failure("the container ended before the hook".into()),
        };
        if let Outcome::Failure(message) = outcome {
            let text = format!("PostStartHook failed: {message}");
            self.context.events.warning(
                &self.desired,
                Some(&spec.container.name),
                "FailedPostStartHook",
                text,
            );
            let grace = Duration::from_secs(u64::try_from(self.desired.grace_seconds()).unwrap_or(30));
            let _ = self.context.runtime.stop_container(id, grace).await;
        }
    }

    async fn until_exit(&self, id: &str) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            match self.context.runtime.container_status(id).await {
                Ok(status) if status.state == penstock_runtime::ContainerState::Running => {}
                Err(error) if error.is_unavailable() => {}
                _ => return,
            }
        }
    }

    async fn pull_secrets(&self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        for reference in self.desired.spec().image_pull_secrets.iter().flatten() {
            match self.context.objects.secret(&self.desired.namespace, &reference.name, Age::Recent).await {
                Ok(Some(secret)) => secrets.push(secret),
                Ok(None) => {}
                Err(error) => tracing::debug!(secret = reference.name, %error, "image pull secret not read"),
            }
        }
        secrets
    }

    async fn environment(
        &self,
        spec: &Spec,
        addresses: &Addresses,
    ) -> Result<Vec<(String, String)>, Waiting> {
        let (context, desired) = (&self.context, &self.desired);
        let error = |message: String| wait("CreateContainerConfigError", message);
        let references = env::references(&spec.container);
        let mut sources = env::Sources::default();
        for name in references.config_maps {
            let object = context.objects.config_map(&desired.namespace, &name, Age::Now).await;
            if let Some(object) = object.map_err(|e| error(e.to_string()))? {
                sources.config_maps.insert(name, object);
            }
        }
        for name in references.secrets {
            let object = context.objects.secret(&desired.namespace, &name, Age::Now).await;
            if let Some(object) = object.map_err(|e| error(e.to_string()))? {
                sources.secrets.insert(name, object);
            }
        }
        let wanted = |ns: Option<&str>| ns == Some(desired.namespace.as_str()) || ns == Some("default");
        let services = context.services.state();
        sources.services = services
            .iter()
            .filter(|s| wanted(s.metadata.namespace.as_deref()))
            .map(|s| s.as_ref().clone())
            .collect();
        env::compile(desired, &spec.container, &sources, addresses, &context.node)
            .map_err(|e| error(e.to_string()))
    }

    /// Volumes, the hosts file and the file for last words.
    async fn mounts(
        &self,
        spec: &Spec,
        start: &Start,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, VolumeError> {
        let (context, desired) = (&self.context, &self.desired);
        let mut mounts = Vec::new();
        for wanted in spec.container.volume_mounts.iter().flatten() {
            let volume = desired.spec().volumes.iter().flatten().find(|v| v.name == wanted.name);
            let volume = volume.ok_or_else(|| VolumeError::Undeclared { name: wanted.name.clone() })?;
            let dir = context.volumes.host_dir(desired, volume).await?;
            let dir = dir.ok_or_else(|| VolumeError::Unsupported { name: wanted.name.clone() })?;
            let lookup = |name: &str| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
            let sub = match &wanted.sub_path_expr {
                Some(text) if !text.is_empty() => {
                    let expanded = env::expand(text, lookup);
                    if expanded.contains("$(") {
                        return Err(VolumeError::SubPath { path: expanded });
                    }
                    expanded
                }
                _ => wanted.sub_path.clone().unwrap_or_default(),
            };
            let host = volumes::sub_path(&dir, &sub)?;
            let always_read_only = volume.config_map.is_some()
                || volume.secret.is_some()
                || volume.projected.is_some()
                || volume.downward_api.is_some()
                || volume.image.is_some();
            mounts.push(Mount {
                container_path: wanted.mount_path.clone(),
                host_path: host.to_string_lossy().into_owned(),
                readonly: wanted.read_only.unwrap_or(false) || always_read_only,
                propagation: container::propagation(wanted.mount_propagation.as_deref()),
            });
        }
        let pod_dir = context.volumes.pod_dir(&desired.uid);
        let write = |path: PathBuf, text: &str, mode: u32| -> Result<PathBuf, VolumeError> {
            let io = |source| VolumeError::Io { path: path.clone(), source };
            std::fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(io)?;
            std::fs::write(&path, text).map_err(io)?;
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))
                .map_err(io)?;
            Ok(path)
        };
        let taken = |mounts: &[Mount], path: &str| mounts.iter().any(|m| m.container_path == path);
        if !taken(&mounts, "/etc/hosts") {
            let node_hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            let text = hosts::compile(desired, &start.addresses, &context.config.cluster_domain, &node_hosts);
            let path = write(pod_dir.join("etc-hosts"), &text, 0o644)?;
            mounts.push(Mount {
                container_path: "/etc/hosts".into(),
                host_path: path.to_string_lossy().into_owned(),
                ..Default::default()
            });
        }
        let message_path =
            spec.container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        if !message_path.is_empty() && !taken(&mounts, message_path) {
            let path = last_words::path(context, &desired.uid, &start.name, start.attempt);
            let path = write(path, "", 0o666)?;
            mounts.push(Mount {
                container_path: message_path.into(),
                host_path: path.to_string_lossy().into_owned(),
                ..Default::default()
            });
        }
        Ok(mounts)
    }

    /// The pre-stop hook runs at once, as in any kubelet, beside the wait until the pod gets no new connections; the stop
    /// comes when both are over. All three share the grace period; two seconds are left for the stop whatever they took.
    pub async fn stop(
        self,
        id: String,
        name: String,
        grace_seconds: i64,
        why: String,
        address: Option<String>,
    ) -> Done {
        let (context, desired) = (&self.context, &self.desired);
        context.events.normal(
            desired,
            Some(&name),
            "Killing",
            if why == "the pod ends" { format!("Stopping container {name}") } else { why },
        );
        let grace = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
        let began = tokio::time::Instant::now();
        let spec = desired.container(&name);
        let hook = spec.and_then(|s| s.container.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
        let hook = async {
            let (Some(hook), Some(spec), false) = (hook, spec, grace.is_zero()) else { return };
            let checker = Checker { runtime: context.runtime.clone(), container_id: id.clone(), address };
            if let Outcome::Failure(message) = checker.hook(hook, &spec.container, grace).await {
                context.events.warning(
                    desired,
                    Some(&name),
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {message}"),
                );
            }
        };
        tokio::join!(hook, self.leave_rotation(grace));
        let left = grace.saturating_sub(began.elapsed());
        let left = if grace.is_zero() { left } else { left.max(Duration::from_secs(2)) };
        let result = context.runtime.stop_container(&id, left).await;
        if result.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Done::Stopped { id, ok: result.is_ok() }
    }
}

impl Job {
    /// Waits until no node sends the pod new connections, within bounds.
    async fn leave_rotation(&self, grace: Duration) {
        let Some(rotation) = &self.context.rotation else { return };
        let limit = self.context.config.termination_wait;
        let wait = rotation::plan_wait(limit, grace, self.desired.is_deleting());
        let Desired { namespace, name, uid, .. } = &*self.desired;
        let pod = format!("{namespace}/{name}");
        let leaves = async {
            // The node's own sockets are not the pod's.
            if !rotation.left(uid).await || self.desired.host_network() {
                return;
            }
            self.leaving.note(Stage::Out(None));
            let (context, qos, of) = (self.context.clone(), resources::qos(self.desired.spec()), uid.clone());
            let processes = move || context.cgroups.processes(qos, &of);
            let quiet = quiet::reached(processes, |busy| self.leaving.note(Stage::Out(Some(busy))));
            if tokio::time::timeout(quiet::WITHIN, quiet).await.is_err() {
                tell(&pod, self.leaving.stage(), quiet::WITHIN);
            }
        };
        if let Err(stage) = self.leaving.wait(wait, leaves).await {
            tell(&pod, stage, wait);
        }
    }
}

/// Says of a pod that had no more time what it was waited for.
fn tell(pod: &str, stage: Stage, within: Duration) {
    let busy = match stage {
        Stage::InRotation => {
            let said =
                "stopped before every node was heard to have taken it out of rotation (--termination-wait)";
            return tracing::warn!(pod, ?within, "{said}");
        }
        Stage::Out(None) => "it was not looked at in time".to_owned(),
        Stage::Out(Some(busy)) => busy.to_string(),
    };
    tracing::info!(
        pod,
        ?within,
        "out of rotation on every node, and stopped before it was seen quiet: {busy}"
    );
}

/// Removes sandboxes, containers, volumes, logs and cgroups of a pod whose containers have ended.
pub(crate) async fn remove_everything(context: &Context, desired: &Desired) -> Result<(), RuntimeError> {
    remove_from_runtime(context, &desired.uid).await?;
    image_volumes::remove_volumes(context, &desired.uid).await;
    context.cgroups.remove(&desired.uid);
    let logs = crate::sandbox::log_directory(&context.config.pod_logs_dir, desired);
    let _ = std::fs::remove_dir_all(logs);
    Ok(())
}

/// Removes what the runtime has of a pod.
pub(crate) async fn remove_from_runtime(context: &Context, uid: &str) -> Result<(), RuntimeError> {
    let label = vec![(names::POD_UID.to_string(), uid.to_string())];
    let filter = ContainerFilter { sandbox: None, labels: label.clone() };
    for container in context.runtime.list_containers(&filter).await? {
        context.runtime.remove_container(&container.id).await?;
    }
    for sandbox in context.runtime.list_sandboxes(&label).await? {
        context.runtime.stop_sandbox(&sandbox.id).await?;
        context.runtime.remove_sandbox(&sandbox.id).await?;
    }
    Ok(())
}
