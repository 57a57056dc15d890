//! What a kind is, as data: names, scope, verbs, subresources, columns, selectable fields, strategy.
//!
//! A kind's file builds a [`Declaration`]; the catalogue resolves it against the schema into a [`Definition`].
//! Router, discovery, OpenAPI, tables and the CRUD test read definitions and know no kind by name.

use std::ops::Deref;
use std::sync::Arc;

use penstock_schema::{Schema, Text, TypeRef};
use serde_json::Value;

use super::custom::CustomKind;

use super::field_rules::{self, Fixed, Rule};
use super::meta::{self, Finalizers, NameRule};
use super::object::{CachedObject, SelectableFields};
use super::strategy::{Plain, Strategy};
use crate::error::FieldError;
use crate::tables::Columns;

/// Every verb of an ordinary kind.
pub const VERBS_ALL: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
pub const VERBS_READ: &[&str] = &["get", "list"];
pub const VERBS_STATUS: &[&str] = &["get", "patch", "update"];

/// A path below an object. `group`, `version`, `kind` are those of its body (Scale for `scale`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    pub name: &'static str,
    /// Empty together with `version` when the body is of the parent's kind.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

/// Turns a served version into the stored one and back.
#[derive(Clone, Copy)]
pub struct Conversion {
    pub to_stored: fn(Value) -> Value,
    pub from_stored: fn(Value) -> Value,
}

/// A kind before its type is looked up.
pub struct Declaration {
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    pub list_kind: Text,
    pub plural: Text,
    pub singular: String,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    pub columns: Columns,
    pub selectable_fields: Option<SelectableFields>,
    /// The labels `selectable_fields` may yield, so that an unknown one is refused.
    pub field_labels: Vec<Text>,
    pub strategy: Box<dyn Strategy>,
    /// What an object must keep, asked before its strategy.
    pub(crate) rules: &'static [Rule],
    /// What an update may not change.
    pub(crate) fixed: &'static [Fixed],
    /// What a write to `status` must keep, as paths of the whole object.
    pub(crate) status_rules: &'static [Rule],
    /// `(group, plural, api version, kind)` under which objects are stored, when not this kind's own.
    pub stored_as: Option<StoredAs>,
    /// A completed delete answers with the object instead of a Status.
    pub returns_deleted: bool,
    /// Objects vanish from the store after this many seconds (events).
    pub ttl_seconds: Option<u64>,
    /// How `metadata.name` must look.
    pub name_rule: NameRule,
    /// `metadata.generation` is kept: 1 at creation, bumped when anything but metadata and status changes.
    pub generation: bool,
    /// A PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// An update without `resourceVersion` is taken as "whatever is there now".
    pub unconditional_update: bool,
    /// What only a custom resource has.
    pub custom: Option<Arc<CustomKind>>,
}

/// Another version's storage that this version reads and writes by conversion.
#[derive(Clone)]
pub struct StoredAs {
    pub group: Text,
    pub version: Text,
    pub plural: Text,
    pub conversion: Conversion,
}

impl Declaration {
    /// A namespaced kind with all verbs, no subresource and no rules of its own.
    pub fn new(
        group: impl Into<Text>,
        version: impl Into<Text>,
        kind: impl Into<Text>,
        plural: impl Into<Text>,
    ) -> Self {
        let kind = kind.into();
        Self {
            group: group.into(),
            version: version.into(),
            list_kind: format!("{kind}List").into(),
            singular: kind.to_ascii_lowercase(),
            kind,
            plural: plural.into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            verbs: VERBS_ALL,
            subresources: &[],
            columns: Columns::default(),
            selectable_fields: None,
            field_labels: Vec::new(),
            strategy: Box::new(Plain),
            rules: &[],
            fixed: &[],
            status_rules: &[],
            stored_as: None,
            returns_deleted: false,
            ttl_seconds: None,
            name_rule: NameRule::Subdomain,
            generation: false,
            create_on_update: false,
            unconditional_update: true,
            custom: None,
        }
    }

    pub fn name_rule(mut self, rule: NameRule) -> Self {
        self.name_rule = rule;
        self
    }

    pub fn generation(mut self) -> Self {
        self.generation = true;
        self
    }

    pub fn create_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    /// Updates must name the version they replace.
    pub fn conditional_update(mut self) -> Self {
        self.unconditional_update = false;
        self
    }

    pub fn cluster_scoped(mut self) -> Self {
        self.namespaced = false;
        self
    }

