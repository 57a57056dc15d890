//! What a container, a pod or a runtime asks of a node.

use std::collections::BTreeSet;

use penstock_schema::Quantity;
use serde_json::{Map, Value};

use crate::error::FieldError;
use crate::registry::field_rules::quantity;
use crate::registry::kinds::rules::NOT_NEGATIVE;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

/// What a container may ask for by a name without a domain, besides huge pages.
const STANDARD: &[&str] = &["cpu", "ephemeral-storage", "memory"];
/// Names without a domain that mean something anywhere.
const KNOWN: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];

pub(crate) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Known to the cluster itself rather than to a driver.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_none()
}

/// Amounts by name, as `limits` of nothing else (an overhead).
pub(crate) fn validate_amounts(amounts: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(map) = amounts.as_object() {
        for (name, amount) in map {
            one_amount(name, amount, &format!("{path}.limits[{name}]"), errors);
        }
    }
}

/// `resources` of a container; `claims` are the names of the pod's.
pub(super) fn validate(resources: &Value, path: &str, claims: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    let empty = Map::new();
    let list = |field: &str| resources[field].as_object().unwrap_or(&empty);
    let (limits, requests) = (list("limits"), list("requests"));
    for (name, amount) in limits {
        one_amount(name, amount, &format!("{path}.limits[{name}]"), errors);
    }
    for (name, amount) in requests {
        one_amount(name, amount, &format!("{path}.requests[{name}]"), errors);
        let may_overcommit = is_native(name) && !is_huge_page(name);
        let Some(limit) = limits.get(name) else {
            if !may_overcommit {
                let why = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(format!("{path}.limits"), why));
            }
            continue;
        };
        let (Some(asked), Some(most)) = (quantity(amount), quantity(limit)) else { continue };
        let told = limit.as_str().unwrap_or_default();
        if asked != most && !may_overcommit {
            let why = format!("must be equal to {name} limit of {told}");
            errors.push(FieldError::invalid(format!("{path}.requests"), amount.clone(), why));
        } else if asked > most {
            let why = format!("must be less than or equal to {name} limit of {told}");
            errors.push(FieldError::invalid(format!("{path}.requests"), amount.clone(), why));
        }
    }
    let mut all = limits.keys().chain(requests.keys());
    if all.clone().any(|name| is_huge_page(name))
        && !all.any(|name| matches!(name.as_str(), "cpu" | "memory"))
    {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    claimed(items_at(resources, "/claims"), &format!("{path}.claims"), claims, errors);
}

/// What a resource may be called; `of_container` where only what containers can ask for is meant.
pub(crate) fn name_errors(name: &str, of_container: bool, at: &str, errors: &mut Vec<FieldError>) {
    let mut refuse = |why: &str| errors.push(FieldError::invalid(at, name, why));
    if let Some(why) = names::qualified_name(name) {
        refuse(&why);
    } else if !name.contains('/') && !is_huge_page(name) {
        if !KNOWN.contains(&name) {
            refuse("must be a standard resource type or fully qualified");
        }
        if of_container && !STANDARD.contains(&name) {
            refuse("must be a standard resource for containers");
        }
    } else if of_container && !is_native(name) && !is_extended(name) {
        refuse("doesn't follow extended resource name standard");
    }
}

fn one_amount(name: &str, amount: &Value, at: &str, errors: &mut Vec<FieldError>) {
    name_errors(name, true, at, errors);
    let Some(given) = quantity(amount) else { return };
    if given < Quantity::ZERO {
        errors.push(FieldError::invalid(at, amount.clone(), NOT_NEGATIVE));
    }
    let is_whole = given.nanos() % 1_000_000_000 == 0;
    if is_extended(name) && !is_whole {
        errors.push(FieldError::invalid(at, amount.clone(), "must be an integer"));
    }
    if let Some(size) = name.strip_prefix("hugepages-")
        && !is_multiple(given, size)
    {
        let told = amount.as_str().unwrap_or_default();
        let why = format!("{told} is not positive integer multiple of {name}");
        errors.push(FieldError::invalid(at, amount.clone(), why));
    }
}

/// Whether an amount of huge pages is so many whole pages of `size` (`2Mi`).
fn is_multiple(amount: Quantity, size: &str) -> bool {
    Quantity::parse(size).is_some_and(|page| page > Quantity::ZERO && amount.nanos() % page.nanos() == 0)
}

