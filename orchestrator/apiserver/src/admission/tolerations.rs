//! DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or unreachable.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::object::items_at;

pub struct DefaultTolerationSeconds;

const SECONDS: i64 = 300;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    async fn admit(
        &self,
        _registry: &Registry,
        a: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        // An update may have taken them out, which it may not: what a pod tolerates only grows.
        if a.is(Operation::Create, "", "pods") || a.is(Operation::Update, "", "pods") {
            tolerate(object);
        }
        Ok(())
    }
}

fn tolerate(pod: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = items_at(pod, "/spec/tolerations").iter().any(|t| {
            let k = t["key"].as_str().unwrap_or_default();
            let effect = t["effect"].as_str().unwrap_or_default();
            (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !covered {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
            match pod.pointer_mut("/spec/tolerations").and_then(Value::as_array_mut) {
                Some(list) => list.push(toleration),
                None => pod["spec"]["tolerations"] = json!([toleration]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_tolerated_yet_is_added() {
        let mut pod =
            json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]}});
        tolerate(&mut pod);
        assert_eq!(items_at(&pod, "/spec/tolerations").len(), 2);
        tolerate(&mut pod);
        assert_eq!(items_at(&pod, "/spec/tolerations").len(), 2);
    }
}
