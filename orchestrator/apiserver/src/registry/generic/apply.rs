//! Server-side apply: the present object with what a configuration says, and without what it no longer says.

use bytes::Bytes;
use penstock_schema::ownership::claims::{Conflict, Write};
use penstock_schema::ownership::managers::conflict_message;
use penstock_schema::ownership::{Element, Managed, Manager, Set, element, walk};
use penstock_schema::{DecodeError, Decoded, Issue, TypeRef, defaults, json, yaml};
use serde_json::{Value, json};

use super::create::settle_namespace;
use super::now_text;
use super::update::Race;
use crate::error::ApiError;
use crate::registry::context::{Context, FieldValidation, Target};
use crate::registry::definition::{Definition, api_version};
use crate::registry::meta::{self, ANNOTATIONS_BYTES_MAX};
use crate::registry::object::meta_str;
use crate::registry::ownership::{self, BEFORE_FIRST_APPLY, Kinds, Tracking};
use crate::registry::{Outcome, Registry, subresource};

/// How often an apply is tried again that found nothing and then something, or the other way round.
const ATTEMPTS_MAX: usize = 8;
/// The manager of `kubectl apply --server-side`, whose objects may have been applied by the client before.
const KUBECTL: &str = "kubectl";
/// Where a client that applies by itself keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Registry {
    pub(super) async fn apply(
        &self,
        context: &Context,
        definition: &Definition,
        target: &Target,
        patch: &Bytes,
    ) -> Result<Outcome, ApiError> {
        if target.subresource.as_deref() == Some("scale") {
            return subresource::scale::apply(self, context, definition, target, patch).await;
        }
        let config = Config::read(
            context,
            &definition.ty,
            [&*definition.group, &*definition.version, &*definition.kind],
            target,
            patch,
        )?;
        let (sub, changes) = (target.subresource.as_deref().unwrap_or_default(), Tracking::Given);
        let api_version = definition.api_version();
        let applied = |live: &Value, list: Option<&Value>| -> Result<Value, ApiError> {
            let now = now_text();
            let write = Write {
                versions: &Kinds::of(self, definition),
                filter: &ownership::filter(definition, sub),
                api_version: &api_version,
                now: &now,
            };
            let managed = owners_before(live, list, &write, sub)?;
            let mut new = config.applied_to(live, managed, &write, context, sub)?;
            defaults::apply(&definition.ty, &mut new);
            config.note_last_applied(context, &mut new);
            settle_namespace(definition, target, &mut new)?;
            check_name(target, &new)?;
            Ok(new)
        };
        let mut outcome = Err(ApiError::modified(&definition.group, &definition.plural, target.name()));
        for _ in 0..ATTEMPTS_MAX {
            outcome = self
                .modify(context, definition, target, Race::Rebases, changes, &mut |live, list| {
                    applied(live, list)
                })
                .await;
            let absent = outcome.as_ref().is_err_and(ApiError::is_not_found);
            if !absent || !sub.is_empty() || !definition.verbs.contains(&"create") {
                return outcome;
            }
            let nothing = json!({"apiVersion": api_version, "kind": &definition.kind});
            let object = applied(&nothing, None)?;
            config.check_absent(definition, target)?;
            outcome = self.create_object(context, definition, target, changes, object).await;
            if !outcome.as_ref().is_err_and(ApiError::is_already_exists) {
                return outcome;
            }
        }
        outcome
    }
}

/// What somebody applies: an object of which only what is given counts.
pub(crate) struct Config {
    object: Value,
}

// === impl Config ===

