//! Update: the one read-modify-write loop behind PUT, PATCH and the writable subresources.

use penstock_store::{Record, Revision};
use serde_json::{Value, json};

use super::body::Expected;
use super::{Stored, share};
use crate::admission::{Attributes, Operation, Rounds};
use crate::error::{ApiError, FieldError};
use crate::registry::context::{Body, Context, Target};
use crate::registry::definition::Definition;
use crate::registry::meta;
use crate::registry::object::{items_at, meta_mut, meta_str, set_resource_version};
use crate::registry::ownership::{self, Tracked, Tracking};
use crate::registry::{Outcome, Registry, subresource};

/// How often an update that named no version is tried again after losing a race.
const ATTEMPTS_MAX: usize = 32;

/// What a lost race means for an update whose object names a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Race {
    /// The caller meant that version.
    Conflicts,
    /// The wanted object is made from the present one, whose version it merely carries: make it again.
    Rebases,
}

/// Makes the wanted object from the present one, which stands beside the list of its owners.
pub(crate) type Wanted<'a> = dyn FnMut(&Value, Option<&Value>) -> Result<Value, ApiError> + Send + 'a;

impl Registry {
    /// PUT to an object or one of its subresources.
    pub async fn update(
        &self,
        context: &Context,
        definition: &Definition,
        target: &Target,
        body: Body,
    ) -> Result<Outcome, ApiError> {
        if target.subresource.as_deref() == Some("scale") {
            return subresource::scale::update(self, context, definition, target, &body).await;
        }
        let expected = Expected {
            ty: &definition.ty,
            group: &definition.group,
            version: &definition.version,
            kind: &definition.kind,
        };
        let mut object = expected.decode(context, &body)?;
        super::create::settle_namespace(definition, target, &mut object)?;
        let said = meta_str(&object, "name");
        if said.is_empty() {
            return Err(ApiError::bad_request("name must be provided"));
        }
        if said != target.name() {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({said}) does not match the name on the URL ({})",
                target.name()
            )));
        }
        penstock_schema::defaults::apply(&definition.ty, &mut object);
        let wanted = object.clone();
        let result = self
            .modify(context, definition, target, Race::Conflicts, Tracking::Changes, &mut |_, _| {
                Ok(wanted.clone())
            })
            .await;
        match result {
            Err(e) if e.is_not_found() && definition.create_on_update && target.subresource.is_none() => {
                if !meta_str(&object, "uid").is_empty() {
                    return Err(e);
                }
                set_resource_version(&mut object, 0);
                self.create_object(context, definition, target, Tracking::Changes, object).await
            }
            other => other,
        }
    }

    /// Reads, lets `wanted` say what should be there, and stores that if nothing changed in between. A version in
    /// the wanted object makes a lost race a conflict; without one the whole is tried again.
    ///
    /// It starts from what the watch cache has, since the store compares versions and tells of a newer one. The cache is
    /// never believed in a refusal: whatever does not end in a write is looked at again as the store has it.
    pub(crate) async fn modify(
        &self,
        context: &Context,
        definition: &Definition,
        target: &Target,
        race: Race,
        tracking: Tracking,
        wanted: &mut Wanted<'_>,
    ) -> Result<Outcome, ApiError> {
        let (namespace, name) = (target.namespace(), target.name());
        let known = if context.dry_run { None } else { self.known(definition, namespace, name)? };
        let mut may_be_old = known.is_some();
        let mut present = known;
        for _ in 0..ATTEMPTS_MAX {
            let (mut old, revision) = match present.take() {
                Some(found) => found,
                None => self.require(definition, namespace, name).await?,
            };
            let list = ownership::take_list(&mut old);
            let mut found = Present { old, list, revision };
            let attempt = self.modify_once(context, definition, target, tracking, &found, wanted).await;
            if std::mem::take(&mut may_be_old) && is_told_by_present(&attempt) {
                let newest = self.require(definition, namespace, name).await?;
                if newest.1 != revision {
                    present = Some(newest);
                    continue;
                }
            }
            match attempt? {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Unchanged => {
                    ownership::put_list(&mut found.old, found.list);
                    return Ok(Outcome { object: share(definition, &found.old), created: false });
                }
                Attempt::Raced { record, pinned: true } if race == Race::Conflicts => {
                    return Err(match record {
                        Some(_) => ApiError::modified(&definition.group, &definition.plural, name),
                        None => ApiError::not_found(&definition.group, &definition.plural, name),
                    });
                }
                Attempt::Raced { record, .. } => {
                    present = self.open_found(definition, record.as_ref()).await?;
                }
            }
        }
        Err(ApiError::modified(&definition.group, &definition.plural, name))
    }

    async fn modify_once(
        &self,
        context: &Context,
        definition: &Definition,
        target: &Target,
        tracking: Tracking,
        present: &Present,
        wanted: &mut Wanted<'_>,
    ) -> Result<Attempt, ApiError> {
        let Present { old, list: list_before, revision } = present;
        let revision = *revision;
        let (namespace, name) = (target.namespace(), target.name());
        let asked = target.subresource.as_deref().unwrap_or_default();
        // A Scale is admitted as one; what it says is a write of its object like any other.
        let sub = if asked == "scale" { "" } else { asked };
        let mut new = wanted(old, list_before.as_ref())?;
        let pinned = check_version(definition, name, &new, old, revision)?;
        restore_system_metadata(&mut new, old);
        let given = ownership::take_list(&mut new);
        prepare(context, definition, sub, &mut new, old);
        let list = match tracking {
            Tracking::Changes => {
                let (registry, before) = (self, list_before.as_ref());
                let (subresource, old, new) = (sub, Some(old), &new);
                Tracked { registry, context, definition, subresource, old, new, given, before }.list()
            }
            Tracking::Given => Some(given),
            Tracking::Kept => None,
        };
        let attributes = Attributes {
            operation: Operation::Update,
            definition,
            subresource: asked,
            namespace,
            name,
            context,
            old: Some(old),
            rounds: Rounds::default(),
        };
        if self.admission.admit(self, &attributes, &mut new).await? {
            restore_system_metadata(&mut new, old);
            prepare(context, definition, sub, &mut new, old);
        }
        // A node is where a pod goes, not what somebody wants of it.
        if definition.generation && !matches!(asked, "status" | "binding") {
            bump_generation(&mut new, old, definition.custom.is_none() || definition.isolates_status());
        }
        let mut errors = meta::validate_update(&new, old);
        if let Some(Some(list)) = &list {
            meta::managers::validate(list, &mut errors);
        }
        match sub {
            "" => {
                errors.extend(definition.validate_meta_kept(&new, old));
                errors.extend(definition.validate_update(&new, old));
            }
            "status" => errors.extend(definition.validate_status(&new, old)),
            other => errors.extend(subresource::validate(other, definition, &new, old)),
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(&definition.group, &definition.kind, name, errors));
        }
        self.admission.validate(self, &attributes, Some(&new)).await?;
        set_resource_version(&mut new, revision.0);
        let list_stays = list
            .as_ref()
            .is_none_or(|list| ownership::is_same_but_for_times(list.as_ref(), list_before.as_ref()));
        if list_stays && new == *old {
            return Ok(Attempt::Unchanged);
        }
        ownership::put_list(&mut new, list.unwrap_or_else(|| list_before.clone()));
        if is_released(definition, &new) {
            return self.finish_deletion(context, definition, target, new, revision, pinned).await;
        }
        let reservation = if sub.is_empty() {
            definition.strategy.reserve(self, context, &mut new, Some(old)).await?
        } else {
            None
        };
        let result = if context.dry_run {
            Ok(Stored::Done(revision))
        } else {
            self.put(definition, namespace, name, &mut new, revision).await
        };
        if let Some(reservation) = reservation {
            match (&result, context.dry_run) {
                (Ok(Stored::Done(_)), false) => reservation.commit(self).await,
                _ => reservation.cancel(self).await,
            }
        }
        match result? {
            Stored::Done(at) => {
                set_resource_version(&mut new, at.0);
                Ok(Attempt::Done(Outcome { object: share(definition, &new), created: false }))
            }
            Stored::Raced(record) => Ok(Attempt::Raced { record, pinned }),
        }
    }

    /// The update took away the last thing that held a dying object.
    async fn finish_deletion(
        &self,
        context: &Context,
        definition: &Definition,
        target: &Target,
        mut new: Value,
        revision: Revision,
        pinned: bool,
    ) -> Result<Attempt, ApiError> {
        if !context.dry_run {
            match self.remove(definition, target.namespace(), target.name(), revision).await? {
                Stored::Done(at) => set_resource_version(&mut new, at.0),
                Stored::Raced(record) => return Ok(Attempt::Raced { record, pinned }),
            }
            definition.strategy.after_delete(self, &new).await;
        }
        Ok(Attempt::Done(Outcome { object: share(definition, &new), created: false }))
    }
}

