//! As whom a pod and its containers run, and what is kept from them.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at, when, within};
use crate::registry::kinds::rules::paths::descending;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

const ID: Check = Check::Between(0, i32::MAX as i64);

const SECCOMP: &[Rule] = &[
    at("type", Check::Required("type is required when seccompProfile is set")),
    at("type", Check::OneOf(&["Localhost", "RuntimeDefault", "Unconfined"])),
    when(
        "type",
        &["Localhost"],
        &[
            at("localhostProfile", Check::Given("must be set when seccomp type is Localhost")),
            at("localhostProfile", Check::Judge(descending)),
        ],
    ),
    when(
        "type",
        &["", "RuntimeDefault", "Unconfined"],
        &[at(
            "localhostProfile",
            Check::Text(|_| Some("can only be set when seccomp type is Localhost".into())),
        )],
    ),
];

const APPARMOR: &[Rule] = &[
    at("type", Check::Required("type is required when appArmorProfile is set")),
    at("type", Check::OneOf(&["Localhost", "RuntimeDefault", "Unconfined"])),
    when(
        "type",
        &["Localhost"],
        &[
            at("localhostProfile", Check::Required("must be set when AppArmor type is Localhost")),
            at("localhostProfile", Check::Name(unpadded)),
            at("localhostProfile", Check::BytesMax(4095)),
        ],
    ),
    when(
        "type",
        &["RuntimeDefault", "Unconfined"],
        &[at(
            "localhostProfile",
            Check::Text(|_| Some("can only be set when AppArmor type is Localhost".into())),
        )],
    ),
];

const WINDOWS: &[Rule] = &[
    at("gmsaCredentialSpecName", Check::Text(names::subdomain)),
    at("gmsaCredentialSpec", Check::Text(credential_spec)),
    at("runAsUserName", Check::Text(windows_user)),
];

const OF_POD: &[Rule] = &[
    at("fsGroup", ID),
    at("runAsUser", ID),
    at("runAsGroup", ID),
    at("supplementalGroups[]", ID),
    at("fsGroupChangePolicy", Check::OneOf(&["Always", "OnRootMismatch"])),
    within("seccompProfile", SECCOMP),
    within("windowsOptions", WINDOWS),
    within("appArmorProfile", APPARMOR),
    at("supplementalGroupsPolicy", Check::OneOf(&["Merge", "Strict"])),
    at("seLinuxChangePolicy", Check::OneOf(&["MountOption", "Recursive"])),
];

const OF_CONTAINER: &[Rule] = &[
    at("runAsUser", ID),
    at("runAsGroup", ID),
    at("procMount", Check::OneOf(&["Default", "Unmasked"])),
    within("seccompProfile", SECCOMP),
    within("windowsOptions", WINDOWS),
    within("appArmorProfile", APPARMOR),
];

fn unpadded(text: &str) -> Option<String> {
    (text.trim() != text).then(|| "must not be padded with whitespace".into())
}

fn credential_spec(text: &str) -> Option<String> {
    match text.len() {
        0 => Some("gmsaCredentialSpec cannot be an empty string".into()),
        65_537.. => Some("gmsaCredentialSpec size must be under 64 KiB".into()),
        _ => None,
    }
}

fn windows_user(text: &str) -> Option<String> {
    const FORBIDDEN: &str = "\"/\\:;|=,+*?<>@[]";
    if text.is_empty() {
        return Some("runAsUserName cannot be an empty string".into());
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return Some("runAsUserName cannot contain control characters".into());
    }
    if text.matches('\\').count() > 1 {
        return Some("runAsUserName cannot contain more than one backslash".into());
    }
    let (domain, user) = text.split_once('\\').unwrap_or(("", text));
    let why = if domain.len() >= 256 {
        "runAsUserName's Domain length must be under 256 characters"
    } else if user.is_empty() {
        "runAsUserName's User cannot be empty"
    } else if user.len() > 104 {
        "runAsUserName's User length must not be longer than 104 characters"
    } else if user.chars().all(|c| matches!(c, '.' | ' ')) {
        "runAsUserName's User cannot contain only periods or spaces"
    } else if user.contains(|c| FORBIDDEN.contains(c)) {
        "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"
    } else {
        return None;
    };
    Some(why.into())
}

/// The pod's context and what of the rest of the spec it contradicts.
pub(super) fn of_pod(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let (context, at) = (&spec["securityContext"], format!("{path}.securityContext"));
    field_rules::judge(OF_POD, context, &at, errors);
    if spec["hostPID"] == true && spec["shareProcessNamespace"] == true {
        errors.push(FieldError::invalid(
            format!("{at}.shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    sysctls(spec, &at, errors);
}

/// A container's context, in a pod that shares the host's users or not.
pub(super) fn of_container(context: &Value, host_users: bool, path: &str, errors: &mut Vec<FieldError>) {
    if context.is_null() {
        return;
    }
    field_rules::judge(OF_CONTAINER, context, path, errors);
    if host_users && context["procMount"] == "Unmasked" {
        errors.push(FieldError::invalid(
            format!("{path}.procMount"),
            "Unmasked",
            "`hostUsers` must be false to use `Unmasked`",
        ));
    }
    if context["allowPrivilegeEscalation"] != false {
        return;
    }
    if context["privileged"] == true {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(path, context.clone(), why));
    }
    if items_at(context, "/capabilities/add").iter().any(|it| it == "CAP_SYS_ADMIN") {
        let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(FieldError::invalid(path, context.clone(), why));
    }
}

fn sysctls(spec: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, sysctl) in items_at(spec, "/securityContext/sysctls").iter().enumerate() {
        let at = format!("{at}.sysctls[{i}].name");
        let name = str_at(sysctl, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(at.as_str(), ""));
        } else if !is_sysctl_name(name) {
            errors.push(FieldError::invalid(
                at.as_str(),
                name,
                "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            ));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(at.as_str(), name));
        }
        for (host, namespace) in [("hostNetwork", "net"), ("hostIPC", "ipc")] {
            if spec[host] == true && namespace_of(name) == Some(namespace) {
                let why = format!("may not be specified when '{host}' is true");
                errors.push(FieldError::invalid(at.as_str(), name, why));
            }
        }
    }
}

/// The kernel's namespace that keeps a value of its own of the sysctl.
fn namespace_of(name: &str) -> Option<&'static str> {
    const OF_IPC: &[&str] = &[
        "kernel.msg",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shm",
        "kernel.shm_rmid_forced",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
    ];
    let dotted = name.replace('/', ".");
    if OF_IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        Some("ipc")
    } else {
        dotted.starts_with("net.").then_some("net")
    }
}

fn is_sysctl_name(name: &str) -> bool {
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let b = part.as_bytes();
            let edge = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
            b.first().is_some_and(edge)
                && b.last().is_some_and(edge)
                && b.iter().all(|c| edge(c) || matches!(c, b'-' | b'_'))
        })
}
