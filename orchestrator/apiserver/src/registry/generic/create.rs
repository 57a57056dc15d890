//! Create: decode, default, fill metadata, admit, validate, reserve, store if absent.

use penstock_schema::{Type, TypeRef};
use penstock_store::Revision;
use serde_json::{Value, json};

use super::body::Expected;
use super::{Stored, share};
use crate::admission::{Attributes, Operation, Rounds};
use crate::error::ApiError;
use crate::registry::context::{Body, Context, Target};
use crate::registry::definition::Definition;
use crate::registry::meta::names;
use crate::registry::object::{meta_mut, meta_str, set_resource_version};
use crate::registry::ownership::{self, Tracked, Tracking};
use crate::registry::{Outcome, Registry, subresource};

/// How often a generated name may collide before the client is told.
const GENERATED_NAME_ATTEMPTS: usize = 8;

impl Registry {
    /// POST to a collection, or to a subresource (`binding`, `eviction`).
    pub async fn create(
        &self,
        context: &Context,
        definition: &Definition,
        target: &Target,
        body: Body,
    ) -> Result<Outcome, ApiError> {
        if target.subresource.is_some() || definition.verbs == ["create"] {
            return subresource::create(self, context, definition, target, body).await;
        }
        let expected = Expected {
            ty: &definition.ty,
            group: &definition.group,
            version: &definition.version,
            kind: &definition.kind,
        };
        let object = expected.decode(context, &body)?;
        self.create_object(context, definition, target, Tracking::Changes, object).await
    }

    /// As [`Registry::create`], from a decoded object. `target.name` may be set (create on update, bootstrap).
    pub(crate) async fn create_object(
        &self,
        context: &Context,
        definition: &Definition,
        target: &Target,
        tracking: Tracking,
        mut object: Value,
    ) -> Result<Outcome, ApiError> {
        settle_namespace(definition, target, &mut object)?;
        if !meta_str(&object, "resourceVersion").is_empty() {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let base = meta_str(&object, "generateName").to_string();
        let generated = meta_str(&object, "name").is_empty() && !base.is_empty();
        let mut attempt = 1;
        loop {
            let mut candidate = object.clone();
            if generated && let Some(meta) = meta_mut(&mut candidate) {
                meta.insert("name".into(), names::generate(&base).into());
            }
            match self.create_once(context, definition, tracking, candidate).await {
                Err(e) if generated && e.is_already_exists() => {
                    if attempt == GENERATED_NAME_ATTEMPTS {
                        return Err(ApiError::generate_name_conflict(
                            &definition.group,
                            &definition.plural,
                            &base,
                        ));
                    }
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn create_once(
        &self,
        context: &Context,
        definition: &Definition,
        tracking: Tracking,
        mut object: Value,
    ) -> Result<Outcome, ApiError> {
        if definition.custom.as_ref().is_some_and(|custom| custom.terminating) {
            let mut refusal = ApiError::method_not_allowed(&definition.group, &definition.plural, "create");
            refusal.message = "create not allowed while custom resource definition is terminating".into();
            return Err(refusal);
        }
        fill_system_metadata(definition, &mut object);
        prepare_new(context, definition, &mut object);
        penstock_schema::defaults::apply(&definition.ty, &mut object);
        if tracking == Tracking::Changes {
            let given = ownership::take_list(&mut object);
            let (old, before, subresource, new) = (None, None, "", &object);
            let registry = self;
            let tracked = Tracked { registry, context, definition, subresource, old, new, given, before };
            let list = tracked.list().flatten();
            ownership::put_list(&mut object, list);
        }
        let namespace = meta_str(&object, "namespace").to_string();
        let name = meta_str(&object, "name").to_string();
        let attributes = Attributes {
            operation: Operation::Create,
            definition,
            subresource: "",
            namespace: &namespace,
            name: &name,
            context,
            old: None,
            rounds: Rounds::default(),
        };
        if self.admission.admit(self, &attributes, &mut object).await? {
            prepare_new(context, definition, &mut object);
        }
        definition.strategy.complete_create(&mut object);
        let mut errors = definition.validate_meta(&object);
        errors.extend(definition.validate_new(&object));
        if !errors.is_empty() {
            return Err(ApiError::invalid(&definition.group, &definition.kind, &name, errors));
        }
        self.admission.validate(self, &attributes, Some(&object)).await?;
        let reservation = definition.strategy.reserve(self, context, &mut object, None).await?;
        let result = self.store_new(context, definition, &namespace, &name, &mut object).await;
        if let Some(reservation) = reservation {
            match (&result, context.dry_run) {
                (Ok(()), false) => reservation.commit(self).await,
                _ => reservation.cancel(self).await,
            }
        }
        result?;
        Ok(Outcome { object: share(definition, &object), created: true })
    }

    async fn store_new(
        &self,
        context: &Context,
        definition: &Definition,
        namespace: &str,
        name: &str,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        let exists = || ApiError::already_exists(&definition.group, &definition.plural, name);
        if context.dry_run {
            return match self.load(definition, namespace, name).await? {
                Some(_) => Err(exists()),
                None => Ok(()),
            };
        }
        match self.put(definition, namespace, name, object, Revision(0)).await? {
            Stored::Done(revision) => {
                set_resource_version(object, revision.0);
                Ok(())
            }
            Stored::Raced(_) => Err(exists()),
        }
    }
}

/// Takes away what a creator does not own.
fn prepare_new(context: &Context, definition: &Definition, object: &mut Value) {
    if definition.isolates_status()
        && let Some(map) = object.as_object_mut()
    {
        // Built-in kinds always have one, which patches may add to; that of a custom resource is its controller's.
        match definition.custom {
            None => map.insert("status".into(), empty_status(&definition.ty)),
            Some(_) => map.remove("status"),
        };
    }
    definition.strategy.prepare_create(context, object);
}

/// A status that says nothing yet but what one must say.
fn empty_status(ty: &TypeRef) -> Value {
    let status = ty.def().field("status").map(|field| field.ty.bare());
    let fields = match status {
        Some(Type::Struct(id)) => &ty.schema().get(*id).fields[..],
        _ => &[],
    };
    fields.iter().filter_map(|field| Some((field.name.to_string(), field.zero()?))).collect()
}

/// Object and path must agree on the namespace; an absent one is filled in.
pub(crate) fn settle_namespace(
    definition: &Definition,
    target: &Target,
    object: &mut Value,
) -> Result<(), ApiError> {
    let said = meta_str(object, "namespace").to_string();
    let asked = if definition.namespaced { target.namespace() } else { "" };
    if said.is_empty() {
        if let Some(meta) = meta_mut(object) {
            if asked.is_empty() {
                meta.remove("namespace");
            } else {
                meta.insert("namespace".into(), asked.into());
            }
        }
        return Ok(());
    }
    if said != asked {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// What only the server may say of a new object.
fn fill_system_metadata(definition: &Definition, object: &mut Value) {
    let Some(meta) = meta_mut(object) else { return };
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        meta.remove(field);
    }
    meta.insert("creationTimestamp".into(), super::now_text().into());
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    if definition.generation {
        meta.insert("generation".into(), json!(1));
    }
}
