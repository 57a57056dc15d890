//! Binding: create-only; the old way to say where a pod runs.

use crate::registry::definition::Declaration;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "Binding", "bindings").verbs(&["create"])
}
