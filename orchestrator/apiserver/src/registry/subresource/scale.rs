//! Scale: the replica count of a workload, as an autoscaling/v1 object of its own.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use penstock_schema::ownership::claims::{Claim, Write};
use penstock_schema::ownership::{Element, Filter, Managed, Manager, Set, Versions};
use penstock_schema::{TypeRef, check, patch};
use serde_json::{Map, Value, json};

use crate::error::{ApiError, FieldError};
use crate::registry::context::{Body, Context, PatchKind, Target};
use crate::registry::definition::Definition;
use crate::registry::generic::apply::Config;
use crate::registry::generic::body::{Expected, report};
use crate::registry::generic::now_text;
use crate::registry::generic::update::Race;
use crate::registry::object::{CachedObject, meta_str};
use crate::registry::ownership::{self, Kinds, Tracking};
use crate::registry::{Outcome, Registry};

fn ty(registry: &Registry) -> Result<TypeRef, ApiError> {
    let missing = || ApiError::internal("the schema has no Scale");
    registry.schema().kind("autoscaling", "v1", "Scale").ok_or_else(missing)
}

/// The Scale of a workload.
pub(crate) fn of(
    registry: &Registry,
    definition: &Definition,
    parent: &Value,
) -> Result<Arc<CachedObject>, ApiError> {
    if let Some(paths) = definition.custom.as_ref().and_then(|custom| custom.scale.as_ref())
        && paths.wanted(parent).is_none()
    {
        let path = &paths.spec_replicas;
        return Err(ApiError::internal(format!("the spec replicas field {path:?} does not exist")));
    }
    let value = value_of(definition, parent);
    Ok(Arc::new(CachedObject::new(&ty(registry)?, &value, Vec::new())))
}

pub(crate) fn value_of(definition: &Definition, parent: &Value) -> Value {
    let mut meta = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(v) = parent.pointer(&format!("/metadata/{field}")) {
            meta.insert(field.into(), v.clone());
        }
    }
    let number = |pointer: &str| parent.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let (wanted, present, selector) =
        match definition.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
            Some(paths) => (paths.wanted(parent).unwrap_or(0), paths.present(parent), paths.selector(parent)),
            None => (number("/spec/replicas"), number("/status/replicas"), selector_text(definition, parent)),
        };
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": wanted},
        "status": {"replicas": present},
    });
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// The selector in the query parameter's grammar.
fn selector_text(definition: &Definition, parent: &Value) -> String {
    let selector = parent.pointer("/spec/selector");
    let labels = if definition.plural == "replicationcontrollers" {
        selector
    } else {
        selector.and_then(|s| s.get("matchLabels"))
    };
    let mut terms: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    for e in selector.and_then(|s| s.get("matchExpressions")).and_then(Value::as_array).into_iter().flatten()
    {
        let key = e["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> =
            e["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        terms.push(match e["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_string(),
        });
    }
    terms.sort_unstable();
    terms.join(",")
}

pub(crate) async fn update(
    registry: &Registry,
    context: &Context,
    definition: &Definition,
    target: &Target,
    body: &Body,
) -> Result<Outcome, ApiError> {
    let ty = ty(registry)?;
    let expected = Expected { ty: &ty, group: GROUP, version: VERSION, kind: KIND };
    let scale = expected.decode(context, body)?;
    let writer = Writer { registry, context, definition, target, ty };
    writer
        .store(false, &mut |old, write, managed| Ok(writer.updated(old, scale.clone(), write, managed)))
        .await
}

pub(crate) async fn patch(
    registry: &Registry,
    context: &Context,
    definition: &Definition,
    target: &Target,
    kind: PatchKind,
    patch_body: &Value,
) -> Result<Outcome, ApiError> {
    let writer = Writer { registry, context, definition, target, ty: ty(registry)? };
    writer
        .store(false, &mut |old, write, managed| {
            let mut new = match kind {
                PatchKind::Json => {
                    patch::json(old, patch_body).map_err(|e| ApiError::bad_request(e.to_string()))?
                }
                _ => patch::merge(old, patch_body),
            };
            let expected = Expected { ty: &writer.ty, group: GROUP, version: VERSION, kind: KIND };
            let issues = check::conform(&writer.ty, &mut new).map_err(|e| expected.refused(e))?;
            report(context, &issues)?;
            Ok(writer.updated(old, new, write, managed))
        })
        .await
}

/// Server-side apply of a Scale.
pub(crate) async fn apply(
    registry: &Registry,
    context: &Context,
    definition: &Definition,
    target: &Target,
    body: &Bytes,
) -> Result<Outcome, ApiError> {
    let writer = Writer { registry, context, definition, target, ty: ty(registry)? };
    let config = Config::read(context, &writer.ty, [GROUP, VERSION, KIND], target, body)?;
    writer
        .store(true, &mut |old, write, managed| config.applied_to(old, managed, write, context, SUBRESOURCE))
        .await
}

const GROUP: &str = "autoscaling";
const VERSION: &str = "v1";
const KIND: &str = "Scale";
const API_VERSION: &str = "autoscaling/v1";
const SUBRESOURCE: &str = "scale";

/// A Scale in its only version.
struct Only<'a>(&'a TypeRef);

impl Versions for Only<'_> {
    fn convert<'v>(&self, object: &'v Value, api_version: &str) -> Option<(TypeRef, Cow<'v, Value>)> {
        (api_version == API_VERSION).then(|| (self.0.clone(), Cow::Borrowed(object)))
    }

    fn back(&self, object: Value, _: &str) -> Value {
        object
    }
}

