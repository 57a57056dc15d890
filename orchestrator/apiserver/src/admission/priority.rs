//! Priority: turns a pod's class into its number, and gives the default class to pods that name none.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::object::{meta_str, str_at};

pub struct Priority;

#[async_trait]
impl Plugin for Priority {
    async fn admit(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        if !a.is(Operation::Create, "", "pods") || !object["spec"].is_object() {
            return Ok(());
        }
        let wanted = str_at(object, "/spec/priorityClassName").to_string();
        let class = if wanted.is_empty() {
            let all = registry.all("scheduling.k8s.io", "priorityclasses", None).await?;
            let mut defaults: Vec<Value> =
                all.iter().map(|c| c.value()).filter(|c| c["globalDefault"] == json!(true)).collect();
            defaults.sort_by_key(|c| c["value"].as_i64());
            defaults.into_iter().next()
        } else {
            let found = registry.peek("scheduling.k8s.io", "priorityclasses", "", &wanted).await?;
            let Some(found) = found else {
                return Err(a.forbidden(format!("no PriorityClass with name {wanted} was found")));
            };
            Some(found.value())
        };
        let (value, policy) = match &class {
            Some(class) => {
                object["spec"]["priorityClassName"] = meta_str(class, "name").into();
                (
                    class["value"].as_i64().unwrap_or(0),
                    class["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority").to_string(),
                )
            }
            None => (0, "PreemptLowerPriority".to_string()),
        };
        if let Some(said) = object["spec"]["priority"].as_i64()
            && said != value
        {
            return Err(a.forbidden(format!(
                "the integer value of priority ({said}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            )));
        }
        if let Some(said) = object["spec"]["preemptionPolicy"].as_str()
            && said != policy
        {
            return Err(a.forbidden(format!(
                "the string value of PreemptionPolicy ({said}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            )));
        }
        object["spec"]["priority"] = json!(value);
        object["spec"]["preemptionPolicy"] = policy.into();
        Ok(())
    }
}
