//! RuntimeClass: a pod that names one gets what running that way costs, and runs where it can.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::object::{items_at, str_at};

pub struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    async fn admit(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        if !a.is(Operation::Create, "", "pods") || !object["spec"].is_object() {
            return Ok(());
        }
        let class = class_of(registry, a, object).await?;
        apply(&mut object["spec"], class.as_ref()).map_err(|why| refused(a, why))
    }

    async fn validate(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(object) = object.filter(|_| a.is(Operation::Create, "", "pods")) else { return Ok(()) };
        // What ran after this plugin may have named another class or another cost.
        let class = class_of(registry, a, object).await?;
        agree(&object["spec"], class.as_ref()).map_err(|why| refused(a, why))
    }
}

fn refused(a: &Attributes<'_>, why: impl std::fmt::Display) -> ApiError {
    a.forbidden(format!("pod rejected: {why}"))
}

async fn class_of(registry: &Registry, a: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, ApiError> {
    let name = str_at(pod, "/spec/runtimeClassName");
    if name.is_empty() {
        return Ok(None);
    }
    match registry.peek("node.k8s.io", "runtimeclasses", "", name).await? {
        Some(class) => Ok(Some(class.value())),
        None => Err(refused(a, format!("RuntimeClass \"{name}\" not found"))),
    }
}

/// Overhead, node selector and tolerations of the class, in the spec of a pod.
fn apply(spec: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let Some(class) = class else { return agree(spec, None) };
    if let Some(cost) = cost(class)
        && is_absent(&spec["overhead"])
    {
        spec["overhead"] = cost.clone();
    }
    agree(spec, Some(class))?;
    let selector = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object);
    if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
        let own = spec["nodeSelector"].as_object().cloned().unwrap_or_default();
        spec["nodeSelector"] = Value::Object(both(own, selector)?);
    }
    let more = items_at(class, "/scheduling/tolerations");
    if !more.is_empty() {
        let mut all = items_at(spec, "/tolerations").to_vec();
        let new: Vec<Value> = more.iter().filter(|toleration| !all.contains(toleration)).cloned().collect();
        all.extend(new);
        spec["tolerations"] = json!(all);
    }
    Ok(())
}

/// A pod may say what its class costs, and nothing else.
fn agree(spec: &Value, class: Option<&Value>) -> Result<(), String> {
    let said = &spec["overhead"];
    match class.and_then(cost) {
        _ if is_absent(said) => Ok(()),
        Some(cost) if cost == said => Ok(()),
        Some(_) => Err("Pod's Overhead doesn't match RuntimeClass's defined Overhead".into()),
        None => Err("Pod Overhead set without corresponding RuntimeClass defined Overhead".into()),
    }
}

fn cost(class: &Value) -> Option<&Value> {
    class.pointer("/overhead/podFixed").filter(|cost| !is_absent(cost))
}

fn is_absent(value: &Value) -> bool {
    value.as_object().is_none_or(Map::is_empty)
}

fn both(mut own: Map<String, Value>, more: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    for (key, value) in more {
        match own.insert(key.clone(), value.clone()) {
            Some(before) if before != *value => {
                return Err(format!(
                    "conflict: label {key} of the pod's nodeSelector is {before}, that of its RuntimeClass {value}"
                ));
            }
            _ => {}
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class() -> Value {
        json!({
            "handler": "sandboxed",
            "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {
                "nodeSelector": {"sandboxed": "yes"},
                "tolerations": [{"key": "sandboxed", "operator": "Exists"}],
            },
        })
    }

    #[test]
    fn a_class_brings_its_cost_and_where_it_runs() {
        let mut spec = json!({"nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "other"}]});
        apply(&mut spec, Some(&class())).unwrap();
        let want = json!({
            "overhead": {"cpu": "10m"},
            "nodeSelector": {"disk": "fast", "sandboxed": "yes"},
            "tolerations": [{"key": "other"}, {"key": "sandboxed", "operator": "Exists"}],
        });
        assert_eq!(spec, want);
        apply(&mut spec, Some(&class())).unwrap();
        assert_eq!(spec, want, "once more changes nothing");
    }

    #[test]
    fn a_cost_that_is_not_the_class_s_and_a_selector_that_contradicts_it_are_refused() {
        let refusal = |mut spec: Value, class: Option<&Value>| apply(&mut spec, class).unwrap_err();
        let own = json!({"overhead": {"cpu": "1"}});
        assert!(refusal(own.clone(), Some(&class())).contains("doesn't match"));
        assert!(refusal(own.clone(), None).contains("without corresponding"));
        assert!(refusal(own, Some(&json!({"handler": "plain"}))).contains("without corresponding"));
        assert!(refusal(json!({"nodeSelector": {"sandboxed": "no"}}), Some(&class())).contains("conflict"));
        assert_eq!(agree(&json!({}), None), Ok(()));
    }
}