/// Makes the wanted Scale, owners included, from the present one and its owners.
type Wanted<'a> = dyn FnMut(&Value, &Write<'_>, Managed) -> Result<Value, ApiError> + Send + 'a;

/// One write of a Scale.
struct Writer<'a> {
    registry: &'a Registry,
    context: &'a Context,
    definition: &'a Definition,
    target: &'a Target,
    ty: TypeRef,
}

// === impl Writer ===

impl Writer<'_> {
    fn updated(&self, old: &Value, mut new: Value, write: &Write<'_>, managed: Managed) -> Value {
        ownership::take_list(&mut new);
        let manager = Manager::updating(self.context.manager(), &self.definition.api_version(), SUBRESOURCE);
        let managed = write.update(manager, managed, old, &new);
        ownership::put_list(&mut new, ownership::listed(managed));
        new
    }

    /// What nobody tracks is not tracked by its scale alone, unless that `begins` with it.
    async fn store(&self, begins: bool, wanted: &mut Wanted<'_>) -> Result<Outcome, ApiError> {
        let Writer { registry, context, definition, target, ty } = self;
        let outcome = registry
            .modify(context, definition, target, Race::Rebases, Tracking::Given, &mut |old, list| {
                let kinds = Kinds::of(registry, definition);
                let parents = Managed::read_written(list.cloned());
                let present = value_of(definition, old);
                let now = now_text();
                let write = Write {
                    versions: &Only(ty),
                    filter: &Filter::default(),
                    api_version: API_VERSION,
                    now: &now,
                };
                let mut scale = wanted(&present, &write, owners_of_scale(&kinds, definition, &parents))?;
                let mut new = scaled(definition, target.name(), old, &scale)?;
                if !parents.is_empty() || begins {
                    let mut owners = owners_of_parent(
                        &kinds,
                        definition,
                        parents,
                        Managed::read_written(ownership::take_list(&mut scale)),
                    );
                    owners.cap();
                    ownership::put_list(&mut new, ownership::listed(owners));
                }
                Ok(new)
            })
            .await?;
        let object = of(registry, definition, &outcome.object.value())?;
        Ok(Outcome { object, created: false })
    }
}

/// The workload with the count a Scale wants.
pub(crate) fn scaled(
    definition: &Definition,
    name: &str,
    old: &Value,
    scale: &Value,
) -> Result<Value, ApiError> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(ApiError::invalid(GROUP, KIND, name, vec![error]));
    }
    let named = meta_str(scale, "name");
    if !named.is_empty() && named != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({})",
            name
        )));
    }
    let mut new = old.clone();
    match definition.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
        Some(paths) => paths.set(&mut new, replicas),
        None => new["spec"]["replicas"] = json!(replicas),
    }
    for field in ["resourceVersion", "uid"] {
        let said = meta_str(scale, field);
        if !said.is_empty() {
            new["metadata"][field] = said.into();
        }
    }
    Ok(new)
}

/// Where a version keeps its count. None: no such version; an empty path: it has none.
fn count_path(kinds: &Kinds<'_>, definition: &Definition, api_version: &str) -> Option<Vec<Element>> {
    let fields = |names: &mut dyn Iterator<Item = &str>| names.map(Element::field).collect();
    let of = |definition: &Definition| match &definition.custom {
        None => fields(&mut ["spec", "replicas"].into_iter()),
        Some(custom) => custom.scale.as_ref().map_or_else(Vec::new, |paths| fields(&mut paths.wanted_path())),
    };
    if definition.api_version() == api_version {
        return Some(of(definition));
    }
    kinds.sibling(api_version).map(|sibling| of(&sibling))
}

fn count_in_scale() -> Vec<Element> {
    vec![Element::field("spec"), Element::field("replicas")]
}

fn only(path: &[Element]) -> Set {
    let mut set = Set::default();
    set.insert(path);
    set
}

/// Who owns the count, as owners of the Scale.
fn owners_of_scale(kinds: &Kinds<'_>, definition: &Definition, parents: &Managed) -> Managed {
    let mut scale = Managed::default();
    for (manager, claim) in &parents.claims {
        let path = count_path(kinds, definition, &claim.api_version);
        if path.is_some_and(|path| claim.set().has(&path)) {
            let claim = Claim::new(only(&count_in_scale()), API_VERSION, claim.time.clone());
            scale.claims.insert(manager.clone(), claim);
        }
    }
    scale
}

/// The owners of the workload after a write of its Scale: the count is taken from those who lost it, and given to those
/// who own it now.
fn owners_of_parent(
    kinds: &Kinds<'_>,
    definition: &Definition,
    parents: Managed,
    mut scale: Managed,
) -> Managed {
    let mut out = Managed::default();
    for (manager, mut claim) in parents.claims {
        let Some(path) = count_path(kinds, definition, &claim.api_version) else { continue };
        if claim.set().has(&path) && scale.claims.remove(&manager).is_none() {
            claim.change(|set| set.difference(&only(&path)));
        }
        if !claim.set().is_empty() {
            out.claims.insert(manager, claim);
        }
    }
    let api_version = definition.api_version();
    let path = count_path(kinds, definition, &api_version).unwrap_or_default();
    for (manager, claim) in scale.claims {
        if claim.set().has(&count_in_scale()) {
            let none = || Claim::new(Set::default(), api_version.as_str(), None);
            let gained = out.claims.entry(manager).or_insert_with(none);
            gained.change(|set| set.union(only(&path)));
            gained.time = claim.time;
        }
    }
    out
}
