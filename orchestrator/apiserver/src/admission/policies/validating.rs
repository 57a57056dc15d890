//! ValidatingAdmissionPolicy: what its expressions do not hold for is refused, warned of, or noted.

use std::sync::Arc;

use async_trait::async_trait;
use penstock_expressions::{Budget, EvaluationError, Value as Term, Variables};
use serde_json::{Value, json};

use super::compiled::Validation;
use super::{Invocation, Library, Role, Scene, conditions_hold, explained, plan};
use crate::admission::expressions::message;
use crate::admission::{Attributes, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;

/// A value noted for the audit is cut to this.
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;
/// Under which failures of policies that ask for `Audit` are noted.
const FAILURE_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";

pub(crate) struct ValidatingPolicies(pub(crate) Arc<Library>);

/// Why a request is refused, and with what.
struct Refusal {
    message: String,
    reason: String,
}

/// What became of one expression that did not hold or has no result.
struct Failure {
    index: usize,
    message: String,
    reason: String,
}

/// What one evaluation of a policy found.
#[derive(Default)]
struct Findings {
    failures: Vec<Failure>,
    annotations: Vec<(String, String)>,
    /// Annotations that could not be computed.
    refusals: Vec<String>,
}

#[async_trait]
impl Plugin for ValidatingPolicies {
    async fn validate(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let bound = self.0.of(Role::Validating);
        let Some(plan) = plan(registry, a, object, &bound).await? else { return Ok(()) };
        let mut refusals: Vec<Refusal> = Vec::new();
        for trouble in plan.troubles.iter().filter(|trouble| trouble.policy.fails) {
            let of_binding = trouble.binding.as_ref().map(|binding| binding.name.as_str());
            refusals.push(refusal(&trouble.policy.name, of_binding, &trouble.message, ""));
        }
        let mut notes: Vec<(String, Vec<String>)> = Vec::new();
        for invocation in &plan.invocations {
            let (policy, binding) = (&invocation.policy.name, &invocation.binding);
            let findings = findings_of(registry, a, object, invocation, &plan.namespace);
            for failure in findings.failures {
                if binding.asks_to("Deny") {
                    refusals.push(refusal(policy, Some(&binding.name), &failure.message, &failure.reason));
                }
                if binding.asks_to("Warn") {
                    a.context.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{}': {}",
                        binding.name, failure.message
                    ));
                }
                if binding.asks_to("Audit") {
                    let value = json!([{
                        "message": failure.message, "policy": policy, "binding": binding.name,
                        "expressionIndex": failure.index, "validationActions": binding.actions,
                    }]);
                    a.context.annotate(FAILURE_KEY, value.to_string());
                }
            }
            let errors = findings.refusals.iter();
            refusals.extend(errors.map(|error| refusal(policy, Some(&binding.name), error, "")));
            for (key, value) in findings.annotations {
                let key = format!("{policy}/{key}");
                match notes.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, values)) if values.contains(&value) => {}
                    Some((_, values)) => values.push(value),
                    None => notes.push((key, vec![value])),
                }
            }
        }
        for (key, values) in notes {
            a.context.annotate(key, values.join(", "));
        }
        match refusals.into_iter().next() {
            Some(first) => Err(refused(a, first)),
            None => Ok(()),
        }
    }
}

fn refusal(policy: &str, binding: Option<&str>, message: &str, reason: &str) -> Refusal {
    let message = match binding {
        Some(binding) => {
            format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}")
        }
        None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {message}"),
    };
    Refusal { message, reason: reason.to_owned() }
}

fn refused(a: &Attributes<'_>, refusal: Refusal) -> ApiError {
    let mut error = a.forbidden(&refusal.message).with_cause("", refusal.message, None);
    (error.code, error.reason) = match refusal.reason.as_str() {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    error
}

/// Evaluates one policy. Pure but for what `authorizer` is asked.
fn findings_of(
    registry: &Registry,
    a: &Attributes<'_>,
    object: Option<&Value>,
    invocation: &Invocation,
    namespace: &Value,
) -> Findings {
    let policy = &invocation.policy;
    let failed = |message: String| {
        let mut findings = Findings::default();
        if policy.fails {
            findings.failures.push(Failure { index: 0, message, reason: String::new() });
        }
        findings
    };
    if let Some(broken) = &policy.broken {
        return failed(broken.clone());
    }
    let scene = Scene::of(a, invocation, object);
    let variables = scene.variables(registry, a, invocation, namespace);
    match conditions_hold(policy, &variables, &mut Budget::default()) {
        Ok(true) => {}
        Ok(false) => return Findings::default(),
        Err(message) => return failed(message),
    }
    let mut findings = Findings::default();
    let mut budget = Budget::default();
    for (index, validation) in policy.validations.iter().enumerate() {
        match validation.expression.holds(&variables, &mut budget) {
            Ok(true) => {}
            Ok(false) => {
                let message = message_of(validation, &variables, &mut budget);
                findings.failures.push(Failure { index, message, reason: validation.reason.clone() });
            }
            Err(error) => {
                if policy.fails {
                    let message = explained(&validation.expression, &error);
                    findings.failures.push(Failure { index, message, reason: String::new() });
                }
                if error == EvaluationError::CostExceeded && budget.left() == 0 {
                    return findings;
                }
            }
        }
    }
    let mut budget = Budget::default();
    for (key, program) in &policy.annotations {
        match program.evaluate(&variables, &mut budget) {
            Ok(Term::String(value)) => {
                let value = value.trim();
                let end = value.floor_char_boundary(ANNOTATION_BYTES_MAX);
                if end > 0 {
                    findings.annotations.push((key.clone(), value[..end].to_owned()));
                }
            }
            Ok(_) => {}
            Err(error) if policy.fails => findings.refusals.push(explained(program, &error)),
            Err(_) => {}
        }
    }
    findings
}

/// What a validation says of itself: its expression's text, else its message, else the expression.
fn message_of<'v>(validation: &'v Validation, variables: &Variables<'v>, budget: &mut Budget) -> String {
    if let Some(text) = message(validation.message_expression.as_ref(), variables, budget) {
        return text;
    }
    if validation.message.is_empty() {
        return format!("failed expression: {}", validation.expression.source().trim());
    }
    validation.message.clone()
}
