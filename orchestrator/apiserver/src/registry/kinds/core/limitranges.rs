//! LimitRange: bounds and defaults for what containers of a namespace ask for.

use std::collections::BTreeSet;

use penstock_schema::Quantity;
use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Rule, at, is_empty, quantity, within};
use crate::registry::kinds::rules::pod_spec::resources::{self, is_huge_page};
use crate::registry::meta::names;
use crate::registry::object::str_at;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "LimitRange", "limitranges").short(&["limits"]).create_on_update().rules(RULES)
}

const RULES: &[Rule] = &[
    at("spec.limits[].type", Check::Judge(type_name)),
    at("spec.limits", Check::Unique(&["type"])),
    within("spec.limits[]", &[at("", Check::Judge(limit))]),
];

const AMOUNTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn type_name(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = value.as_str().unwrap_or_default();
    if let Some(why) = names::qualified_name(text) {
        errors.push(FieldError::invalid(path, text, why));
    } else if !text.contains('/') && !["Pod", "Container", "PersistentVolumeClaim"].contains(&text) {
        let why = "must be a standard limit type or fully qualified";
        errors.push(FieldError::invalid(path, text, why));
    }
}

fn limit(limit: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let of = str_at(limit, "/type");
    let mut resources = BTreeSet::new();
    for list in AMOUNTS {
        if of == "Pod" && list.starts_with("default") {
            if !is_empty(&limit[list]) {
                let why = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(format!("{path}.{list}"), why));
            }
            continue;
        }
        for (name, _) in limit[list].as_object().into_iter().flatten() {
            resources::name_errors(
                name,
                matches!(of, "Pod" | "Container"),
                &format!("{path}.{list}[{name}]"),
                errors,
            );
            resources.insert(name.as_str());
        }
    }
    let storage = |list: &str| limit[list]["storage"].is_null();
    if of == "PersistentVolumeClaim" && storage("min") && storage("max") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(format!("{path}.limits"), why));
    }
    for resource in resources {
        bounds(limit, of == "Pod", resource, path, errors);
    }
}

/// The amounts of one resource lie in order.
fn bounds(limit: &Value, of_pod: bool, resource: &str, path: &str, errors: &mut Vec<FieldError>) {
    let said = |list: &str| limit[list][resource].as_str().unwrap_or_default();
    let amount = |list: &str| {
        let is_ignored = of_pod && list.starts_with("default");
        quantity(&limit[list][resource]).filter(|_| !is_ignored)
    };
    // What is smaller, what is larger, the field to blame, and the words for both.
    let orders = [
        ("min", "max", "min", "min value", "is greater than max value"),
        ("min", "defaultRequest", "defaultRequest", "min value", "is greater than default request value"),
        ("defaultRequest", "max", "defaultRequest", "default request value", "is greater than max value"),
        (
            "defaultRequest",
            "default",
            "defaultRequest",
            "default request value",
            "is greater than default limit value",
        ),
        ("min", "default", "default", "min value", "is greater than default value"),
        ("default", "max", "default", "default value", "is greater than max value"),
    ];
    for (small, large, blamed, what, than) in orders {
        if let (Some(less), Some(more)) = (amount(small), amount(large))
            && less > more
        {
            let shown = if blamed == "default" {
                if small == "min" { said("min") } else { said("max") }
            } else {
                said(blamed)
            };
            let why = format!("{what} {} {than} {}", said(small), said(large));
            errors.push(FieldError::invalid(format!("{path}.{blamed}[{resource}]"), shown, why));
        }
    }
    let ratio_at = format!("{path}.maxLimitRequestRatio[{resource}]");
    if let Some(ratio) = amount("maxLimitRequestRatio") {
        let shown = said("maxLimitRequestRatio");
        if ratio < Quantity::count(1) {
            errors.push(FieldError::invalid(
                ratio_at.as_str(),
                shown,
                format!("ratio {shown} is less than 1"),
            ));
        }
        if let (Some(min), Some(max)) = (amount("min"), amount("max"))
            && min > Quantity::ZERO
        {
            let most = max.nanos() as f64 / min.nanos() as f64;
            if ratio.nanos() as f64 / 1e9 > most {
                let why = format!("ratio {shown} is greater than max/min = {most:.6}");
                errors.push(FieldError::invalid(ratio_at, shown, why));
            }
        }
    }
    let may_overcommit =
        (!resource.contains('/') || resource.contains("kubernetes.io/")) && !is_huge_page(resource);
    if let (Some(limit), Some(request)) = (amount("default"), amount("defaultRequest"))
        && !may_overcommit
        && limit != request
    {
        let why = format!(
            "default value {} must equal to defaultRequest value {} in {resource}",
            said("default"),
            said("defaultRequest")
        );
        errors.push(FieldError::invalid(
            format!("{path}.defaultRequest[{resource}]"),
            said("defaultRequest"),
            why,
        ));
    }
}