    pub fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = borrowed(names);
        self
    }

    pub fn categories(mut self, names: &'static [&'static str]) -> Self {
        self.categories = borrowed(names);
        self
    }

    pub fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }

    pub fn subresources(mut self, list: &'static [Subresource]) -> Self {
        self.subresources = list;
        self
    }

    pub fn columns(mut self, columns: Columns) -> Self {
        self.columns = columns;
        self
    }

    pub fn fields(mut self, labels: &'static [&'static str], f: SelectableFields) -> Self {
        self.field_labels = borrowed(labels);
        self.selectable_fields = Some(f);
        self
    }

    pub fn strategy(mut self, strategy: impl Strategy) -> Self {
        self.strategy = Box::new(strategy);
        self
    }

    pub(crate) fn rules(mut self, rules: &'static [Rule]) -> Self {
        self.rules = rules;
        self
    }

    pub(crate) fn fixed(mut self, fixed: &'static [Fixed]) -> Self {
        self.fixed = fixed;
        self
    }

    pub(crate) fn status_rules(mut self, rules: &'static [Rule]) -> Self {
        self.status_rules = rules;
        self
    }

    pub fn stored_as(mut self, stored: StoredAs) -> Self {
        self.stored_as = Some(stored);
        self
    }

    pub fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    pub fn ttl_seconds(mut self, seconds: u64) -> Self {
        self.ttl_seconds = Some(seconds);
        self
    }

    /// Looks the type up; `None` when the schema does not know the kind.
    pub fn resolve(self, schema: &Arc<Schema>) -> Option<Definition> {
        let ty = schema.kind(&self.group, &self.version, &self.kind)?;
        Some(self.of_type(ty))
    }

    /// The definition of a kind whose type is known already.
    pub fn of_type(self, ty: TypeRef) -> Definition {
        Definition { declaration: self, ty }
    }
}

fn borrowed(names: &[&'static str]) -> Vec<Text> {
    names.iter().map(|name| Text::Borrowed(*name)).collect()
}

/// A kind that is served. Dereferences to its [`Declaration`].
pub struct Definition {
    declaration: Declaration,
    pub ty: TypeRef,
}

impl Deref for Definition {
    type Target = Declaration;

    fn deref(&self) -> &Declaration {
        &self.declaration
    }
}

impl std::fmt::Debug for Definition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.plural, self.version, self.group)
    }
}

impl Definition {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// `status` has its own path, so main writes keep it out.
    pub fn isolates_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// `(group, version, plural)` of the storage.
    pub fn storage(&self) -> (&str, &str, &str) {
        match &self.stored_as {
            Some(s) => (&s.group, &s.version, &s.plural),
            None => (&self.group, &self.version, &self.plural),
        }
    }

    /// Rules of metadata.
    pub(crate) fn validate_meta(&self, object: &Value) -> Vec<FieldError> {
        let free = self.custom.is_some() || self.group == "apiextensions.k8s.io";
        let finalizers = if free { Finalizers::Any } else { Finalizers::Qualified };
        meta::validate(object, self.name_rule, self.namespaced, finalizers)
    }

    /// As [`Definition::validate_meta`], without what was wrong with the old object already.
    pub(crate) fn validate_meta_kept(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let errors = self.validate_meta(new);
        if errors.is_empty() { errors } else { new_errors(errors, &self.validate_meta(old)) }
    }

    /// Every rule a new object breaks, but for those of metadata.
    pub(crate) fn validate_new(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = self.validate(object);
        errors.extend(self.strategy.validate_create(object));
        errors
    }

    /// Every rule of the kind that `object` breaks, but for those of metadata.
    pub(crate) fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        field_rules::judge(self.rules, object, "", &mut errors);
        errors.extend(self.strategy.validate(object));
        errors
    }

    /// As [`Definition::validate`], without what was wrong with the old object already: what came in before a rule
    /// was made does not keep its owners from changing the rest (docs/adr/0039).
    pub(crate) fn validate_kept(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let errors = self.validate(new);
        if errors.is_empty() { errors } else { new_errors(errors, &self.validate(old)) }
    }

    /// Every rule an update of the object itself breaks, but for those of metadata.
    pub(crate) fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = if self.strategy.revalidates() { self.validate_kept(new, old) } else { Vec::new() };
        for fixed in self.fixed {
            fixed.judge(new, old, &mut errors);
        }
        errors.extend(self.strategy.validate_update(new, old));
        errors
    }

    /// Every rule an update of the status breaks.
    pub(crate) fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let judged = |object: &Value| {
            let mut errors = Vec::new();
            field_rules::judge(self.status_rules, object, "", &mut errors);
            errors
        };
        let mut errors = judged(new);
        if !errors.is_empty() {
            errors = new_errors(errors, &judged(old));
        }
        errors.extend(self.strategy.validate_status(new, old));
        errors
    }

    /// An object of this kind as it is shared.
    pub(crate) fn share(&self, value: &Value) -> CachedObject {
        let fields = match (&self.selectable_fields, &self.custom) {
            (Some(select), _) => {
                select(value).into_iter().map(|(label, text)| (label.into(), text)).collect()
            }
            (None, Some(custom)) => custom.select(value),
            (None, None) => Vec::new(),
        };
        CachedObject::new(&self.ty, value, fields)
    }
}

/// Those of `errors` that are not among `before`.
fn new_errors(mut errors: Vec<FieldError>, before: &[FieldError]) -> Vec<FieldError> {
    errors.retain(|error| !before.contains(error));
    errors
}

pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_string() } else { format!("{group}/{version}") }
}

/// `status` with the parent's kind.
pub const STATUS: Subresource =
    Subresource { name: "status", group: "", version: "", kind: "", verbs: VERBS_STATUS };
/// `scale` with the autoscaling/v1 body.
pub const SCALE: Subresource =
    Subresource { name: "scale", group: "autoscaling", version: "v1", kind: "Scale", verbs: VERBS_STATUS };