impl Config {
    /// Reads a body, YAML or JSON, that must be of the kind (group, version, kind) and hold nothing that cannot be
    /// owned.
    pub(crate) fn read(
        context: &Context,
        ty: &TypeRef,
        kind: [&str; 3],
        target: &Target,
        patch: &Bytes,
    ) -> Result<Config, ApiError> {
        let [group, version, kind] = kind;
        // As upstream names it in messages.
        let name = format!("{}/{}; {group}/{version}, Kind={kind}", target.namespace(), target.name());
        let Decoded { object, issues } = decoded(ty, patch).map_err(|error| match error {
            DecodeError::TooLarge { .. } => ApiError::request_too_large(error.to_string()),
            DecodeError::Type { path, expected, found, .. } => {
                untyped(&name, &[format!(".{path}: expected {}, got {found}", form_of(&expected))])
            }
            DecodeError::Form { path, reason } => untyped(&name, &[format!(".{path}: {reason}")]),
            other => ApiError::bad_request(format!("error decoding patch: {other}")),
        })?;
        let said = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        if said("apiVersion") != api_version(group, version) || said("kind") != kind {
            let (said_group, said_version) =
                said("apiVersion").split_once('/').unwrap_or(("", said("apiVersion")));
            return Err(ApiError::bad_request(format!(
                "invalid object type: {said_group}/{said_version}, Kind={}",
                said("kind")
            )));
        }
        if ownership::list_of(&object).is_some() {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let mut faults: Vec<String> = issues
            .iter()
            .filter_map(|issue| match issue {
                Issue::Unknown { path } => {
                    Some(format!("{}: field not declared in schema", elements_of(ty, &object, path)))
                }
                Issue::Duplicate { .. } => None,
            })
            .collect();
        faults.extend(walk::faults_of(ty, &object));
        if !faults.is_empty() {
            return Err(untyped(&name, &faults));
        }
        report_duplicates(context, patch, &issues)?;
        Ok(Config { object })
    }

    /// The object after `context`'s manager has applied this to `live`, with its owners.
    pub(crate) fn applied_to(
        &self,
        live: &Value,
        managed: Managed,
        write: &Write<'_>,
        context: &Context,
        subresource: &str,
    ) -> Result<Value, ApiError> {
        let manager = Manager::applying(context.manager(), subresource);
        let apply = |force| write.apply(&manager, managed.clone(), live, &self.object, force);
        let applied = apply(context.force).or_else(|conflicts| {
            let allowed = self.applied_by_client(live, write, context).unwrap_or_default();
            let left: Vec<Conflict> =
                conflicts.into_iter().filter(|conflict| !allowed.has(&conflict.path)).collect();
            if left.is_empty() { apply(true) } else { Err(left) }
        });
        let applied = applied.map_err(|conflicts| refused(&conflicts))?;
        let mut new = applied.object;
        ownership::put_list(&mut new, ownership::listed(applied.managed));
        Ok(new)
    }

    /// The fields that kubectl applied by itself before and that still are what it applied: those it may take over.
    fn applied_by_client(&self, live: &Value, write: &Write<'_>, context: &Context) -> Option<Set> {
        if context.manager() != KUBECTL {
            return None;
        }
        let text = live.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()?;
        let mut last: Value = serde_json::from_str(text).ok()?;
        if last.get("apiVersion")?.as_str()? != write.api_version {
            return None;
        }
        let (ty, live) = write.versions.convert(live, write.api_version)?;
        penstock_schema::check::conform(&ty, &mut last).ok()?;
        let found = walk::compare(&ty, &last, &live);
        let kept = walk::fields_of(&ty, &last);
        Some(kept.difference(&found.modified).difference(&found.added).difference(&found.removed))
    }

    /// Keeps the annotation in step that clients who apply by themselves go by, if it is there.
    fn note_last_applied(&self, context: &Context, new: &mut Value) {
        let is_there = |new: &Value| {
            let annotations = new.pointer("/metadata/annotations");
            annotations
                .and_then(|a| a.get(LAST_APPLIED))
                .and_then(Value::as_str)
                .is_some_and(|t| !t.is_empty())
        };
        if context.manager() != KUBECTL || !is_there(new) {
            return;
        }
        let mut config = self.object.clone();
        if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
        {
            annotations.remove(LAST_APPLIED);
        }
        let Some(annotations) = new.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
        else {
            return;
        };
        annotations.insert(LAST_APPLIED.into(), format!("{config}\n").into());
        if meta::annotation_bytes(annotations) > ANNOTATIONS_BYTES_MAX {
            annotations.remove(LAST_APPLIED);
        }
    }

    /// What the config says of an object that must be there already.
    fn check_absent(&self, definition: &Definition, target: &Target) -> Result<(), ApiError> {
        let uid = meta_str(&self.object, "uid");
        let conflict =
            |why: String| Err(ApiError::conflict(&definition.group, &definition.plural, target.name(), why));
        if !uid.is_empty() {
            return conflict(format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            ));
        }
        if !meta_str(&self.object, "resourceVersion").is_empty() {
            return Err(ApiError::modified(&definition.group, &definition.plural, target.name()));
        }
        Ok(())
    }
}

