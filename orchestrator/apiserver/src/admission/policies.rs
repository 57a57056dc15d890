//! Admission policies: rules that users write in CEL, for requests that their bindings select.
//!
//! [`library`] keeps what is in force compiled, [`matching`] says which requests a policy is about, [`validating`] and
//! [`mutating`] are the two plugins. A request that no policy is about costs a look at the rules of each.

mod compiled;
mod library;
mod matching;
mod mutating;
mod parameters;
mod type_checking;
mod validating;
mod writes;

use std::sync::Arc;

use penstock_expressions::{Budget, EvaluationError, Program, Variables};
use serde_json::Value;

use super::expressions::{Subject, request_of};
use super::{Attributes, Operation, lifecycle};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::definition::Definition;
use crate::registry::generic::{from_stored, to_stored};
use compiled::{Binding, Policy};
use library::Bound;
use matching::{Labels, Matched, Matching, labels_of};

pub(crate) use compiled::Role;
pub(crate) use library::{Library, follow};
pub(crate) use mutating::MutatingPolicies;
pub(crate) use validating::ValidatingPolicies;
pub(crate) use writes::{errors_of_binding, errors_of_policy};

/// A policy that a request has to pass, with one of its parameters.
struct Invocation {
    policy: Arc<Policy>,
    binding: Arc<Binding>,
    params: Option<Value>,
    /// The version the policy sees the object in; `None` for the one it came in.
    version: Option<Arc<Definition>>,
}

/// A policy that cannot be put to use.
struct Trouble {
    policy: Arc<Policy>,
    binding: Option<Arc<Binding>>,
    message: String,
}

/// What a request has to pass.
struct Plan {
    invocations: Vec<Invocation>,
    troubles: Vec<Trouble>,
    /// The namespace object; null without one.
    namespace: Value,
}

/// Kinds that no policy can lock up, itself included.
fn is_exempt(a: &Attributes<'_>) -> bool {
    a.definition.group == library::GROUP
        && (a.definition.plural.ends_with("webhookconfigurations")
            || a.definition.plural.contains("admissionpolic"))
}

/// Which policies are about a request. `None` when there are none, which is said without waiting for anything.
async fn plan(
    registry: &Registry,
    a: &Attributes<'_>,
    object: Option<&Value>,
    bound: &[Bound],
) -> Result<Option<Plan>, ApiError> {
    if bound.is_empty() || is_exempt(a) {
        return Ok(None);
    }
    let others = || versions_of(registry, a);
    let concerned: Vec<(&Bound, Matched)> = bound
        .iter()
        .map(|bound| (bound, bound.policy.matching.by_resource(a, &others)))
        .filter(|(_, matched)| !matches!(matched, Matched::No))
        .collect();
    if concerned.is_empty() {
        return Ok(None);
    }
    let namespace = namespace_of(registry, a).await?;
    let labels = namespace_labels(a, object, &namespace);
    let selected = |matching: &Matching| {
        let namespace = if matching.asks_for_namespace() { labels.as_ref() } else { None };
        matching.by_labels(namespace, object, a.old)
    };
    let mut plan = Plan { invocations: Vec::new(), troubles: Vec::new(), namespace };
    for (bound, matched) in concerned {
        let policy = &bound.policy;
        match selected(&policy.matching) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(why) => {
                let message = format!("failed to configure policy: {why}");
                plan.troubles.push(Trouble { policy: policy.clone(), binding: None, message });
                continue;
            }
        }
        let version = match matched {
            Matched::As(version) => Some(version),
            _ => None,
        };
        for binding in &bound.bindings {
            let applies = match &binding.matching {
                None => Ok(true),
                Some(matching) => match matching.by_resource(a, &others) {
                    Matched::No => Ok(false),
                    _ => selected(matching),
                },
            };
            let params = match applies {
                Ok(false) => continue,
                Ok(true) => parameters::of(registry, policy, binding, a.namespace).await,
                Err(why) => Err(why),
            };
            match params {
                Ok(params) => plan.invocations.extend(params.into_iter().map(|params| Invocation {
                    policy: policy.clone(),
                    binding: binding.clone(),
                    params,
                    version: version.clone(),
                })),
                Err(why) => plan.troubles.push(Trouble {
                    policy: policy.clone(),
                    binding: Some(binding.clone()),
                    message: format!("failed to configure binding: {why}"),
                }),
            }
        }
    }
    Ok(Some(plan))
}

