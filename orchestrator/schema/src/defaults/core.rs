//! The core group but pods: services, claims, volumes, secrets, nodes and the rest.

use super::{Hook, Object, child, each, existing, fill, fill_zero, has, is_empty_list, text};
use crate::{Map, Value};

pub(super) const HOOKS: &[(&str, Hook)] = &[
    ("io.k8s.api.core.v1.Service", service),
    ("io.k8s.api.core.v1.Secret", |o| fill_zero(o, "type", "Opaque")),
    ("io.k8s.api.core.v1.Namespace", namespace),
    ("io.k8s.api.core.v1.Node", node),
    ("io.k8s.api.core.v1.PersistentVolume", persistent_volume),
    ("io.k8s.api.core.v1.PersistentVolumeClaim", claim),
    ("io.k8s.api.core.v1.PersistentVolumeClaimSpec", |o| fill(o, "volumeMode", "Filesystem")),
    ("io.k8s.api.core.v1.ReplicationController", replication_controller),
    ("io.k8s.api.core.v1.EndpointPort", |o| fill_zero(o, "protocol", "TCP")),
    ("io.k8s.api.core.v1.LimitRangeItem", limit_range_item),
    ("io.k8s.api.discovery.v1.EndpointPort", slice_port),
    ("io.k8s.api.scheduling.v1.PriorityClass", |o| fill(o, "preemptionPolicy", "PreemptLowerPriority")),
    ("io.k8s.api.authentication.v1.TokenRequestSpec", |o| fill(o, "expirationSeconds", 3600)),
    ("io.k8s.api.flowcontrol.v1.FlowSchemaSpec", |o| fill_zero(o, "matchingPrecedence", 1000)),
    ("io.k8s.api.flowcontrol.v1.LimitedPriorityLevelConfiguration", limited_priority_level),
    ("io.k8s.api.flowcontrol.v1.ExemptPriorityLevelConfiguration", exempt_priority_level),
];

fn service(service: &mut Object) {
    // Defaults of a Service hold whether the spec was given or not.
    let Some(spec) = child(service, "spec") else {
        return;
    };
    fill_zero(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            let timeout = child(spec, "sessionAffinityConfig").and_then(|config| child(config, "clientIP"));
            if let Some(client_ip) = timeout {
                fill(client_ip, "timeoutSeconds", 10_800);
            }
        }
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        _ => {}
    }
    fill_zero(spec, "type", "ClusterIP");
    each(spec, "ports", |port| {
        fill_zero(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            fill_zero(port, "targetPort", number);
        }
    });
    let ty = text(spec, "type").to_owned();
    let reachable = matches!(&*ty, "NodePort" | "LoadBalancer")
        || (ty == "ClusterIP" && !is_empty_list(spec, "externalIPs"));
    if reachable {
        fill_zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(&*ty, "NodePort" | "LoadBalancer" | "ClusterIP") {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if ty == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Every namespace carries its name as a label, so that selectors can name it.
fn namespace(namespace: &mut Object) {
    let name = existing(namespace, "metadata").map(|m| text(m, "name").to_owned()).unwrap_or_default();
    if name.is_empty() {
        return;
    }
    if let Some(labels) = child(namespace, "metadata").and_then(|m| child(m, "labels")) {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

fn node(node: &mut Object) {
    if let Some(status) = existing(node, "status")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        fill(status, "allocatable", capacity);
    }
}

fn persistent_volume(volume: &mut Object) {
    if let Some(status) = child(volume, "status") {
        fill_zero(status, "phase", "Pending");
    }
    if let Some(spec) = existing(volume, "spec") {
        fill_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill(spec, "volumeMode", "Filesystem");
    }
}

fn claim(claim: &mut Object) {
    if let Some(status) = child(claim, "status") {
        fill_zero(status, "phase", "Pending");
    }
}

fn replication_controller(controller: &mut Object) {
    let labels = controller.get("spec").and_then(|s| s.pointer("/template/metadata/labels")).cloned();
    if let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|l| !l.is_empty())) {
        if let Some(spec) = existing(controller, "spec") {
            let given = spec.get("selector").and_then(Value::as_object).is_some_and(|s| !s.is_empty());
            if !given {
                spec.insert("selector".into(), labels.clone());
            }
        }
        if let Some(metadata) = child(controller, "metadata") {
            let given = metadata.get("labels").and_then(Value::as_object).is_some_and(|l| !l.is_empty());
            if !given {
                metadata.insert("labels".into(), labels);
            }
        }
    }
    if let Some(spec) = child(controller, "spec") {
        fill(spec, "replicas", 1);
    }
}

/// For containers: a maximum is the default limit, the default limit is the default request, and so is a minimum.
fn limit_range_item(item: &mut Object) {
    if text(item, "type") != "Container" {
        return;
    }
    let from =
        |item: &Object, name: &str| item.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let spread = |item: &mut Object, into: &str, source: Map<String, Value>| {
        if let Some(target) = child(item, into) {
            for (resource, amount) in source {
                target.entry(resource).or_insert(amount);
            }
        }
    };
    let max = from(item, "max");
    spread(item, "default", max);
    let default = from(item, "default");
    spread(item, "defaultRequest", default);
    let min = from(item, "min");
    spread(item, "defaultRequest", min);
}

fn slice_port(port: &mut Object) {
    fill(port, "name", "");
    fill(port, "protocol", "TCP");
}

fn limited_priority_level(level: &mut Object) {
    fill(level, "nominalConcurrencyShares", 30);
    fill(level, "lendablePercent", 0);
    if let Some(response) = existing(level, "limitResponse")
        && let Some(queuing) = existing(response, "queuing")
    {
        fill_zero(queuing, "queues", 64);
        fill_zero(queuing, "handSize", 8);
        fill_zero(queuing, "queueLengthLimit", 50);
    }
}

fn exempt_priority_level(level: &mut Object) {
    fill(level, "nominalConcurrencyShares", 0);
    if !has(level, "lendablePercent") {
        level.insert("lendablePercent".into(), 0.into());
    }
}
