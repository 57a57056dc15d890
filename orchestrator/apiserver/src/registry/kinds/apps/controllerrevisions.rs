//! ControllerRevision: a snapshot of a workload template, kept for undo.

use crate::registry::definition::Declaration;
use crate::tables::core::CONTROLLER_REVISIONS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apps", "v1", "ControllerRevision", "controllerrevisions").columns(CONTROLLER_REVISIONS)
}
