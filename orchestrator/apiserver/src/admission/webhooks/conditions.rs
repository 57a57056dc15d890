//! `matchConditions`: expressions that must hold for a webhook to be asked.

use penstock_expressions::{Budget, Program, Type};
use serde_json::Value;

use super::call::Invocation;
use crate::admission::Attributes;
use crate::admission::expressions::{Offers, Subject, compile, environment, request_of};
use crate::error::{ApiError, FieldError};
use crate::registry::Registry;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

/// What the conditions of one webhook may spend, as upstream.
const COST_MAX: u64 = 2_500_000;
const CONDITIONS_MAX: usize = 64;

/// The conditions of a webhook, or what is wrong with one that somebody stored who checks less.
pub(crate) struct Conditions(Vec<Result<Program, String>>);

// === impl Conditions ===

impl Conditions {
    pub(super) fn read(webhook: &Value) -> Self {
        Self(
            items_at(webhook, "/matchConditions").iter().map(|c| program(str_at(c, "/expression"))).collect(),
        )
    }

    /// Whether all hold. One that does not outweighs those that fail.
    pub(super) async fn hold(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        invocation: &Invocation,
        object: Option<&Value>,
    ) -> Result<Result<bool, String>, ApiError> {
        if self.0.is_empty() {
            return Ok(Ok(true));
        }
        let object = invocation.present(registry, a, object).await?.unwrap_or_default();
        let old = invocation.present(registry, a, a.old).await?.unwrap_or_default();
        let request = request_of(a, invocation.definition(a));
        let subject = Subject {
            object: &object,
            old: &old,
            request: &request,
            namespace: &Value::Null,
            params: None,
            attributes: a,
            authorizer: registry.admission().authorizer(),
        };
        let (variables, mut budget, mut failed) = (subject.variables(), Budget::new(COST_MAX), Vec::new());
        for condition in &self.0 {
            match condition.as_ref().map(|program| (program, program.holds(&variables, &mut budget))) {
                Ok((_, Ok(true))) => {}
                Ok((_, Ok(false))) => return Ok(Ok(false)),
                Ok((program, Err(error))) => {
                    failed.push(format!("expression '{}' resulted in error: {error}", program.source()));
                }
                Err(why) => failed.push(why.clone()),
            }
        }
        Ok(match &failed[..] {
            [] => Ok(true),
            [only] => Err(only.clone()),
            all => Err(format!("[{}]", all.join(", "))),
        })
    }
}

fn program(source: &str) -> Result<Program, String> {
    let offers = Offers { authorizer: true, ..Offers::default() };
    compile(source.trim(), &environment(offers, &Type::Dyn), &[Type::Bool])
}

/// What is wrong with the conditions a configuration has.
pub(crate) fn validate(webhook: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let conditions = items_at(webhook, "/matchConditions");
    if conditions.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(path, conditions.len(), CONDITIONS_MAX));
    }
    let mut seen = Vec::new();
    for (i, condition) in conditions.iter().enumerate() {
        let (name, source) = (str_at(condition, "/name"), str_at(condition, "/expression").trim());
        let at = format!("{path}[{i}].expression");
        if source.is_empty() {
            errors.push(FieldError::required(at, ""));
        } else if let Err(why) = program(source) {
            errors.push(FieldError::invalid(at, source, why));
        }
        let at = format!("{path}[{i}].name");
        if name.is_empty() {
            errors.push(FieldError::required(at, ""));
        } else if let Some(why) = names::qualified_name(name) {
            errors.push(FieldError::invalid(at, name, why));
        } else if seen.contains(&name) {
            errors.push(FieldError::duplicate(at, name));
        }
        seen.push(name);
    }
}
