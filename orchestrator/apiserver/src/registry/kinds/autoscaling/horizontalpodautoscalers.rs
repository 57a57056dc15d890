//! HorizontalPodAutoscaler, in both versions over one storage. v2 is what is stored.

use serde_json::{Map, Value, json};

use crate::registry::definition::{Conversion, Declaration, STATUS, StoredAs};
use crate::registry::object::{items_at, meta_mut, str_at};

mod rules;

pub(crate) fn v2() -> Declaration {
    Declaration::new("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .categories(&["all"])
        .columns(crate::tables::workloads::AUTOSCALERS)
        .subresources(&[STATUS])
        .rules(rules::RULES)
        .status_rules(rules::STATUS_RULES)
}

pub(crate) fn v1() -> Declaration {
    Declaration::new("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .categories(&["all"])
        .subresources(&[STATUS])
        .columns(crate::tables::workloads::AUTOSCALERS)
        .stored_as(StoredAs {
            group: "autoscaling".into(),
            version: "v2".into(),
            plural: "horizontalpodautoscalers".into(),
            conversion: Conversion { to_stored, from_stored },
        })
        .rules(rules::RULES)
        .status_rules(rules::STATUS_RULES)
}

/// v1 fields that have no place of their own in v2, and v2 fields that v1 carries as annotations.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn cpu_target(percent: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn is_cpu_target(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && str_at(metric, "/resource/name") == "cpu"
        && metric.pointer("/resource/target/averageUtilization").is_some()
}

fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let meta = meta_mut(object)?;
    let text = meta.get_mut("annotations")?.as_object_mut()?.remove(key)?;
    if meta["annotations"].as_object().is_some_and(Map::is_empty) {
        meta.remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn put_annotation(object: &mut Value, key: &str, value: &Value) {
    if let Some(meta) = meta_mut(object) {
        meta.entry("annotations").or_insert_with(|| json!({}))[key] = value.to_string().into();
    }
}

fn to_stored(mut v: Value) -> Value {
    let mut metrics: Vec<Value> =
        take_annotation(&mut v, METRICS).and_then(|m| m.as_array().cloned()).unwrap_or_default();
    if let Some(spec) = v.get_mut("spec").and_then(Value::as_object_mut)
        && let Some(percent) = spec.remove("targetCPUUtilizationPercentage")
    {
        metrics.insert(0, cpu_target(&percent));
    }
    if !metrics.is_empty() {
        v["spec"]["metrics"] = json!(metrics);
    }
    if let Some(behavior) = take_annotation(&mut v, BEHAVIOR) {
        v["spec"]["behavior"] = behavior;
    }
    let mut current: Vec<Value> =
        take_annotation(&mut v, CURRENT).and_then(|m| m.as_array().cloned()).unwrap_or_default();
    if let Some(status) = v.get_mut("status").and_then(Value::as_object_mut)
        && let Some(percent) = status.remove("currentCPUUtilizationPercentage")
    {
        current.insert(
            0,
            json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}),
        );
    }
    let conditions = take_annotation(&mut v, CONDITIONS);
    if v["status"].is_object() {
        if !current.is_empty() {
            v["status"]["currentMetrics"] = json!(current);
        }
        if let Some(conditions) = conditions {
            v["status"]["conditions"] = conditions;
        }
    }
    v
}

fn from_stored(mut v: Value) -> Value {
    let metrics = items_at(&v, "/spec/metrics").to_vec();
    if let Some(spec) = v.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("metrics");
    }
    let (cpu, rest): (Vec<Value>, Vec<Value>) = metrics.into_iter().partition(is_cpu_target);
    if let Some(first) = cpu.first() {
        v["spec"]["targetCPUUtilizationPercentage"] =
            first["resource"]["target"]["averageUtilization"].clone();
    }
    if !rest.is_empty() {
        put_annotation(&mut v, METRICS, &json!(rest));
    }
    if let Some(behavior) =
        v.get_mut("spec").and_then(Value::as_object_mut).and_then(|s| s.remove("behavior"))
    {
        put_annotation(&mut v, BEHAVIOR, &behavior);
    }
    let removed = |v: &mut Value, field: &str| {
        v.get_mut("status").and_then(Value::as_object_mut).and_then(|s| s.remove(field))
    };
    if let Some(Value::Array(current)) = removed(&mut v, "currentMetrics") {
        let is_cpu = |m: &Value| str_at(m, "/resource/name") == "cpu";
        let percent = current
            .iter()
            .find(|m| is_cpu(m))
            .map(|m| m["resource"]["current"]["averageUtilization"].clone());
        if let Some(percent) = percent.filter(|p| !p.is_null()) {
            v["status"]["currentCPUUtilizationPercentage"] = percent;
        }
        let rest: Vec<Value> = current.into_iter().filter(|m| !is_cpu(m)).collect();
        if !rest.is_empty() {
            put_annotation(&mut v, CURRENT, &json!(rest));
        }
    }
    if let Some(conditions) = removed(&mut v, "conditions") {
        put_annotation(&mut v, CONDITIONS, &conditions);
    }
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v1_autoscaler_survives_the_storage() {
        let v1 = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}});
        let stored = to_stored(v1.clone());
        assert_eq!(stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
        assert_eq!(from_stored(stored), v1);
    }

    #[test]
    fn what_v1_cannot_say_rides_in_annotations() {
        let v2 =
            json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "metrics": [{"type": "Pods"}]}});
        let v1 = from_stored(v2.clone());
        assert!(v1["spec"].get("metrics").is_none());
        assert_eq!(to_stored(v1), v2);
    }
}
