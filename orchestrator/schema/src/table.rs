//! The committed table of built-in types, and its reader.

use std::sync::{Arc, LazyLock};

use crate::model::{Schema, SchemaBuilder};

static BUILTIN: LazyLock<Arc<Schema>> =
    LazyLock::new(|| SchemaBuilder::default().build().unwrap_or_else(|name| panic!("{name} is not defined")));

pub(crate) fn builtin() -> Arc<Schema> {
    Arc::clone(&BUILTIN)
}