/// Restores what a write to `sub` does not reach.
fn prepare(context: &Context, definition: &Definition, sub: &str, new: &mut Value, old: &Value) {
    match sub {
        "" => {
            if definition.isolates_status() {
                copy_field(new, old, "status");
            }
            definition.strategy.prepare_update(context, new, old);
        }
        "status" => {
            isolate_status(new, old, definition.custom.is_some());
            definition.strategy.prepare_status(context, new, old);
        }
        other => subresource::prepare(other, definition, new, old),
    }
}

/// What a change starts from.
struct Present {
    /// Without its list of owners.
    old: Value,
    list: Option<Value>,
    revision: Revision,
}

enum Attempt {
    Done(Outcome),
    Unchanged,
    Raced { record: Option<Record>, pinned: bool },
}

/// Whether an attempt ended with what the present object says, without a write that compared its version. A failure of
/// the server's is none of that: the write may have taken place.
fn is_told_by_present(attempt: &Result<Attempt, ApiError>) -> bool {
    match attempt {
        Ok(Attempt::Unchanged) => true,
        Ok(Attempt::Done(_) | Attempt::Raced { .. }) => false,
        Err(error) => error.code < 500,
    }
}

/// Whether the caller named the version to replace; refuses a wrong one and a wrong uid.
fn check_version(
    definition: &Definition,
    name: &str,
    new: &Value,
    old: &Value,
    revision: Revision,
) -> Result<bool, ApiError> {
    let said = meta_str(new, "resourceVersion");
    let uid = meta_str(new, "uid");
    let conflict = |why: String| ApiError::conflict(&definition.group, &definition.plural, name, why);
    if !uid.is_empty() && uid != meta_str(old, "uid") {
        return Err(conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta_str(old, "uid")
        )));
    }
    if said.is_empty() || said == "0" {
        if !definition.unconditional_update {
            let error = FieldError::invalid(
                "metadata.resourceVersion",
                if said.is_empty() { json!(0) } else { said.into() },
                "must be specified for an update",
            );
            return Err(ApiError::invalid(&definition.group, &definition.kind, name, vec![error]));
        }
        return Ok(false);
    }
    match said.parse::<u64>() {
        Ok(n) if n == revision.0 => Ok(true),
        Ok(_) => Err(ApiError::modified(&definition.group, &definition.plural, name)),
        Err(_) => Err(ApiError::invalid(
            &definition.group,
            &definition.kind,
            name,
            vec![FieldError::invalid("metadata.resourceVersion", said, "invalid resource version")],
        )),
    }
}

