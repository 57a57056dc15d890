//! PodSpec and PodTemplateSpec, as pods and every workload validate them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at, within};
use crate::registry::meta::{self, names};
use crate::registry::object::{items_at, str_at};

pub(crate) mod affinity;
mod container;
mod downward;
mod environment;
mod mounts;
mod network_names;
mod os;
mod probes;
pub(crate) mod resources;
mod security;
pub(crate) mod tolerations;
mod topology;
pub(crate) mod volume;

/// The lists of containers, in the order of their rules.
const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// What does not depend on the rest of the spec.
const RULES: &[Rule] = &[
    at("restartPolicy", Check::Required("")),
    at("restartPolicy", Check::OneOf(&["Always", "Never", "OnFailure"])),
    at("nodeSelector", Check::Labels),
    at("affinity", Check::Judge(affinity_errors)),
    at("readinessGates[].conditionType", Check::Text(names::qualified_name)),
    at("schedulingGates", Check::Judge(scheduling_gates)),
    at("topologySpreadConstraints", Check::Judge(topology::validate)),
    at("serviceAccountName", Check::Name(names::subdomain)),
    at("nodeName", Check::Name(names::subdomain)),
    at("activeDeadlineSeconds", Check::Between(1, i32::MAX as i64)),
    at("hostname", Check::Name(names::label)),
    at("subdomain", Check::Name(names::label)),
    at("tolerations", Check::Judge(tolerations::validate)),
    at("priorityClassName", Check::Name(names::subdomain)),
    at("runtimeClassName", Check::Text(names::subdomain)),
    at("preemptionPolicy", Check::OneOf(&["Never", "PreemptLowerPriority"])),
    at("overhead", Check::Judge(resources::validate_amounts)),
    within(
        "resourceClaims[]",
        &[
            at("name", Check::Required("")),
            at("name", Check::Name(names::label)),
            at("resourceClaimName", Check::Text(names::subdomain)),
            at("resourceClaimTemplateName", Check::Text(names::subdomain)),
            at("", Check::Judge(one_claim)),
        ],
    ),
    at("resourceClaims", Check::Unique(&["name"])),
];

/// A template: its metadata and its spec. `path` is usually `spec.template`.
pub(crate) fn validate_pod_template(template: &Value, path: &str, errors: &mut Vec<FieldError>) {
    // Upstream leaves `metadata` out of these paths.
    meta::validate_template(template, path, errors);
    validate_pod_spec(template.get("spec").unwrap_or(&Value::Null), &format!("{path}.spec"), errors);
    if !items_at(template, "/spec/ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(format!("{path}.spec.ephemeralContainers"), why));
    }
}

pub(crate) fn validate_pod_spec(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let pod = container::Pod {
        volumes: volume::validate(items_at(spec, "/volumes"), &format!("{path}.volumes"), errors),
        claims: items_at(spec, "/resourceClaims").iter().filter_map(|claim| claim["name"].as_str()).collect(),
        grace_seconds: spec["terminationGracePeriodSeconds"].as_i64(),
        os: spec["os"]["name"].as_str(),
        host_users: spec["hostUsers"] != false,
        restart_policy: str_at(spec, "/restartPolicy"),
    };
    containers(spec, path, &pod, errors);
    field_rules::judge(RULES, spec, path, errors);
    resources::of_pod(spec, path, errors);
    security::of_pod(spec, path, errors);
    network_names::validate(spec, path, errors);
    host(spec, path, errors);
    os::validate(spec, path, errors);
    files_of_variables(spec, path, &pod, errors);
}

/// Every container of the pod under its path.
fn containers_at<'a>(spec: &'a Value, path: &str) -> Vec<(String, &'a Value)> {
    let of_list = |list: &'static str| {
        let items = items_at(spec, &format!("/{list}")).iter().enumerate();
        items.map(move |(i, container)| (format!("{path}.{list}[{i}]"), container))
    };
    LISTS.into_iter().flat_map(of_list).collect()
}

