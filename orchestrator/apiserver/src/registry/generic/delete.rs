//! Delete: at once, or marked and left to finalizers and agents; one object or a selection.

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use penstock_store::Revision;
use serde_json::{Value, json};

use super::update::is_released;
use super::{Stored, share};
use crate::admission::{Attributes, Operation, Rounds};
use crate::error::ApiError;
use crate::registry::context::{Context, Target};
use crate::registry::definition::Definition;
use crate::registry::object::{items_at, meta_mut, meta_str, set_resource_version};
use crate::registry::options::{DeleteOptions, ListOptions};
use crate::registry::strategy::Grace;
use crate::registry::{DeleteOutcome, ListResult, Registry};

const ATTEMPTS_MAX: usize = 32;
/// Objects of a collection deleted at once, so that the store makes many durable together.
const COLLECTION_DELETIONS_MAX: usize = 32;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

impl Registry {
    pub async fn delete(
        &self,
        context: &Context,
        definition: &Definition,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<DeleteOutcome, ApiError> {
        options.validate()?;
        let (namespace, name) = (target.namespace(), target.name());
        let dry_run = context.dry_run || options.dry_run;
        let mut present = Some(self.require(definition, namespace, name).await?);
        for attempt in 0..ATTEMPTS_MAX {
            let (old, revision) = match present.take() {
                Some(found) => found,
                None => self.require(definition, namespace, name).await?,
            };
            check_preconditions(definition, name, &old, options)?;
            if attempt == 0 {
                let attributes = Attributes {
                    operation: Operation::Delete,
                    definition,
                    subresource: "",
                    namespace,
                    name,
                    context,
                    old: Some(&old),
                    rounds: Rounds::default(),
                };
                self.admission.validate(self, &attributes, None).await?;
            }
            match plan_delete(definition, &old, options, Timestamp::now()) {
                Plan::Keep => {
                    return Ok(DeleteOutcome::Object { object: share(definition, &old), accepted: false });
                }
                Plan::Mark(mut marked) => {
                    let stored = if dry_run {
                        Stored::Done(revision)
                    } else {
                        self.put(definition, namespace, name, &mut marked, revision).await?
                    };
                    match stored {
                        Stored::Done(at) => {
                            set_resource_version(&mut marked, at.0);
                            let accepted = options.orphan_dependents == Some(false);
                            return Ok(DeleteOutcome::Object {
                                object: share(definition, &marked),
                                accepted,
                            });
                        }
                        Stored::Raced(record) => {
                            present = self.open_found(definition, record.as_ref()).await?;
                        }
                    }
                }
                Plan::Remove(mut last) => {
                    match self.remove_unless(dry_run, definition, target, revision).await? {
                        Stored::Done(at) => {
                            if !dry_run {
                                definition.strategy.after_delete(self, &last).await;
                            }
                            if definition.returns_deleted {
                                set_resource_version(&mut last, at.0);
                                return Ok(DeleteOutcome::Object {
                                    object: share(definition, &last),
                                    accepted: false,
                                });
                            }
                            return Ok(DeleteOutcome::Status(json!({
                                "kind": "Status",
                                "apiVersion": "v1",
                                "metadata": {},
                                "status": "Success",
                                "details": details(definition, &last),
                            })));
                        }
                        Stored::Raced(record) => {
                            present = self.open_found(definition, record.as_ref()).await?;
                        }
                    }
                }
            }
        }
        Err(ApiError::modified(&definition.group, &definition.plural, name))
    }

    async fn remove_unless(
        &self,
        dry_run: bool,
        definition: &Definition,
        target: &Target,
        revision: Revision,
    ) -> Result<Stored, ApiError> {
        if dry_run {
            return Ok(Stored::Done(revision));
        }
        self.remove(definition, target.namespace(), target.name(), revision).await
    }

    /// Deletes what the list options select; answers with what was there.
    pub async fn delete_collection(
        &self,
        context: &Context,
        definition: &Definition,
        target: &Target,
        options: &DeleteOptions,
        list: &ListOptions,
    ) -> Result<ListResult, ApiError> {
        options.validate()?;
        let result = self.list(context, definition, target, list).await?;
        let deletions = stream::iter(&result.items).map(Ok);
        deletions
            .try_for_each_concurrent(COLLECTION_DELETIONS_MAX, async |item| {
                let namespace = (!item.namespace.is_empty()).then_some(item.namespace.as_str());
                let one = Target::named(namespace, &item.name);
                let mut options = options.clone();
                // Never a namesake that was made after the list.
                options.precondition_uid.get_or_insert_with(|| item.uid.clone());
                match self.delete(context, definition, &one, &options).await {
                    Ok(_) => Ok(()),
                    Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
                    Err(e) => Err(e),
                }
            })
            .await?;
        Ok(result)
    }
}

fn details(definition: &Definition, object: &Value) -> Value {
    let mut details = json!({
        "name": meta_str(object, "name"),
        "kind": &definition.plural,
        "uid": meta_str(object, "uid"),
    });
    if !definition.group.is_empty() {
        details["group"] = definition.group.as_ref().into();
    }
    details
}

fn check_preconditions(
    definition: &Definition,
    name: &str,
    object: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let refuse = |what: &str, said: &str, is: &str| {
        ApiError::conflict(
            &definition.group,
            &definition.plural,
            name,
            format!("Precondition failed: {what} in precondition: {said}, {what} in object meta: {is}"),
        )
    };
    if let Some(uid) = &options.precondition_uid
        && uid != meta_str(object, "uid")
    {
        return Err(refuse("UID", uid, meta_str(object, "uid")));
    }
    if let Some(version) = &options.precondition_resource_version
        && version != meta_str(object, "resourceVersion")
    {
        return Err(refuse("ResourceVersion", version, meta_str(object, "resourceVersion")));
    }
    Ok(())
}

/// What a delete does to one object.
#[derive(Debug, PartialEq)]
pub(crate) enum Plan {
    /// Nothing: it is on its way out already.
    Keep,
    /// Store this form, marked for deletion.
    Mark(Value),
    /// Take it out of the store; this was its last form.
    Remove(Value),
}

/// Pure: decides from the object, the options and the time.
pub(crate) fn plan_delete(
    definition: &Definition,
    old: &Value,
    options: &DeleteOptions,
    now: Timestamp,
) -> Plan {
    let mut new = old.clone();
    let finalizers = finalizers_wanted(old, options);
    set_finalizers(&mut new, &finalizers);
    let marked_before = !meta_str(old, "deletionTimestamp").is_empty();
    let grace = match definition.strategy.grace(old, options.grace_period_seconds) {
        Grace::None => 0,
        Grace::Seconds(seconds) => seconds.max(0),
    };
    let grace_before =
        old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    if marked_before {
        if grace < grace_before {
            // A shorter wait replaces a longer one, counted from when deletion was first asked for.
            let asked_at = meta_str(old, "deletionTimestamp").parse::<Timestamp>().unwrap_or(now)
                - SignedDuration::from_secs(grace_before);
            mark(&mut new, asked_at + SignedDuration::from_secs(grace), grace);
        }
    } else {
        mark(&mut new, now + SignedDuration::from_secs(grace), grace);
        definition.strategy.mark_deleting(&mut new);
        let generation = new.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        if generation > 0
            && let Some(meta) = meta_mut(&mut new)
        {
            meta.insert("generation".into(), json!(generation + 1));
        }
    }
    if is_released(definition, &new) {
        // An object that goes at once is reported as it was, unless it had been marked before.
        return Plan::Remove(if marked_before { new } else { old.clone() });
    }
    if new == *old { Plan::Keep } else { Plan::Mark(new) }
}

fn mark(object: &mut Value, at: Timestamp, grace_seconds: i64) {
    if let Some(meta) = meta_mut(object) {
        meta.insert("deletionTimestamp".into(), super::time_text(at).into());
        meta.insert("deletionGracePeriodSeconds".into(), json!(grace_seconds));
    }
}

/// The propagation policy, as finalizers for the garbage collector to act on.
fn finalizers_wanted(old: &Value, options: &DeleteOptions) -> Vec<String> {
    let had: Vec<String> =
        items_at(old, "/metadata/finalizers").iter().filter_map(|f| f.as_str().map(str::to_string)).collect();
    let (orphan, foreground) = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some("Orphan"), _) => (true, false),
        (Some("Foreground"), _) => (false, true),
        (Some(_), _) => (false, false),
        (None, Some(true)) => (true, false),
        (None, Some(false)) => (false, false),
        (None, None) => (had.iter().any(|f| f == ORPHAN), had.iter().any(|f| f == FOREGROUND)),
    };
    let mut wanted: Vec<String> = had.into_iter().filter(|f| f != ORPHAN && f != FOREGROUND).collect();
    if orphan {
        wanted.push(ORPHAN.into());
    }
    if foreground {
        wanted.push(FOREGROUND.into());
    }
    wanted
}

fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    if let Some(meta) = meta_mut(object) {
        if finalizers.is_empty() {
            meta.remove("finalizers");
        } else {
            meta.insert("finalizers".into(), json!(finalizers));
        }
    }
}
