//! Baseline: nothing that is known to reach past the container.

use serde_json::Value;

use super::subject::{Finding, Subject, Values, containers_named, one_or_more, quoted, uses};
use crate::registry::object::items_at;

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Sysctls of a pod's own namespaces, with the version each came with.
const SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn annotations<'a>(subject: &Subject<'a>) -> impl Iterator<Item = (&'a String, &'a str)> + use<'a> {
    let metadata = subject.metadata;
    metadata["annotations"].as_object().into_iter().flatten().map(|(key, value)| (key, text(value)))
}

pub fn app_armor(subject: &Subject<'_>) -> Option<Finding> {
    let mut values = Values::new();
    let mut setters = subject.setters(|context| {
        let kind = context["appArmorProfile"]["type"].as_str();
        let bad = kind.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"));
        values.extend(bad.map(str::to_owned));
        bad.is_some()
    });
    let mut values: Vec<String> = values.into_iter().collect();
    let fine =
        |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let mut noted: Vec<String> = annotations(subject)
        .filter(|(key, value)| key.starts_with(APP_ARMOR) && !fine(value))
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    noted.sort();
    if !noted.is_empty() {
        setters.push(one_or_more("annotation", noted.len()));
        values.extend(noted);
    }
    if setters.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values));
    Some(Finding::new(&one_or_more("forbidden AppArmor profile", values.len()), detail))
}

pub fn capabilities(subject: &Subject<'_>) -> Option<Finding> {
    let mut added = Values::new();
    let bad = subject.containers_that(|container| {
        let all = items_at(container, "/securityContext/capabilities/add").iter().map(text);
        let beyond: Vec<String> = all.filter(|it| !CAPABILITIES.contains(it)).map(str::to_owned).collect();
        let is_bad = !beyond.is_empty();
        added.extend(beyond);
        is_bad
    });
    (!bad.is_empty()).then(|| {
        let named = containers_named(&bad);
        let detail =
            format!("{named} must not include {} in securityContext.capabilities.add", quoted(&added));
        Finding::new("non-default capabilities", detail)
    })
}

pub fn host_namespaces(subject: &Subject<'_>) -> Option<Finding> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|field| subject.spec[**field] == true);
    let shared: Vec<String> = shared.map(|field| format!("{field}=true")).collect();
    (!shared.is_empty()).then(|| Finding::new("host namespaces", shared.join(", ")))
}

pub fn host_paths(subject: &Subject<'_>) -> Option<Finding> {
    let volumes = items_at(subject.spec, "/volumes").iter().filter(|volume| volume["hostPath"].is_object());
    let names: Vec<&str> = volumes.map(|volume| text(&volume["name"])).collect();
    (!names.is_empty()).then(|| {
        let detail = format!("{} {}", one_or_more("volume", names.len()), quoted(&names));
        Finding::new("hostPath volumes", detail)
    })
}

pub fn host_ports(subject: &Subject<'_>) -> Option<Finding> {
    let mut ports = Values::new();
    let bad = subject.containers_that(|container| {
        let all = items_at(container, "/ports").iter().filter_map(|port| port["hostPort"].as_u64());
        let used: Vec<String> = all.filter(|port| *port != 0).map(|port| port.to_string()).collect();
        let is_bad = !used.is_empty();
        ports.extend(used);
        is_bad
    });
    (!bad.is_empty()).then(|| {
        let listed: Vec<&str> = ports.iter().map(String::as_str).collect();
        let (named, word) = (containers_named(&bad), one_or_more("hostPort", ports.len()));
        Finding::new("hostPort", format!("{named} {} {word} {}", uses(bad.len()), listed.join(", ")))
    })
}

