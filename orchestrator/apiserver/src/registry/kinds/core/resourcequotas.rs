//! ResourceQuota: how much of everything a namespace may hold.

use std::collections::BTreeSet;

use penstock_quota::{is_integer, is_name, is_scope, may_scope, scopes_of};
use penstock_schema::Quantity;
use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::kinds::rules::{IMMUTABLE, NOT_NEGATIVE};
use crate::registry::meta::names;
use crate::registry::object::items_at;
use crate::registry::strategy::Strategy;
use crate::tables::core::RESOURCE_QUOTAS;

const SCOPES: &str = "spec.scopes";
const EXPRESSIONS: &str = "spec.scopeSelector.matchExpressions";
/// Scopes that no object can be in both of.
const OPPOSITES: &[[&str; 2]] = &[["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
/// Scopes that an object is in or not: there is no value to compare.
const WITHOUT_VALUES: &[&str] =
    &["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "ResourceQuota", "resourcequotas")
        .columns(RESOURCE_QUOTAS)
        .short(&["quota"])
        .returns_deleted()
        .subresources(&[STATUS])
        .strategy(ResourceQuota)
}

struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_amounts(new, "spec", "hard", &mut errors);
        validate_scopes(new, &mut errors);
        validate_selector(new, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let scopes =
            |quota| items_at(quota, "/spec/scopes").iter().map(Value::to_string).collect::<BTreeSet<_>>();
        if scopes(new) == scopes(old) {
            return Vec::new();
        }
        vec![FieldError::invalid(SCOPES, new["spec"]["scopes"].clone(), IMMUTABLE)]
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_amounts(new, "status", "hard", &mut errors);
        validate_amounts(new, "status", "used", &mut errors);
        errors
    }
}

fn validate_amounts(quota: &Value, part: &str, field: &str, errors: &mut Vec<FieldError>) {
    for (name, amount) in quota[part][field].as_object().into_iter().flatten() {
        let path = format!("{part}.{field}[{name}]");
        if let Some(why) = names::qualified_name(name) {
            errors.push(FieldError::invalid(path, name.clone(), why));
            continue;
        }
        if !name.contains('/') && !is_name(name) {
            let standard = "must be a standard resource type or fully qualified";
            errors.push(FieldError::invalid(path.clone(), name.clone(), standard));
            errors.push(FieldError::invalid(
                path.clone(),
                name.clone(),
                "must be a standard resource for quota",
            ));
        }
        let Some(quantity) = amount.as_str().and_then(Quantity::parse) else { continue };
        if quantity < Quantity::ZERO {
            errors.push(FieldError::invalid(path.clone(), amount.clone(), NOT_NEGATIVE));
        }
        if !is_integer(name, quantity) {
            errors.push(FieldError::invalid(path, amount.clone(), "must be an integer"));
        }
    }
}

fn validate_scopes(quota: &Value, errors: &mut Vec<FieldError>) {
    let said = &quota["spec"]["scopes"];
    let scopes: Vec<&str> = items_at(quota, "/spec/scopes").iter().filter_map(Value::as_str).collect();
    let mut refuse = |why: &str| errors.push(FieldError::invalid(SCOPES, said.clone(), why));
    for scope in &scopes {
        if !is_scope(scope) {
            refuse("unsupported scope");
        }
        for _ in bounded_beyond(quota, scope) {
            refuse("unsupported scope applied to resource");
        }
    }
    for _ in OPPOSITES.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope))) {
        refuse("conflicting scopes");
    }
}

/// Names the quota bounds whose objects the scope does not tell apart.
fn bounded_beyond<'a>(quota: &'a Value, scope: &'a str) -> impl Iterator<Item = &'a String> {
    let names = quota["spec"]["hard"].as_object().into_iter().flatten().map(|(name, _)| name);
    names.filter(move |name| is_scope(scope) && is_name(name) && !may_scope(scope, name))
}

fn validate_selector(quota: &Value, errors: &mut Vec<FieldError>) {
    let selector = quota["spec"].get("scopeSelector").cloned().unwrap_or_default();
    let only_selected = serde_json::json!({"spec": {"scopeSelector": selector}});
    let requirements = scopes_of(&only_selected);
    for it in &requirements {
        let mut refuse = |field: &str, value: Value, why: &str| {
            errors.push(FieldError::invalid(format!("{EXPRESSIONS}{field}"), value, why));
        };
        if !is_scope(&it.scope) {
            refuse(".scopeName", it.scope.clone().into(), "unsupported scope");
        }
        for _ in bounded_beyond(quota, &it.scope) {
            refuse("", selector.clone(), "unsupported scope applied to resource");
        }
        if WITHOUT_VALUES.contains(&&*it.scope) && it.operator != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                ResourceQuotaScopeCrossNamespacePodAffinity";
            refuse(".operator", it.operator.clone().into(), why);
        }
        match &*it.operator {
            "In" | "NotIn" if it.values.is_empty() => errors.push(FieldError::required(
                format!("{EXPRESSIONS}.values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if it.values.is_empty() => {}
            "Exists" | "DoesNotExist" => refuse(
                ".values",
                it.values.clone().into(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            other => refuse(".operator", other.into(), "not a valid selector operator"),
        }
    }
    let named = |scope: &&str| requirements.iter().any(|it| it.scope == *scope);
    for _ in OPPOSITES.iter().filter(|pair| pair.iter().all(&named)) {
        errors.push(FieldError::invalid(SCOPES, quota["spec"]["scopes"].clone(), "conflicting scopes"));
    }
}