fn containers(spec: &Value, path: &str, pod: &container::Pod<'_>, errors: &mut Vec<FieldError>) {
    if items_at(spec, "/containers").is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let mut seen = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for (list, kind) in
        LISTS.into_iter().zip([container::Kind::Main, container::Kind::Init, container::Kind::Ephemeral])
    {
        for (i, c) in items_at(spec, &format!("/{list}")).iter().enumerate() {
            let at = format!("{path}.{list}[{i}]");
            container::validate(c, &at, kind, pod, errors);
            let name = str_at(c, "/name");
            if !name.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), name));
            }
            // Init containers run after one another, so that each has the ports for itself.
            if kind != container::Kind::Main {
                host_ports.clear();
            }
            ports_of_host(spec, c, &at, &mut host_ports, errors);
            let target = str_at(c, "/targetContainerName");
            if kind == container::Kind::Ephemeral && !target.is_empty() {
                let known = ["/containers", "/initContainers"];
                if !known.iter().any(|list| items_at(spec, list).iter().any(|it| it["name"] == target)) {
                    errors.push(FieldError::not_found(format!("{at}.targetContainerName"), target));
                }
            }
        }
    }
}

fn ports_of_host<'a>(
    spec: &Value,
    container: &'a Value,
    at: &str,
    taken: &mut BTreeSet<(&'a str, &'a str, i64)>,
    errors: &mut Vec<FieldError>,
) {
    for (i, port) in items_at(container, "/ports").iter().enumerate() {
        let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) else { continue };
        let at = format!("{at}.ports[{i}].hostPort");
        let (protocol, ip) = (port["protocol"].as_str().unwrap_or("TCP"), str_at(port, "/hostIP"));
        if !taken.insert((protocol, ip, number)) {
            errors.push(FieldError::duplicate(at.as_str(), format!("{protocol}/{ip}/{number}")));
        }
        if spec["hostNetwork"] == true && at.contains(".containers[") && port["containerPort"] != number {
            let why = "must match `containerPort` when `hostNetwork` is true";
            errors.push(FieldError::invalid(at, number, why));
        }
    }
}

fn affinity_errors(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    field_rules::judge(affinity::AFFINITY, value, path, errors);
}

fn scheduling_gates(gates: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, gate) in gates.as_array().into_iter().flatten().enumerate() {
        let (at, name) = (format!("{path}[{i}]"), str_at(gate, "/name"));
        if let Some(why) = names::qualified_name(name) {
            errors.push(FieldError::invalid(at.as_str(), name, why));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(at, name));
        }
    }
}

fn one_claim(claim: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let why = match (claim["resourceClaimName"].is_null(), claim["resourceClaimTemplateName"].is_null()) {
        (false, false) => {
            "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
        }
        (true, true) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        _ => return,
    };
    errors.push(FieldError::invalid(path, claim.clone(), why));
}

/// What users of a pod's own cannot have of the host.
fn host(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const WHY: &str = "when `hostUsers` is false";
    if spec["hostUsers"] != false {
        return;
    }
    for (field, told) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec[field] == true {
            errors.push(FieldError::forbidden(format!("{path}.{told}"), WHY));
        }
    }
    for (at, container) in containers_at(spec, path) {
        if !items_at(container, "/volumeDevices").is_empty() {
            errors.push(FieldError::forbidden(format!("{at}.volumeDevices"), WHY));
        }
    }
}

/// A variable out of a file has it from a volume that the pod fills itself.
fn files_of_variables(spec: &Value, path: &str, pod: &container::Pod<'_>, errors: &mut Vec<FieldError>) {
    for (at, container) in containers_at(spec, path) {
        for (i, variable) in items_at(container, "/env").iter().enumerate() {
            let reference = &variable["valueFrom"]["fileKeyRef"];
            if reference.is_null() {
                continue;
            }
            let (at, name) =
                (format!("{at}.env[{i}].valueFrom.fileKeyRef.volumeName"), str_at(reference, "/volumeName"));
            match pod.volumes.get(name) {
                None => errors.push(FieldError::not_found(at, name)),
                Some(volume) if volume["emptyDir"].is_null() => {
                    errors.push(FieldError::invalid(at, name, "referenced volume must be of type emptyDir"));
                }
                Some(_) => {}
            }
        }
    }
}
