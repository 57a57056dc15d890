//! What a pod of one operating system may not ask for, and containers that are processes of a Windows host.

use serde_json::Value;

use super::containers_at;
use crate::error::FieldError;

const OF_LINUX_POD: &[&str] = &[
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    "securityContext.seccompProfile",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "shareProcessNamespace",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
    "securityContext.seLinuxChangePolicy",
];
const OF_LINUX_CONTAINER: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

pub(super) fn validate(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let os = &spec["os"];
    if !os.is_null() {
        match os["name"].as_str().unwrap_or_default() {
            "" => errors.push(FieldError::required(format!("{path}.os.name"), "")),
            "linux" => linux(spec, path, errors),
            "windows" => windows(spec, path, errors),
            other => {
                errors.push(FieldError::not_supported(format!("{path}.os"), other, &["linux", "windows"]))
            }
        }
    }
    host_processes(spec, path, errors);
}

fn linux(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const WHY: &str = "windows options cannot be set for a linux pod";
    if !spec["securityContext"]["windowsOptions"].is_null() {
        errors.push(FieldError::forbidden(format!("{path}.securityContext.windowsOptions"), WHY));
    }
    for (at, container) in containers_at(spec, path) {
        if !container["securityContext"]["windowsOptions"].is_null() {
            errors.push(FieldError::forbidden(format!("{at}.securityContext.windowsOptions"), WHY));
        }
    }
}

fn windows(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const WHY: &str = "cannot be set for a windows pod";
    // Host namespaces are plain booleans: false is as good as absent.
    let is_set = |value: &Value, name: &str| {
        let plain = matches!(name, "hostPID" | "hostIPC");
        let absent = value.is_null() || plain && *value == false;
        !absent && value.as_array().is_none_or(|it| !it.is_empty())
    };
    for field in OF_LINUX_POD {
        let value = field.split('.').fold(spec, |value, part| &value[part]);
        if is_set(value, field) {
            errors.push(FieldError::forbidden(format!("{path}.{field}"), WHY));
        }
    }
    for (at, container) in containers_at(spec, path) {
        for field in OF_LINUX_CONTAINER {
            if !container["securityContext"][*field].is_null() {
                errors.push(FieldError::forbidden(format!("{at}.securityContext.{field}"), WHY));
            }
        }
    }
}

fn host_processes(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let of = |value: &Value| value["securityContext"]["windowsOptions"]["hostProcess"].as_bool();
    let of_pod = of(spec);
    let containers = containers_at(spec, path);
    for (at, container) in &containers {
        if let (Some(pod), Some(own)) = (of_pod, of(container))
            && pod != own
        {
            let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            let at = format!("{at}.securityContext.windowsOptions.hostProcess");
            errors.push(FieldError::invalid(at, own, why));
        }
    }
    let count = containers.iter().filter(|(_, it)| of(it).or(of_pod) == Some(true)).count();
    if count == 0 {
        return;
    }
    if count != containers.len() {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, "", why));
    }
    if spec["hostNetwork"] != true {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(format!("{path}.hostNetwork"), false, why));
    }
}
