//! Defaults: those of the table, and upstream's conditional ones by kind.

use crate::{TypeRef, Value};

/// Fills in every default of an object of this type.
pub fn apply(_ty: &TypeRef, _v: &mut Value) {}