pub fn probed_hosts(subject: &Subject<'_>) -> Option<Finding> {
    const HANDLERS: &[&str] =
        &["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let mut hosts = Values::new();
    let mut bad = subject.containers_that(|container| {
        let handlers = HANDLERS.iter().filter_map(|pointer| container.pointer(pointer));
        let said = handlers.flat_map(|it| [&it["httpGet"]["host"], &it["tcpSocket"]["host"]]).map(text);
        let said: Vec<String> = said.filter(|host| !host.is_empty()).map(str::to_owned).collect();
        let is_bad = !said.is_empty();
        hosts.extend(said);
        is_bad
    });
    bad.sort_unstable();
    (!bad.is_empty()).then(|| {
        let word = one_or_more("probe or lifecycle host", hosts.len());
        let detail = format!("{} {} {word} {}", containers_named(&bad), uses(bad.len()), quoted(&hosts));
        Finding::new("probe or lifecycle host", detail)
    })
}

pub fn privileged(subject: &Subject<'_>) -> Option<Finding> {
    let bad = subject.containers_that(|container| container["securityContext"]["privileged"] == true);
    (!bad.is_empty()).then(|| {
        let detail = format!("{} must not set securityContext.privileged=true", containers_named(&bad));
        Finding::new("privileged", detail)
    })
}

pub fn proc_mount_of_own_users(subject: &Subject<'_>) -> Option<Finding> {
    if subject.has_own_users() { None } else { proc_mount(subject) }
}

pub fn proc_mount(subject: &Subject<'_>) -> Option<Finding> {
    let mut kinds = Values::new();
    let bad = subject.containers_that(|container| {
        let kind = container["securityContext"]["procMount"].as_str().filter(|kind| *kind != "Default");
        kinds.extend(kind.map(str::to_owned));
        kind.is_some()
    });
    (!bad.is_empty()).then(|| {
        let named = containers_named(&bad);
        Finding::new(
            "procMount",
            format!("{named} must not set securityContext.procMount to {}", quoted(&kinds)),
        )
    })
}

pub fn selinux_1_0(subject: &Subject<'_>) -> Option<Finding> {
    selinux(subject, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub fn selinux_1_31(subject: &Subject<'_>) -> Option<Finding> {
    selinux(subject, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn selinux(subject: &Subject<'_>, allowed: &[&str]) -> Option<Finding> {
    let (mut types, mut user, mut role) = (Values::new(), false, false);
    let setters = subject.setters(|context| {
        let options = &context["seLinuxOptions"];
        let bad_type = Some(text(&options["type"])).filter(|kind| !allowed.contains(kind));
        let (sets_user, sets_role) = (!text(&options["user"]).is_empty(), !text(&options["role"]).is_empty());
        types.extend(bad_type.map(str::to_owned));
        user |= sets_user;
        role |= sets_role;
        bad_type.is_some() || sets_user || sets_role
    });
    if setters.is_empty() {
        return None;
    }
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", one_or_more("type", types.len()), quoted(&types)));
    }
    data.extend(user.then(|| "user may not be set".to_owned()));
    data.extend(role.then(|| "role may not be set".to_owned()));
    let who = setters.join(" and ");
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    Some(Finding::new("seLinuxOptions", detail))
}

/// Before there was a field.
pub fn seccomp_annotations(subject: &Subject<'_>) -> Option<Finding> {
    let fine = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let containers: Vec<String> =
        subject.containers().map(|it| format!("{SECCOMP_OF_CONTAINER}{}", text(&it["name"]))).collect();
    let bad: Values = annotations(subject)
        .filter(|(key, value)| (*key == SECCOMP_OF_POD || containers.contains(key)) && !fine(value))
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    (!bad.is_empty()).then(|| {
        let listed: Vec<&str> = bad.iter().map(String::as_str).collect();
        let word = one_or_more("annotation", bad.len());
        Finding::new("seccompProfile", format!("forbidden {word} {}", listed.join(", ")))
    })
}

/// Whether a profile is one; `None` where nothing is said.
pub(super) fn seccomp_said(context: &Value) -> Option<bool> {
    let profile = context.get("seccompProfile").filter(|it| it.is_object())?;
    Some(matches!(text(&profile["type"]), "RuntimeDefault" | "Localhost"))
}

pub fn seccomp(subject: &Subject<'_>) -> Option<Finding> {
    let mut kinds = Values::new();
    let setters = subject.setters(|context| {
        let bad = seccomp_said(context) == Some(false);
        if bad {
            kinds.insert(text(&context["seccompProfile"]["type"]).to_owned());
        }
        bad
    });
    (!setters.is_empty()).then(|| {
        let who = setters.join(" and ");
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&kinds));
        Finding::new("seccompProfile", detail)
    })
}

pub fn sysctls_1_0(subject: &Subject<'_>) -> Option<Finding> {
    sysctls(subject, 0)
}

pub fn sysctls_1_27(subject: &Subject<'_>) -> Option<Finding> {
    sysctls(subject, 27)
}

pub fn sysctls_1_29(subject: &Subject<'_>) -> Option<Finding> {
    sysctls(subject, 29)
}

pub fn sysctls_1_32(subject: &Subject<'_>) -> Option<Finding> {
    sysctls(subject, 32)
}

fn sysctls(subject: &Subject<'_>, minor: u32) -> Option<Finding> {
    let set = items_at(subject.spec, "/securityContext/sysctls").iter().map(|it| text(&it["name"]));
    let fine = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && *since <= minor);
    let bad: Vec<&str> = set.filter(|name| !fine(name)).collect();
    (!bad.is_empty()).then(|| Finding::new("forbidden sysctls", bad.join(", ")))
}

pub fn host_process(subject: &Subject<'_>) -> Option<Finding> {
    let setters = subject.setters(|context| context["windowsOptions"]["hostProcess"] == true);
    (!setters.is_empty()).then(|| {
        let who = setters.join(" and ");
        Finding::new(
            "hostProcess",
            format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
        )
    })
}
