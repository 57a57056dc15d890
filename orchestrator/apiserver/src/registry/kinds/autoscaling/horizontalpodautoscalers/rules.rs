//! What an autoscaler's spec must keep.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at, quantity, within};
use crate::registry::kinds::rules::pod_spec::resources;
use crate::registry::kinds::rules::shapes::NOT_BELOW_ZERO;
use crate::registry::meta::names;
use crate::registry::object::str_at;

/// Rules of both versions.
pub(super) const RULES: &[Rule] = &[
    at("spec.minReplicas", Check::AtLeast(1)),
    at("spec", Check::Judge(order)),
    within(
        "spec",
        &[within("scaleTargetRef", REFERENCE), at("scaleTargetRef", Check::Judge(target_version))],
    ),
    at("spec.metrics[]", Check::Judge(metric)),
    within("spec.behavior.scaleUp", SCALING),
    within("spec.behavior.scaleDown", SCALING),
];

pub(super) const STATUS_RULES: &[Rule] =
    &[at("status.currentReplicas", NOT_BELOW_ZERO), at("status.desiredReplicas", NOT_BELOW_ZERO)];

const REFERENCE: &[Rule] = &[
    at("kind", Check::Required("")),
    at("kind", Check::Name(names::path_segment)),
    at("name", Check::Required("")),
    at("name", Check::Name(names::path_segment)),
];

const SCALING: &[Rule] = &[
    at("stabilizationWindowSeconds", Check::Judge(window)),
    at("selectPolicy", Check::OneOf(&["Disabled", "Max", "Min"])),
    at("policies", Check::Required("must specify at least one Policy")),
    at("policies[].type", Check::Required("")),
    at("policies[].type", Check::OneOf(&["Percent", "Pods"])),
    at("policies[].value", Check::Judge(positive)),
    at("policies[].periodSeconds", Check::Judge(period)),
    at("tolerance", Check::NotNegative),
];

/// Fields a metric may have, in the order in which the first one counts, with its type.
const METRICS: &[(&str, &str, &[Rule])] = &[
    (
        "object",
        "Object",
        &[
            within("describedObject", REFERENCE),
            within("metric", METRIC),
            at("target", Check::Judge(target)),
            at("target", Check::Judge(object_target)),
        ],
    ),
    (
        "external",
        "External",
        &[
            within("metric", METRIC),
            at("target", Check::Judge(target)),
            at("target", Check::Judge(external_target)),
        ],
    ),
    (
        "pods",
        "Pods",
        &[
            within("metric", METRIC),
            at("target", Check::Judge(target)),
            at("target.averageValue", Check::Given("must specify a positive target averageValue")),
        ],
    ),
    (
        "resource",
        "Resource",
        &[
            at("name", Check::Required("must specify a resource name")),
            at("target", Check::Judge(target)),
            at("target", Check::Judge(resource_target)),
        ],
    ),
    (
        "containerResource",
        "ContainerResource",
        &[
            at("name", Check::Required("must specify a resource name")),
            at("name", Check::Judge(resource_name)),
            at("container", Check::Required("must specify a container")),
            at("container", Check::Name(names::label)),
            at("target", Check::Judge(target)),
            at("target", Check::Judge(resource_target)),
        ],
    ),
];

const METRIC: &[Rule] = &[
    at("name", Check::Required("must specify a metric name")),
    at("name", Check::Name(names::path_segment)),
];

fn order(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let (min, max) = (spec["minReplicas"].as_i64(), spec["maxReplicas"].as_i64().unwrap_or(0));
    let at = format!("{path}.maxReplicas");
    if max < 1 {
        errors.push(FieldError::invalid(at.as_str(), max, "must be greater than or equal to 1"));
    }
    if min.is_some_and(|min| max < min) {
        errors.push(FieldError::invalid(at, max, "must be greater than or equal to `minReplicas`"));
    }
}

/// Everything that scales is in a group but for one kind.
fn target_version(reference: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let version = str_at(reference, "/apiVersion");
    let why = match version.matches('/').count() {
        0 if str_at(reference, "/kind") != "ReplicationController" => {
            "apiVersion must specify API group".to_owned()
        }
        0 | 1 => return,
        _ => format!("unexpected GroupVersion string: {version}"),
    };
    errors.push(FieldError::invalid(format!("{path}.apiVersion"), version, why));
}

