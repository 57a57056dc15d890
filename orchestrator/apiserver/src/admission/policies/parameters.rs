//! The parameters a binding gives its policy.

use serde_json::Value;

use super::compiled::{Binding, Policy};
use crate::registry::Registry;
use crate::registry::generic::present;
use crate::registry::object::str_at;
use crate::registry::selector::LabelSelector;

/// One set of parameters for each time the policy is evaluated; `None` in it when it is evaluated without.
pub(super) async fn of(
    registry: &Registry,
    policy: &Policy,
    binding: &Binding,
    namespace: &str,
) -> Result<Vec<Option<Value>>, String> {
    let (Some((api_version, kind)), Some(wanted)) = (&policy.param_kind, &binding.param_ref) else {
        return Ok(vec![None]);
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let definitions = registry.definitions();
    let definition = definitions
        .iter()
        .find(|d| d.group == group && d.version == version && *d.kind == **kind)
        .ok_or_else(|| {
            format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")
        })?;
    let said = str_at(wanted, "/namespace");
    let place = match (definition.namespaced, said) {
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
        }
        (true, "") if namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .into(),
            );
        }
        (true, "") => namespace,
        (true, said) => said,
    };
    let (stored_group, _, plural) = definition.storage();
    let name = str_at(wanted, "/name");
    let found = if !name.is_empty() {
        let found = registry.peek(stored_group, plural, place, name).await.map_err(|error| error.message)?;
        found.into_iter().collect()
    } else {
        let selector = LabelSelector::from_object(&wanted["selector"])
            .ok_or("the selector of paramRef cannot be read")?;
        let place = definition.namespaced.then_some(place);
        let mut all = registry.all(stored_group, plural, place).await.map_err(|error| error.message)?;
        all.retain(|object| selector.matches(&object.labels));
        all
    };
    if found.is_empty() && wanted["parameterNotFoundAction"] != "Allow" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found.iter().map(|object| Some(present(definition, object).value())).collect())
}