/// What an updater cannot change is taken from the old object, as upstream fills it rather than refusing.
fn restore_system_metadata(new: &mut Value, old: &Value) {
    let Some(meta) = meta_mut(new) else { return };
    let old_meta = old.get("metadata");
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
    ] {
        match old_meta.and_then(|m| m.get(field)) {
            Some(v) => meta.insert(field.into(), v.clone()),
            None => meta.remove(field),
        };
    }
}

fn copy_field(new: &mut Value, old: &Value, field: &str) {
    if let Some(map) = new.as_object_mut() {
        match old.get(field) {
            Some(v) => map.insert(field.into(), v.clone()),
            None => map.remove(field),
        };
    }
}

/// A status write changes status and metadata (not owners), of custom resources the status alone; everything else stays.
fn isolate_status(new: &mut Value, old: &Value, custom: bool) {
    let mut kept = old.clone();
    match new.get("status") {
        Some(status) => kept["status"] = status.clone(),
        None => {
            if let Some(map) = kept.as_object_mut() {
                map.remove("status");
            }
        }
    }
    if custom {
        *new = kept;
        return;
    }
    let owners = old.pointer("/metadata/ownerReferences").cloned();
    if let Some(meta) = new.get("metadata") {
        kept["metadata"] = meta.clone();
    }
    if let Some(meta) = meta_mut(&mut kept) {
        match owners {
            Some(owners) => meta.insert("ownerReferences".into(), owners),
            None => meta.remove("ownerReferences"),
        };
    }
    *new = kept;
}

/// Anything but metadata counts, and the status where it is not its own (`except_status`).
fn bump_generation(new: &mut Value, old: &Value, except_status: bool) {
    let wanted = |v: &Value| -> serde_json::Map<String, Value> {
        let mut map = v.as_object().cloned().unwrap_or_default();
        map.remove("metadata");
        if except_status {
            map.remove("status");
        }
        map
    };
    if wanted(new) != wanted(old) {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        if let Some(meta) = meta_mut(new) {
            meta.insert("generation".into(), json!(generation + 1));
        }
    }
}

/// Marked for deletion, with no time left to wait and nothing that holds it.
pub(crate) fn is_released(definition: &Definition, object: &Value) -> bool {
    let grace = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    !meta_str(object, "deletionTimestamp").is_empty()
        && grace == 0
        && items_at(object, "/metadata/finalizers").is_empty()
        && !definition.strategy.holds(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_write_changes_only_status_and_metadata() {
        let old = json!({"metadata": {"name": "a"}, "spec": {"x": 1}, "status": {"y": 1}});
        let mut new =
            json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "spec": {"x": 2}, "status": {"y": 2}});
        let mut custom = new.clone();
        isolate_status(&mut new, &old, false);
        assert_eq!(
            new,
            json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "spec": {"x": 1}, "status": {"y": 2}})
        );
        isolate_status(&mut custom, &old, true);
        assert_eq!(custom, json!({"metadata": {"name": "a"}, "spec": {"x": 1}, "status": {"y": 2}}));
    }

    #[test]
    fn generation_follows_spec_and_not_labels() {
        let old = json!({"metadata": {"generation": 3}, "spec": {"x": 1}});
        let mut new = json!({"metadata": {"generation": 3, "labels": {"a": "b"}}, "spec": {"x": 1}});
        bump_generation(&mut new, &old, true);
        assert_eq!(new["metadata"]["generation"], 3);
        new["spec"]["x"] = json!(2);
        bump_generation(&mut new, &old, true);
        assert_eq!(new["metadata"]["generation"], 4);
    }
}