/// The other versions a resource is served in.
fn versions_of(registry: &Registry, a: &Attributes<'_>) -> Vec<Arc<Definition>> {
    if a.definition.subresource(a.subresource).is_some_and(|sub| !sub.kind.is_empty()) {
        // What is written is of a kind of its own.
        return Vec::new();
    }
    let (group, version, plural) = a.definition.storage();
    let same = |other: &Arc<Definition>| {
        other.storage() == (group, version, plural)
            && (other.version != a.definition.version || other.group != a.definition.group)
    };
    registry.definitions().into_iter().filter(same).collect()
}

/// The namespace of a request; null for what is in none.
async fn namespace_of(registry: &Registry, a: &Attributes<'_>) -> Result<Value, ApiError> {
    if a.namespace.is_empty() {
        return Ok(Value::Null);
    }
    lifecycle::namespace(registry, a.namespace).await
}

/// The labels that namespace selectors look at: of a namespace its own. `None` where there is nothing to select by.
fn namespace_labels(a: &Attributes<'_>, object: Option<&Value>, namespace: &Value) -> Option<Labels> {
    let is_namespace = a.definition.group.is_empty() && a.definition.plural == "namespaces";
    match (is_namespace, namespace.is_null()) {
        (true, _) if a.operation == Operation::Delete => a.old.map(labels_of),
        (true, _) => object.or(a.old).map(labels_of),
        (false, true) => None,
        (false, false) => Some(labels_of(namespace)),
    }
}

/// An object in the version a policy sees it in.
fn in_version(a: &Attributes<'_>, version: Option<&Arc<Definition>>, object: &Value) -> Value {
    match version {
        Some(version) => from_stored(version, to_stored(a.definition, object.clone())),
        None => object.clone(),
    }
}

/// What the expressions of one invocation see.
struct Scene {
    object: Value,
    old: Value,
    request: Value,
}

impl Scene {
    fn of(a: &Attributes<'_>, invocation: &Invocation, object: Option<&Value>) -> Self {
        let version = invocation.version.as_ref();
        let shown = |value: Option<&Value>| value.map_or(Value::Null, |value| in_version(a, version, value));
        Self {
            object: shown(object),
            old: shown(a.old),
            request: request_of(a, version.map_or(a.definition, |version| version)),
        }
    }

    fn variables<'v>(
        &'v self,
        registry: &Registry,
        a: &'v Attributes<'v>,
        invocation: &'v Invocation,
        namespace: &'v Value,
    ) -> Variables<'v> {
        let subject = Subject {
            object: &self.object,
            old: &self.old,
            request: &self.request,
            namespace,
            params: invocation
                .policy
                .param_kind
                .as_ref()
                .map(|_| invocation.params.as_ref().unwrap_or(&Value::Null)),
            attributes: a,
            authorizer: registry.admission().authorizer(),
        };
        let mut variables = subject.variables();
        for (name, program) in &invocation.policy.variables {
            variables = variables.with_composed(name, program);
        }
        variables
    }
}

/// Whether all conditions hold. One that does not outweighs those that fail.
fn conditions_hold<'v>(
    policy: &'v Policy,
    variables: &Variables<'v>,
    budget: &mut Budget,
) -> Result<bool, String> {
    let mut failed = None;
    for (_, condition) in &policy.conditions {
        match condition.holds(variables, budget) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => {
                failed.get_or_insert_with(|| explained(condition, &error));
            }
        }
    }
    failed.map_or(Ok(true), Err)
}

/// Why an expression has no result, in the words clients know.
fn explained(program: &Program, error: &EvaluationError) -> String {
    match error {
        EvaluationError::CostExceeded => {
            "validation failed due to running out of cost budget, no further validation rules will be run"
                .into()
        }
        other => format!("expression '{}' resulted in error: {other}", program.source()),
    }
}
