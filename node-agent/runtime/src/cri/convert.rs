//! Our types to and from CRI's. Pure, and the only place that knows the wire's shape.

use k8s_cri::v1 as pb;

use crate::types::*;

fn int(value: Option<i64>) -> Option<pb::Int64Value> {
    value.map(|value| pb::Int64Value { value })
}

fn uint(value: Option<pb::UInt64Value>) -> u64 {
    value.map_or(0, |v| v.value)
}

// === towards the runtime ===

fn namespace_mode(mode: &IdMode) -> i32 {
    match mode {
        IdMode::Pod => pb::NamespaceMode::Pod as i32,
        IdMode::Container => pb::NamespaceMode::Container as i32,
        IdMode::Node => pb::NamespaceMode::Node as i32,
        IdMode::Target(_) => pb::NamespaceMode::Target as i32,
    }
}

fn namespaces(options: &NamespaceOptions) -> pb::NamespaceOption {
    let target = match &options.pid {
        IdMode::Target(id) => id.clone(),
        IdMode::Pod | IdMode::Container | IdMode::Node => String::new(),
    };
    pb::NamespaceOption {
        network: namespace_mode(&options.network),
        pid: namespace_mode(&options.pid),
        ipc: namespace_mode(&options.ipc),
        target_id: target,
        userns_options: None,
    }
}

fn seccomp(profile: &SeccompProfile) -> pb::SecurityProfile {
    use pb::security_profile::ProfileType;
    let (kind, reference) = match profile {
        SeccompProfile::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        SeccompProfile::Unconfined => (ProfileType::Unconfined, String::new()),
        SeccompProfile::Localhost(path) => (ProfileType::Localhost, path.clone()),
    };
    pb::SecurityProfile { profile_type: kind as i32, localhost_ref: reference }
}

pub(super) fn sandbox_config(config: &SandboxConfig) -> pb::PodSandboxConfig {
    let port_mappings = config.port_mappings.iter().map(|p| pb::PortMapping {
        protocol: match p.protocol {
            Protocol::Tcp => pb::Protocol::Tcp,
            Protocol::Udp => pb::Protocol::Udp,
            Protocol::Sctp => pb::Protocol::Sctp,
        } as i32,
        container_port: i32::from(p.container_port),
        host_port: i32::from(p.host_port),
        host_ip: p.host_ip.clone(),
    });
    let security = pb::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(&config.namespaces)),
        run_as_user: int(config.run_as_user),
        run_as_group: int(config.run_as_group),
        supplemental_groups: config.supplemental_groups.clone(),
        privileged: config.privileged,
        seccomp: Some(seccomp(&config.seccomp)),
        ..Default::default()
    };
    pb::PodSandboxConfig {
        metadata: Some(pb::PodSandboxMetadata {
            name: config.name.clone(),
            uid: config.uid.clone(),
            namespace: config.namespace.clone(),
            attempt: config.attempt,
        }),
        hostname: config.hostname.clone(),
        log_directory: config.log_directory.clone(),
        dns_config: config.dns.as_ref().map(|dns| pb::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        port_mappings: port_mappings.collect(),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        linux: Some(pb::LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_parent.clone(),
            security_context: Some(security),
            sysctls: config.sysctls.clone().into_iter().collect(),
            ..Default::default()
        }),
        windows: None,
    }
}

pub(super) fn resources(r: &LinuxResources) -> pb::LinuxContainerResources {
    pb::LinuxContainerResources {
        cpu_period: r.cpu_period_us,
        cpu_quota: r.cpu_quota_us,
        cpu_shares: r.cpu_shares,
        memory_limit_in_bytes: r.memory_limit_bytes,
        oom_score_adj: r.oom_score_adj,
        memory_swap_limit_in_bytes: r.memory_swap_limit_bytes,
        ..Default::default()
    }
}

/// Paths a container must not see, unless it asks for all of /proc: what container engines mask by default.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn paths(given: &Option<Vec<String>>, usual: &[&str]) -> Vec<String> {
    given.clone().unwrap_or_else(|| usual.iter().map(ToString::to_string).collect())
}

