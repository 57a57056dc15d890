//! Binding: gives a pod its node, once.

use serde_json::{Value, json};

use crate::error::{ApiError, FieldError};
use crate::registry::context::{Body, Context, Target};
use crate::registry::generic::body::Expected;
use crate::registry::generic::update::Race;
use crate::registry::object::{items_at, meta_mut, meta_str, str_at};
use crate::registry::ownership::Tracking;
use crate::registry::{Outcome, Registry};

/// POST `pods/NAME/binding`, or `bindings` with the pod's name in the body.
pub(crate) async fn create(
    registry: &Registry,
    context: &Context,
    target: &Target,
    body: &Body,
) -> Result<Outcome, ApiError> {
    let missing = || ApiError::internal("the schema has no Binding");
    let ty = registry.schema().kind("", "v1", "Binding").ok_or_else(missing)?;
    let expected = Expected { ty: &ty, group: "", version: "v1", kind: "Binding" };
    let mut binding = expected.decode(context, body)?;
    let name = match target.name() {
        "" => meta_str(&binding, "name").to_string(),
        name => name.to_string(),
    };
    let mut errors = Vec::new();
    let kind = str_at(&binding, "/target/kind");
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if str_at(&binding, "/target/name").is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid("", "Binding", &name, errors));
    }
    let pods = registry.find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let named = Target::named(target.namespace.as_deref(), &name);
    super::admit(registry, context, &pods, &named, "binding", &mut binding).await?;
    let node = str_at(&binding, "/target/name").to_string();
    let pod = Target::named(target.namespace.as_deref(), &name).with_subresource("binding");
    let conflict = |why: String| ApiError::conflict("", "pods/binding", &name, why);
    registry
        .modify(context, &pods, &pod, Race::Rebases, Tracking::Kept, &mut |old, _| {
            let uid = meta_str(&binding, "uid");
            if !uid.is_empty() && uid != meta_str(old, "uid") {
                return Err(conflict(format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    meta_str(old, "uid")
                )));
            }
            if !meta_str(old, "deletionTimestamp").is_empty() {
                return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
            }
            let assigned = str_at(old, "/spec/nodeName");
            if !assigned.is_empty() {
                return Err(conflict(format!("pod {name} is already assigned to node \"{assigned}\"")));
            }
            if !items_at(old, "/spec/schedulingGates").is_empty() {
                return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
            }
            Ok(bound(old, &node, &binding))
        })
        .await?;
    super::success(registry, true)
}

/// The pod with its node, the binding's annotations and labels, and the condition that says it is scheduled.
fn bound(pod: &Value, node: &str, binding: &Value) -> Value {
    let mut new = pod.clone();
    new["spec"]["nodeName"] = node.into();
    for field in ["annotations", "labels"] {
        if let Some(more) = binding.pointer(&format!("/metadata/{field}")).and_then(Value::as_object)
            && let Some(meta) = meta_mut(&mut new)
        {
            let map = meta.entry(field).or_insert_with(|| json!({}));
            for (k, v) in more {
                map[k] = v.clone();
            }
        }
    }
    let mut conditions: Vec<Value> =
        items_at(pod, "/status/conditions").iter().filter(|c| c["type"] != "PodScheduled").cloned().collect();
    conditions.push(json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": crate::registry::generic::now_text(),
    }));
    if let Some(scheduled) = conditions.last_mut().and_then(Value::as_object_mut) {
        scheduled.remove("lastProbeTime");
    }
    new["status"]["conditions"] = json!(conditions);
    new
}