fn metric(metric: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let said = str_at(metric, "/type");
    let at = format!("{path}.type");
    if said.is_empty() {
        errors.push(FieldError::required(at, "must specify a metric source type"));
    } else if !TYPES.contains(&said) {
        errors.push(FieldError::not_supported(at, said, &TYPES));
    }
    let given: Vec<_> = METRICS.iter().filter(|(field, ..)| !metric[*field].is_null()).collect();
    if let Some((field, _, rules)) = given.first() {
        field_rules::judge(rules, &metric[*field], &format!("{path}.{field}"), errors);
    }
    let expected = METRICS.iter().find(|(_, kind, _)| *kind == said).map(|(field, ..)| *field);
    if let Some(field) = expected.filter(|field| metric[*field].is_null()) {
        let why = "must populate information for the given metric source";
        errors.push(FieldError::required(format!("{path}.{field}"), why));
    }
    if given.len() != 1 {
        for (field, ..) in given.iter().filter(|(field, ..)| Some(*field) != expected) {
            let why = "must populate the given metric source only";
            errors.push(FieldError::forbidden(format!("{path}.{field}"), why));
        }
    }
}

fn target(target: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let said = str_at(target, "/type");
    if said.is_empty() {
        errors.push(FieldError::required(format!("{path}.type"), "must specify a metric target type"));
    } else if !["AverageValue", "Utilization", "Value"].contains(&said) {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(format!("{path}.type"), said, why));
    }
    for field in ["value", "averageValue"] {
        if quantity(&target[field]).is_some_and(|it| it <= penstock_schema::Quantity::ZERO) {
            errors.push(FieldError::invalid(
                format!("{path}.{field}"),
                target[field].clone(),
                "must be positive",
            ));
        }
    }
    if let Some(percent) = target["averageUtilization"].as_i64().filter(|percent| *percent < 1) {
        errors.push(FieldError::invalid(
            format!("{path}.averageUtilization"),
            percent,
            "must be greater than 0",
        ));
    }
}

fn object_target(target: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if target["value"].is_null() && target["averageValue"].is_null() {
        let why = "must set either a target value or averageValue";
        errors.push(FieldError::required(format!("{path}.averageValue"), why));
    }
}

fn external_target(target: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match (target["value"].is_null(), target["averageValue"].is_null()) {
        (true, true) => {
            let why = "must set either a target value for metric or a per-pod target";
            errors.push(FieldError::required(format!("{path}.averageValue"), why));
        }
        (false, false) => {
            let why = "may not set both a target value for metric and a per-pod target";
            errors.push(FieldError::forbidden(format!("{path}.value"), why));
        }
        _ => {}
    }
}

fn resource_target(target: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match (target["averageUtilization"].is_null(), target["averageValue"].is_null()) {
        (true, true) => {
            let why = "must set either a target raw value or a target utilization";
            errors.push(FieldError::required(format!("{path}.averageUtilization"), why));
        }
        (false, false) => {
            let why = "may not set both a target raw value and a target utilization";
            errors.push(FieldError::forbidden(format!("{path}.averageValue"), why));
        }
        _ => {}
    }
}

fn resource_name(name: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
        resources::name_errors(name, true, path, errors);
    }
}

fn window(seconds: &Value, path: &str, errors: &mut Vec<FieldError>) {
    bounded(seconds, 3600, "must be greater than or equal to zero", 0, path, errors);
}

fn period(seconds: &Value, path: &str, errors: &mut Vec<FieldError>) {
    bounded(seconds, 1800, "must be greater than zero", 1, path, errors);
}

fn positive(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    bounded(value, i64::MAX, "must be greater than zero", 1, path, errors);
}

fn bounded(value: &Value, max: i64, below: &str, min: i64, path: &str, errors: &mut Vec<FieldError>) {
    match value.as_i64() {
        Some(n) if n < min => errors.push(FieldError::invalid(path, n, below)),
        Some(n) if n > max => {
            errors.push(FieldError::invalid(path, n, format!("must be less than or equal to {max}")));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(spec: Value) -> Vec<String> {
        let mut errors = Vec::new();
        field_rules::judge(RULES, &json!({"spec": spec}), "", &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn metrics_say_one_source_and_a_target() {
        let spec = |metric: Value| {
            json!({"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
                "metrics": [metric]})
        };
        let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}});
        assert_eq!(told(spec(json!({"type": "Resource", "resource": cpu}))), Vec::<String>::new());
        assert_eq!(
            told(spec(json!({"type": "Pods", "resource": cpu}))),
            ["spec.metrics[0].pods: Required value: must populate information for the given metric source"]
        );
        assert_eq!(
            told(spec(json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Value"}}}))),
            [
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization"
            ]
        );
    }

    #[test]
    fn the_target_has_a_group_unless_it_has_none() {
        let of = |version: &str, kind: &str| {
            told(
                json!({"maxReplicas": 1, "scaleTargetRef": {"apiVersion": version, "kind": kind, "name": "x"}}),
            )
        };
        assert_eq!(of("v1", "ReplicationController"), Vec::<String>::new());
        assert_eq!(
            of("v1", "Deployment"),
            ["spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group"]
        );
    }
}