fn security(s: &ContainerSecurity) -> pb::LinuxContainerSecurityContext {
    pb::LinuxContainerSecurityContext {
        capabilities: Some(pb::Capability {
            add_capabilities: s.add_capabilities.clone(),
            drop_capabilities: s.drop_capabilities.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: s.privileged,
        namespace_options: Some(namespaces(&s.namespaces)),
        run_as_user: int(s.run_as_user),
        run_as_group: int(s.run_as_group),
        run_as_username: s.run_as_username.clone(),
        readonly_rootfs: s.readonly_rootfs,
        supplemental_groups: s.supplemental_groups.clone(),
        no_new_privs: s.no_new_privs,
        masked_paths: paths(&s.masked_paths, MASKED),
        readonly_paths: paths(&s.readonly_paths, READONLY),
        seccomp: Some(seccomp(&s.seccomp)),
        ..Default::default()
    }
}

pub(super) fn image_spec(reference: &str) -> pb::ImageSpec {
    pb::ImageSpec { image: reference.to_string(), ..Default::default() }
}

pub(super) fn auth(auth: &ImageAuth) -> pb::AuthConfig {
    pb::AuthConfig {
        username: auth.username.clone(),
        password: auth.password.clone(),
        auth: auth.auth.clone(),
        server_address: auth.server_address.clone(),
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
    }
}

pub(super) fn container_config(config: &ContainerConfig) -> pb::ContainerConfig {
    let mounts = config.mounts.iter().map(|m| pb::Mount {
        container_path: m.container_path.clone(),
        host_path: m.host_path.clone(),
        readonly: m.readonly,
        propagation: match m.propagation {
            MountPropagation::Private => pb::MountPropagation::PropagationPrivate,
            MountPropagation::HostToContainer => pb::MountPropagation::PropagationHostToContainer,
            MountPropagation::Bidirectional => pb::MountPropagation::PropagationBidirectional,
        } as i32,
        ..Default::default()
    });
    let devices = config.devices.iter().map(|d| pb::Device {
        container_path: d.container_path.clone(),
        host_path: d.host_path.clone(),
        permissions: d.permissions.clone(),
    });
    pb::ContainerConfig {
        metadata: Some(pb::ContainerMetadata { name: config.name.clone(), attempt: config.attempt }),
        image: Some(pb::ImageSpec {
            image: config.image.clone(),
            user_specified_image: config.user_image.clone(),
            ..Default::default()
        }),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: config
            .env
            .iter()
            .map(|(key, value)| pb::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: mounts.collect(),
        devices: devices.collect(),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        log_path: config.log_path.clone(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(pb::LinuxContainerConfig {
            resources: Some(resources(&config.resources)),
            security_context: Some(security(&config.security)),
        }),
        ..Default::default()
    }
}

// === from the runtime ===

pub(super) fn status(answer: pb::StatusResponse) -> RuntimeStatus {
    let conditions = answer.status.map(|s| s.conditions).unwrap_or_default();
    let conditions = conditions.into_iter().map(|c| RuntimeCondition {
        kind: c.r#type,
        ok: c.status,
        reason: c.reason,
        message: c.message,
    });
    let handlers = answer.runtime_handlers.into_iter().map(|h| {
        let features = h.features.unwrap_or_default();
        RuntimeHandler {
            name: h.name,
            recursive_read_only_mounts: features.recursive_read_only_mounts,
            user_namespaces: features.user_namespaces,
        }
    });
    RuntimeStatus { conditions: conditions.collect(), handlers: handlers.collect() }
}

fn sandbox_state(state: i32) -> SandboxState {
    if state == pb::PodSandboxState::SandboxReady as i32 {
        SandboxState::Ready
    } else {
        SandboxState::NotReady
    }
}

pub(super) fn sandbox_info(item: pb::PodSandbox) -> SandboxInfo {
    let metadata = item.metadata.unwrap_or_default();
    SandboxInfo {
        id: item.id,
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        state: sandbox_state(item.state),
        created_at: item.created_at,
        labels: item.labels.into_iter().collect(),
        annotations: item.annotations.into_iter().collect(),
    }
}

pub(super) fn sandbox_status(status: pb::PodSandboxStatus) -> SandboxStatus {
    let metadata = status.metadata.unwrap_or_default();
    let network = status.network.unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
    let addresses = std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect();
    SandboxStatus {
        info: SandboxInfo {
            id: status.id,
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            attempt: metadata.attempt,
            state: sandbox_state(status.state),
            created_at: status.created_at,
            labels: status.labels.into_iter().collect(),
            annotations: status.annotations.into_iter().collect(),
        },
        addresses,
    }
}

fn container_state(state: i32) -> ContainerState {
    match pb::ContainerState::try_from(state) {
        Ok(pb::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(pb::ContainerState::ContainerRunning) => ContainerState::Running,
        Ok(pb::ContainerState::ContainerExited) => ContainerState::Exited,
        Ok(pb::ContainerState::ContainerUnknown) | Err(_) => ContainerState::Unknown,
    }
}

pub(super) fn container_info(item: pb::Container) -> ContainerInfo {
    let metadata = item.metadata.unwrap_or_default();
    ContainerInfo {
        id: item.id,
        sandbox: item.pod_sandbox_id,
        name: metadata.name,
        attempt: metadata.attempt,
        state: container_state(item.state),
        created_at: item.created_at,
        labels: item.labels.into_iter().collect(),
        annotations: item.annotations.into_iter().collect(),
    }
}

pub(super) fn container_status(status: pb::ContainerStatus) -> ContainerStatus {
    let metadata = status.metadata.unwrap_or_default();
    let mounts = status.mounts.into_iter().map(|m| Mount {
        propagation: match m.propagation() {
            pb::MountPropagation::PropagationPrivate => MountPropagation::Private,
            pb::MountPropagation::PropagationHostToContainer => MountPropagation::HostToContainer,
            pb::MountPropagation::PropagationBidirectional => MountPropagation::Bidirectional,
        },
        container_path: m.container_path,
        host_path: m.host_path,
        readonly: m.readonly,
    });
    let resources = status.resources.and_then(|r| r.linux).map(|r| LinuxResources {
        cpu_period_us: r.cpu_period,
        cpu_quota_us: r.cpu_quota,
        cpu_shares: r.cpu_shares,
        memory_limit_bytes: r.memory_limit_in_bytes,
        oom_score_adj: r.oom_score_adj,
        memory_swap_limit_bytes: r.memory_swap_limit_in_bytes,
    });
    ContainerStatus {
        id: status.id,
        name: metadata.name,
        attempt: metadata.attempt,
        state: container_state(status.state),
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        image: status.image.map(|i| i.image).unwrap_or_default(),
        image_ref: status.image_ref,
        reason: status.reason,
        message: status.message,
        labels: status.labels.into_iter().collect(),
        annotations: status.annotations.into_iter().collect(),
        mounts: mounts.collect(),
        log_path: status.log_path,
        resources,
    }
}

pub(super) fn stats(stats: pb::ContainerStats) -> ContainerStats {
    let attributes = stats.attributes.unwrap_or_default();
    let cpu = stats.cpu.unwrap_or_default();
    let memory = stats.memory.unwrap_or_default();
    let fs = stats.writable_layer.unwrap_or_default();
    ContainerStats {
        id: attributes.id,
        name: attributes.metadata.map(|m| m.name).unwrap_or_default(),
        labels: attributes.labels.into_iter().collect(),
        timestamp: cpu.timestamp,
        cpu_total_ns: uint(cpu.usage_core_nano_seconds),
        memory_working_set_bytes: uint(memory.working_set_bytes),
        memory_usage_bytes: uint(memory.usage_bytes),
        memory_rss_bytes: uint(memory.rss_bytes),
        fs_used_bytes: uint(fs.used_bytes),
        fs_inodes_used: uint(fs.inodes_used),
    }
}

pub(super) fn image(image: pb::Image) -> Image {
    Image {
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size_bytes: image.size,
        uid: image.uid.map(|v| v.value),
        username: image.username,
        pinned: image.pinned,
    }
}

pub(super) fn fs_usage(usage: pb::FilesystemUsage) -> FsUsage {
    FsUsage {
        mountpoint: usage.fs_id.map(|f| f.mountpoint).unwrap_or_default(),
        used_bytes: uint(usage.used_bytes),
        inodes_used: uint(usage.inodes_used),
    }
}
