//! A container as the runtime wants it. Pure, except that the caller has already made what mounts point to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::SecurityContext;
use penstock_runtime::{
    ContainerConfig, ContainerSecurity, IdMode, Image, Mount, MountPropagation, SeccompProfile,
};

use crate::desired::{Desired, Spec};
use crate::{env, names, resources, sandbox};

/// Everything that is not in the pod.
pub struct Inputs<'a> {
    /// Restart count.
    pub attempt: u32,
    /// The image found or pulled.
    pub image: &'a Image,
    /// From [`env::compile`].
    pub env: Vec<(String, String)>,
    /// Volumes and managed files.
    pub mounts: Vec<Mount>,
    /// Id of the container whose processes an ephemeral one sees.
    pub target: Option<String>,
    /// For the OOM score.
    pub node_memory_bytes: i64,
    /// Lowest OOM score this agent may set.
    pub oom_score_adj_min: i64,
}

/// Refused because of the image's user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// Uid 0.
    #[error("container has runAsNonRoot and image will run as root")]
    Root,
    /// A name says nothing.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
    )]
    Named {
        /// The user in the image.
        name: String,
    },
    /// The pod contradicts itself.
    #[error("container's runAsUser breaks non-root policy")]
    Asked,
}

/// Builds the container.
///
/// # Errors
/// When the container must not run as root and would.
pub fn compile(desired: &Desired, spec: &Spec, inputs: Inputs<'_>) -> Result<ContainerConfig, UserError> {
    let container = &spec.container;
    let lookup: BTreeMap<&str, &str> = inputs.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expand = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|w| env::expand(w, |name| lookup.get(name).copied())).collect()
    };
    let mut labels = sandbox::labels(desired);
    labels.insert(names::CONTAINER_NAME.into(), container.name.clone());
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt: inputs.attempt,
        image: if inputs.image.id.is_empty() {
            container.image.clone().unwrap_or_default()
        } else {
            inputs.image.id.clone()
        },
        user_image: container.image.clone().unwrap_or_default(),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: inputs.mounts,
        devices: Vec::new(),
        labels,
        annotations: annotations(spec, desired, inputs.attempt),
        log_path: format!("{}/{}.log", container.name, inputs.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        resources: resources::compile_container(
            desired.spec(),
            container,
            inputs.node_memory_bytes,
            inputs.oom_score_adj_min,
        ),
        security: security(desired, spec, inputs.image, inputs.target)?,
        env: inputs.env,
    })
}

fn annotations(spec: &Spec, desired: &Desired, attempt: u32) -> BTreeMap<String, String> {
    let container = &spec.container;
    let path = container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".into());
    let policy = container.termination_message_policy.clone().unwrap_or_else(|| "File".into());
    [
        (names::CONTAINER_HASH, spec.hash.clone()),
        (names::RESTART_COUNT, attempt.to_string()),
        (names::MESSAGE_PATH, path),
        (names::MESSAGE_POLICY, policy),
        (names::POD_GRACE, desired.grace_seconds().to_string()),
    ]
    .map(|(k, v)| (k.to_string(), v))
    .into()
}

fn security(
    desired: &Desired,
    spec: &Spec,
    image: &Image,
    target: Option<String>,
) -> Result<ContainerSecurity, UserError> {
    let pod = desired.spec().security_context.clone().unwrap_or_default();
    let own: SecurityContext = spec.container.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(pod.run_as_user);
    let non_root = own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false);
    if non_root {
        match (run_as_user, image.uid) {
            (Some(0), _) => return Err(UserError::Asked),
            (Some(_), _) => {}
            (None, Some(0)) => return Err(UserError::Root),
            (None, Some(_)) => {}
            (None, None) if image.username.is_empty() => return Err(UserError::Root),
            (None, None) => {
                return Err(UserError::Named { name: image.username.clone() });
            }
        }
    }
    let run_as_group = own.run_as_group.or(pod.run_as_group);
    // A group needs a user on the wire; what the image says is then spelled out.
    let (user, username) = match (run_as_user, run_as_group) {
        (Some(uid), _) => (Some(uid), String::new()),
        (None, Some(_)) if image.uid.is_some() => (image.uid, String::new()),
        (None, Some(_)) if !image.username.is_empty() => (None, image.username.clone()),
        (None, Some(_)) => (Some(0), String::new()),
        (None, None) => (None, String::new()),
    };
    let capabilities = own.capabilities.unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let bare = |list: Option<Vec<String>>| -> Vec<String> {
        list.into_iter().flatten().map(|c| c.trim_start_matches("CAP_").to_string()).collect()
    };
    let mut namespaces = sandbox::namespaces(desired);
    if let Some(id) = target {
        namespaces.pid = IdMode::Target(id);
    }
    let seccomp = own.seccomp_profile.or(pod.seccomp_profile);
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked") || privileged;
    let groups = pod.fs_group.into_iter().chain(pod.supplemental_groups.into_iter().flatten());
    Ok(ContainerSecurity {
        add_capabilities: bare(capabilities.add),
        drop_capabilities: bare(capabilities.drop),
        privileged,
        namespaces,
        run_as_user: user,
        run_as_group,
        run_as_username: username,
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups.collect(),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        seccomp: match seccomp {
            _ if privileged => SeccompProfile::Unconfined,
            Some(p) => sandbox::profile(&p.type_, p.localhost_profile.as_deref()),
            None => SeccompProfile::Unconfined,
        },
        masked_paths: unmasked.then(Vec::new),
        readonly_paths: unmasked.then(Vec::new),
    })
}

/// Propagation as the API writes it.
pub fn propagation(asked: Option<&str>) -> MountPropagation {
    match asked {
        Some("HostToContainer") => MountPropagation::HostToContainer,
        Some("Bidirectional") => MountPropagation::Bidirectional,
        _ => MountPropagation::Private,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Origin;

    fn compiled(container: serde_json::Value, image: &Image) -> Result<ContainerConfig, UserError> {
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [container], "securityContext": {"fsGroup": 77}}});
        let desired = Desired::new(serde_json::from_value(pod).unwrap(), Origin::Api).unwrap();
        let inputs = Inputs {
            attempt: 3,
            image,
            env: vec![("A".into(), "1".into())],
            mounts: vec![],
            target: None,
            node_memory_bytes: 1 << 34,
            oom_score_adj_min: -1000,
        };
        compile(&desired, &desired.specs[0], inputs)
    }

    #[test]
    fn variables_are_expanded_in_command_and_arguments() {
        let c = serde_json::json!({"name": "c", "command": ["echo", "$(A)"], "args": ["$(B)"]});
        let config = compiled(c, &Image::default()).unwrap();
        assert_eq!((config.command[1].as_str(), config.args[0].as_str()), ("1", "$(B)"));
        assert_eq!(config.log_path, "c/3.log");
        assert_eq!(config.security.supplemental_groups, [77]);
    }

    #[test]
    fn an_image_that_runs_as_root_is_refused_when_it_must_not() {
        let c = serde_json::json!({"name": "c", "securityContext": {"runAsNonRoot": true}});
        let root = Image { uid: Some(0), ..Default::default() };
        let named = Image { username: "web".into(), ..Default::default() };
        let user = Image { uid: Some(7), ..Default::default() };
        assert_eq!(compiled(c.clone(), &root), Err(UserError::Root));
        assert_eq!(compiled(c.clone(), &named), Err(UserError::Named { name: "web".into() }));
        assert!(compiled(c, &user).is_ok());
    }
}
