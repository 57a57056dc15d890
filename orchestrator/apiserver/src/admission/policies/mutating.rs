//! MutatingAdmissionPolicy: its expressions give what is merged into the object, or patches of it.

use std::sync::Arc;

use async_trait::async_trait;
use penstock_expressions::Budget;
use penstock_schema::{Issue, PatchError, Type, TypeRef, check, defaults, ownership, patch};
use serde_json::Value;

use super::compiled::Mutation;
use super::{Invocation, Library, Plan, Role, Scene, conditions_hold, explained, plan};
use crate::admission::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::generic::{from_stored, to_stored};

pub(crate) struct MutatingPolicies(pub(crate) Arc<Library>);

#[async_trait]
impl Plugin for MutatingPolicies {
    async fn admit(
        &self,
        registry: &Registry,
        a: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        let bound = self.0.of(Role::Mutating);
        if a.operation == Operation::Delete {
            return Ok(());
        }
        let Some(plan) = plan(registry, a, Some(object), &bound).await? else { return Ok(()) };
        let mut errors: Vec<String> = Vec::new();
        for trouble in plan.troubles.iter().filter(|trouble| trouble.policy.fails) {
            errors.push(match &trouble.binding {
                Some(binding) => denied(&trouble.policy.name, &binding.name, &trouble.message),
                None => format!("policy {:?} denied request: {}", trouble.policy.name, trouble.message),
            });
        }
        invoke(registry, a, object, &plan, &mut errors);
        if errors.is_empty() {
            return Ok(());
        }
        let mut error = a.forbidden("admission request denied by policy");
        error.message.clone_from(&errors[0]);
        error.reason = "Invalid";
        Err(errors.into_iter().fold(error, |error, message| error.with_cause("", message, None)))
    }
}

fn denied(policy: &str, binding: &str, why: &str) -> String {
    format!("policy '{policy}' with binding '{binding}' denied request: {why}")
}

/// Every policy once, and those that ask for it once more when a later one changed what they saw.
fn invoke(
    registry: &Registry,
    a: &Attributes<'_>,
    object: &mut Value,
    plan: &Plan,
    errors: &mut Vec<String>,
) {
    let mut last_change = None;
    for (index, invocation) in plan.invocations.iter().enumerate() {
        if change(registry, a, object, invocation, &plan.namespace, errors) {
            last_change = Some(index);
        }
    }
    let again = plan.invocations.iter().enumerate().filter(|(index, invocation)| {
        invocation.policy.reinvoked && last_change.is_some_and(|changed| changed > *index)
    });
    for (_, invocation) in again {
        change(registry, a, object, invocation, &plan.namespace, errors);
    }
}

/// Applies one policy; whether it changed anything. What goes wrong leaves the object as the mutation before left it.
fn change(
    registry: &Registry,
    a: &Attributes<'_>,
    object: &mut Value,
    invocation: &Invocation,
    namespace: &Value,
    errors: &mut Vec<String>,
) -> bool {
    let policy = &invocation.policy;
    let mut report = |why: String| {
        if policy.fails {
            errors.push(denied(&policy.name, &invocation.binding.name, &why));
        }
    };
    if let Some(broken) = &policy.broken {
        report(broken.clone());
        return false;
    }
    {
        let scene = Scene::of(a, invocation, Some(object));
        let variables = scene.variables(registry, a, invocation, namespace);
        match conditions_hold(policy, &variables, &mut Budget::default()) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(why) => {
                report(why);
                return false;
            }
        }
    }
    let before = object.clone();
    let definition = invocation.version.as_deref().unwrap_or(a.definition);
    for mutation in &policy.mutations {
        let scene = Scene::of(a, invocation, Some(object));
        let variables = scene.variables(registry, a, invocation, namespace);
        match patched(mutation, &scene, &variables, &definition.ty) {
            Ok(new) if invocation.version.is_some() => {
                *object = from_stored(a.definition, to_stored(definition, new))
            }
            Ok(new) => *object = new,
            Err(why) => report(why),
        }
    }
    *object != before
}

fn patched<'v>(
    mutation: &'v Mutation,
    scene: &Scene,
    variables: &penstock_expressions::Variables<'v>,
    ty: &TypeRef,
) -> Result<Value, String> {
    let (Mutation::Apply(program) | Mutation::JsonPatch(program)) = mutation;
    let given =
        program.evaluate(variables, &mut Budget::default()).map_err(|error| explained(program, &error))?;
    let given = given.to_json().map_err(|error| format!("type mismatch: {error}"))?;
    let mut new = match mutation {
        Mutation::Apply(_) => {
            let faults = ownership::walk::faults_of(ty, &given);
            if let Some(fault) = faults.first() {
                return Err(format!(
                    "error applying patch: failed to convert patch object to typed object: {fault}"
                ));
            }
            let mut atomics = Vec::new();
            find_atomics(ty, &Type::Struct(ty.id()), &given, "", &mut atomics);
            if !atomics.is_empty() {
                return Err(format!(
                    "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
                    atomics.join(", ")
                ));
            }
            ownership::combine::merge(ty, &scene.object, &given)
        }
        Mutation::JsonPatch(_) => match patch::json(&scene.object, &given) {
            Ok(new) => new,
            // A test that fails leaves the object as it is.
            Err(PatchError::TestFailed { .. }) => return Ok(scene.object.clone()),
            Err(error) => return Err(format!("JSON Patch: {error}")),
        },
    };
    let issues = check::conform(ty, &mut new).map_err(|error| format!("error applying patch: {error}"))?;
    if let Some(Issue::Unknown { path }) = issues.iter().find(|issue| matches!(issue, Issue::Unknown { .. }))
    {
        return Err(format!("error applying patch: .{path}: field not declared in schema"));
    }
    defaults::apply(ty, &mut new);
    Ok(new)
}

/// What a configuration says of lists, maps and structs that are replaced as a whole: it would remove what it does not
/// name.
fn find_atomics(ty: &TypeRef, place: &Type, value: &Value, path: &str, found: &mut Vec<String>) {
    let (Type::Struct(id), Value::Object(fields)) = (place.bare(), value) else { return };
    let def = ty.schema().get(*id);
    if def.atomic {
        found.push(path.to_owned());
    }
    for (name, value) in fields {
        let Some(field) = def.field(name) else { continue };
        let path = format!("{path}.{name}");
        let keyed =
            !matches!(field.list, penstock_schema::ListKind::Unset | penstock_schema::ListKind::Atomic)
                || !field.patch_merge_key.is_empty();
        match (field.ty.bare(), value) {
            (Type::List(_) | Type::WrappedList(_), Value::Array(_)) if !keyed => found.push(path),
            (Type::List(item) | Type::WrappedList(item), Value::Array(items)) => {
                for (index, item_value) in items.iter().enumerate() {
                    find_atomics(ty, item, item_value, &format!("{path}[{index}]"), found);
                }
            }
            (Type::Map(_), Value::Object(_)) if field.list == penstock_schema::ListKind::Atomic => {
                found.push(path)
            }
            (inner, value) => find_atomics(ty, inner, value, &path, found),
        }
    }
}