/// The owners an object has when it is applied to. What nobody has tracked so far gets an owner of its own.
fn owners_before(
    live: &Value,
    list: Option<&Value>,
    write: &Write<'_>,
    subresource: &str,
) -> Result<Managed, ApiError> {
    let managed = Managed::read(list)
        .map_err(|error| ApiError::new(500, "", format!("failed to decode managed fields: {error}")))?;
    if !managed.is_empty() {
        return Ok(managed);
    }
    let before = Manager::updating(BEFORE_FIRST_APPLY, write.api_version, subresource);
    let nothing = json!({});
    Ok(write.update(before, managed, &nothing, live))
}

/// JSON is read as such: it is what programs send, and quicker.
fn decoded(ty: &TypeRef, patch: &Bytes) -> Result<Decoded, DecodeError> {
    let is_json = patch.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    match is_json.then(|| json::decode(ty, patch)) {
        Some(Err(DecodeError::Syntax { .. })) | None => yaml::decode(ty, patch),
        Some(decoded) => decoded,
    }
}

/// Upstream's answer to a body that is well formed and of no use. It takes it for a failure of its own.
fn untyped(name: &str, faults: &[String]) -> ApiError {
    let listed = match faults {
        [only] => only.clone(),
        all => format!("errors:\n  {}", all.join("\n  ")),
    };
    ApiError::new(500, "", format!("failed to create typed patch object ({name}): {listed}"))
}

/// A type as upstream's checks name its form.
fn form_of(expected: &str) -> &str {
    match expected {
        "int32" | "int64" | "float64" => "numeric (int or float)",
        "bool" => "boolean",
        "string" | "[]uint8" => "string",
        list if list.starts_with("[]") => "list",
        map if map.starts_with("map[") => "map",
        other => other,
    }
}

/// Says which keys are there twice, with their lines where the document tells them.
fn report_duplicates(context: &Context, document: &Bytes, issues: &[Issue]) -> Result<(), ApiError> {
    let document = std::str::from_utf8(document).unwrap_or_default();
    let told = |issue: &Issue| {
        let key = issue.path().rsplit('.').next().unwrap_or_default();
        match yaml::line_of_duplicate(document, key) {
            Some(line) => format!("line {line}: key \"{key}\" already set in map"),
            None => issue.to_string(),
        }
    };
    let duplicates: Vec<&Issue> = issues.iter().filter(|it| matches!(it, Issue::Duplicate { .. })).collect();
    if duplicates.is_empty() {
        return Ok(());
    }
    match context.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => duplicates.into_iter().for_each(|issue| context.warn(told(issue))),
        FieldValidation::Strict => {
            let listed: Vec<String> = duplicates.into_iter().map(told).collect();
            return Err(ApiError::bad_request(format!("error strict decoding YAML: {}", listed.join(", "))));
        }
    }
    Ok(())
}

/// 409 with every conflict as a cause.
fn refused(conflicts: &[Conflict]) -> ApiError {
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|conflict| {
            json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {}", conflict.owner),
                "field": element::path_text(&conflict.path),
            })
        })
        .collect();
    let mut error = ApiError::new(409, "Conflict", conflict_message(conflicts));
    error.details = Some(json!({"causes": causes}));
    error
}

fn check_name(target: &Target, new: &Value) -> Result<(), ApiError> {
    let (named, asked) = (meta_str(new, "name"), target.name());
    if named.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({asked} based on URL) was undeterminable: name must be provided"
        )));
    }
    if named != asked {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({asked})"
        )));
    }
    Ok(())
}

/// A decoder's path (`spec.containers[0].imagee`) as paths of owned fields are written, items by their keys.
fn elements_of(ty: &TypeRef, object: &Value, path: &str) -> String {
    walk::named_path(ty, object, path).iter().map(Element::to_string).collect()
}
