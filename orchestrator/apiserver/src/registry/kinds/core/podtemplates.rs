//! PodTemplate: a pod template stored by itself.

use crate::registry::definition::Declaration;
use crate::tables::core::POD_TEMPLATES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "PodTemplate", "podtemplates")
        .columns(POD_TEMPLATES)
        .generation()
        .returns_deleted()
}
