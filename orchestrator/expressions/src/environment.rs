//! What a source may refer to.

use std::collections::BTreeMap;

use crate::types::Type;

/// The variables a source may use and the types it may make.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, Type>,
    composed: BTreeMap<String, Type>,
    objects: bool,
}

// === impl Environment ===

impl Environment {
    pub fn variable(mut self, name: &str, ty: Type) -> Self {
        self.variables.insert(name.to_owned(), ty);
        self
    }

    /// A variable of the set, used as `variables.name`.
    pub fn composed(mut self, name: &str, ty: Type) -> Self {
        self.composed.insert(name.to_owned(), ty);
        self
    }

    /// Objects may be made: `Object{spec: Object.spec{...}}` and `JSONPatch{op: ...}`.
    pub fn with_objects(mut self) -> Self {
        self.objects = true;
        self
    }

    pub(crate) fn type_of(&self, name: &str) -> Option<&Type> {
        self.variables.get(name)
    }

    pub(crate) fn composed_type(&self, name: &str) -> Option<&Type> {
        self.composed.get(name)
    }

    pub(crate) fn has_composed(&self) -> bool {
        !self.composed.is_empty()
    }

    /// Whether objects of that name may be made.
    pub(crate) fn makes(&self, name: &str) -> bool {
        self.objects && (name == "Object" || name.starts_with("Object.") || name == crate::JSON_PATCH)
    }
}
