//! Pods, containers, probes and volumes.
//!
//! Rules: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/>.

use serde_json::json;

use super::{Hook, Object, existing, fill, fill_zero, has, is_zero, text};
use crate::{Map, Value};

pub(super) const HOOKS: &[(&str, Hook)] = &[
    ("io.k8s.api.core.v1.Pod", pod),
    ("io.k8s.api.core.v1.PodSpec", pod_spec),
    ("io.k8s.api.core.v1.Container", container),
    ("io.k8s.api.core.v1.EphemeralContainer", container),
    ("io.k8s.api.core.v1.Probe", probe),
    ("io.k8s.api.core.v1.HTTPGetAction", http_get),
    ("io.k8s.api.core.v1.GRPCAction", grpc),
    ("io.k8s.api.core.v1.ContainerPort", |o| fill_zero(o, "protocol", "TCP")),
    ("io.k8s.api.core.v1.ObjectFieldSelector", |o| fill_zero(o, "apiVersion", "v1")),
    ("io.k8s.api.core.v1.Volume", volume),
    ("io.k8s.api.core.v1.SecretVolumeSource", default_mode),
    ("io.k8s.api.core.v1.ConfigMapVolumeSource", default_mode),
    ("io.k8s.api.core.v1.DownwardAPIVolumeSource", default_mode),
    ("io.k8s.api.core.v1.ProjectedVolumeSource", default_mode),
    ("io.k8s.api.core.v1.ServiceAccountTokenProjection", |o| fill(o, "expirationSeconds", 3600)),
    ("io.k8s.api.core.v1.HostPathVolumeSource", |o| fill(o, "type", "")),
    ("io.k8s.api.core.v1.ImageVolumeSource", |o| pull_policy(o, "reference", "pullPolicy")),
    ("io.k8s.api.core.v1.ISCSIVolumeSource", |o| fill_zero(o, "iscsiInterface", "default")),
    ("io.k8s.api.core.v1.ISCSIPersistentVolumeSource", |o| fill_zero(o, "iscsiInterface", "default")),
];

/// What only a Pod gets and a template does not.
fn pod(pod: &mut Object) {
    let Some(spec) = existing(pod, "spec") else { return };
    fill(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    for list in ["initContainers", "containers"] {
        super::each(spec, list, |container| {
            requests_from_limits(container);
            if host_network {
                super::each(container, "ports", |port| {
                    if let Some(number) = port.get("containerPort").cloned() {
                        fill_zero(port, "hostPort", number);
                    }
                });
            }
        });
    }
    if existing(spec, "resources").is_some_and(|r| has(r, "limits")) {
        pod_level_requests(spec);
    }
}

/// A limit without a request is the request.
fn requests_from_limits(container: &mut Object) {
    let Some(resources) = existing(container, "resources") else {
        return;
    };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = super::child(resources, "requests") {
        for (name, amount) in limits {
            requests.entry(name).or_insert(amount);
        }
    }
}

/// The same for the pod's own resources, unless a container asks for that resource itself.
fn pod_level_requests(spec: &mut Object) {
    let asked: Vec<String> = ["initContainers", "containers"]
        .iter()
        .filter_map(|list| spec.get(*list).and_then(Value::as_array))
        .flatten()
        .filter_map(|c| c.pointer("/resources/requests").and_then(Value::as_object))
        .flat_map(|requests| requests.keys().cloned())
        .collect();
    let Some(resources) = existing(spec, "resources") else {
        return;
    };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let missing: Vec<_> = limits.into_iter().filter(|(name, _)| !asked.contains(name)).collect();
    if missing.is_empty() {
        return;
    }
    if let Some(requests) = super::child(resources, "requests") {
        for (name, amount) in missing {
            requests.entry(name).or_insert(amount);
        }
    }
}

fn pod_spec(spec: &mut Object) {
    fill_zero(spec, "dnsPolicy", "ClusterFirst");
    fill_zero(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", Map::new());
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill_zero(spec, "schedulerName", "default-scheduler");
    // Two names of one field.
    match (text(spec, "serviceAccountName").to_owned(), text(spec, "serviceAccount").to_owned()) {
        (name, _) if !name.is_empty() => {
            spec.insert("serviceAccount".into(), name.into());
        }
        (_, old) if !old.is_empty() => {
            spec.insert("serviceAccountName".into(), old.into());
        }
        _ => {}
    }
}

fn container(container: &mut Object) {
    pull_policy(container, "image", "imagePullPolicy");
    fill_zero(container, "terminationMessagePath", "/dev/termination-log");
    fill_zero(container, "terminationMessagePolicy", "File");
    // Always present upstream, where it is no pointer.
    fill(container, "resources", Map::new());
}

/// `latest` is always pulled; any other tag or digest is not.
fn pull_policy(object: &mut Object, image: &str, policy: &str) {
    let reference = text(object, image);
    let (name, digest) = reference.split_once('@').map_or((reference, ""), |(name, digest)| (name, digest));
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map_or("", |(_, tag)| tag);
    let latest = tag == "latest" || (tag.is_empty() && digest.is_empty());
    fill_zero(object, policy, if latest { "Always" } else { "IfNotPresent" });
}

fn probe(probe: &mut Object) {
    fill_zero(probe, "timeoutSeconds", 1);
    fill_zero(probe, "periodSeconds", 10);
    fill_zero(probe, "successThreshold", 1);
    fill_zero(probe, "failureThreshold", 3);
}

fn http_get(action: &mut Object) {
    fill_zero(action, "path", "/");
    fill_zero(action, "scheme", "HTTP");
}

fn grpc(action: &mut Object) {
    fill(action, "service", "");
}

fn volume(volume: &mut Object) {
    if volume.iter().all(|(name, value)| name == "name" || is_zero(value)) {
        volume.insert("emptyDir".into(), json!({}));
    }
}

fn default_mode(source: &mut Object) {
    fill(source, "defaultMode", 0o644);
}