/// Claims of a container are the pod's, each once.
fn claimed(claims: &[Value], path: &str, known: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let at = format!("{path}[{i}]");
        let (name, request) = (str_at(claim, "/name"), str_at(claim, "/request"));
        if name.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        if !request.is_empty()
            && let Some(why) = names::label(request)
        {
            errors.push(FieldError::invalid(format!("{at}.request"), request, why));
        }
        let whole_is_taken = seen.contains(&(name, ""));
        let part_is_taken = request.is_empty() && seen.iter().any(|(taken, _)| *taken == name);
        if whole_is_taken || part_is_taken || !seen.insert((name, request)) {
            let shown = if request.is_empty() || whole_is_taken {
                name.to_owned()
            } else {
                format!("{name}/{request}")
            };
            errors.push(FieldError::duplicate(at.as_str(), shown));
        }
        if !known.contains(name) {
            let mut error = FieldError::not_found(at, name);
            error.detail = "must be one of the names in pod.spec.resourceClaims".into();
            match known.len() {
                0 => error.detail.push_str(" which is empty"),
                _ => {
                    let listed: Vec<&str> = known.iter().copied().collect();
                    error.detail.push_str(&format!(": {}", listed.join(", ")));
                }
            }
            errors.push(error);
        }
    }
}

/// `spec.resources`: what the pod asks for as a whole.
pub(super) fn of_pod(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let resources = &spec["resources"];
    if resources.is_null() {
        return;
    }
    let at = format!("{path}.resources");
    if spec.pointer("/os/name").is_some_and(|name| name == "windows") {
        errors.push(FieldError::forbidden(at, "may not be set for a windows pod"));
        return;
    }
    if !resources["claims"].is_null() {
        let why = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(format!("{at}.claims"), why));
    }
    for list in ["limits", "requests"] {
        for name in resources[list].as_object().into_iter().flatten().map(|(name, _)| name) {
            if !matches!(name.as_str(), "cpu" | "memory") && !is_huge_page(name) {
                let at = format!("{at}.{list}[{name}]");
                errors.push(FieldError::not_supported(at, name.as_str(), &["cpu", "hugepages-", "memory"]));
            }
        }
    }
    let mut of_amounts = Vec::new();
    validate(resources, &at, &BTreeSet::new(), &mut of_amounts);
    errors.extend(of_amounts.into_iter().filter(|it| {
        !it.path.contains(".claims") && it.detail != "must be a standard resource for containers"
    }));
    for (i, container) in items_at(spec, "/containers").iter().enumerate() {
        for (name, limit) in container["resources"]["limits"].as_object().into_iter().flatten() {
            let whole = &resources["limits"][name.as_str()];
            if let (Some(part), Some(most)) = (quantity(limit), quantity(whole))
                && part > most
            {
                let why = format!(
                    "must be less than or equal to pod limits of {}",
                    whole.as_str().unwrap_or_default()
                );
                let at = format!("{at}.containers[{i}][{name}].limits");
                errors.push(FieldError::invalid(at, limit.clone(), why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(resources: Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate(&resources, "r", &BTreeSet::from(["a"]), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_upstream_takes_is_taken() {
        for good in [
            json!({}),
            json!({"limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1G", "hugepages-2Mi": "4Mi"}}),
            json!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}}),
            json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}, "claims": [{"name": "a", "request": "x"}, {"name": "a", "request": "y"}]}),
        ] {
            assert_eq!(told(good.clone()), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn every_amount_that_is_none_is_told() {
        for (bad, start) in [
            (
                json!({"limits": {"cpu": "-1"}}),
                "r.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (
                json!({"limits": {"storage": "1"}}),
                "r.limits[storage]: Invalid value: \"storage\": must be a standard resource for containers",
            ),
            (json!({"limits": {"hugepages-2Mi": "4Mi"}}), "r: Forbidden: HugePages require cpu or memory"),
            (
                json!({"limits": {"cpu": "1", "hugepages-2Mi": "3Mi"}}),
                "r.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple",
            ),
            (
                json!({"requests": {"example.com/gpu": "1"}}),
                "r.limits: Required value: Limit must be set for non overcommitable",
            ),
            (
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
                "r.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                json!({"limits": {"example.com/gpu": "500m"}}),
                "r.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer",
            ),
            (json!({"claims": [{"name": "b"}]}), "r.claims[0]: Not found: \"b\""),
            (json!({"claims": [{"name": "a"}, {"name": "a"}]}), "r.claims[1]: Duplicate value: \"a\""),
        ] {
            let found = told(bad.clone());
            assert_eq!(found.len(), 1, "{bad}: {found:?}");
            assert!(found[0].starts_with(start), "{bad}: {found:?}");
        }
    }
}
