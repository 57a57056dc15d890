//! Server-side apply, and the record of who set what.

use bytes::Bytes;
use serde_json::Value;

use crate::error::ApiError;
use crate::registry::context::{Context, Target};
use crate::registry::definition::Definition;
use crate::registry::{Outcome, Registry};

impl Registry {
    pub(super) async fn apply(
        &self,
        _context: &Context,
        _definition: &Definition,
        _target: &Target,
        _patch: &Bytes,
    ) -> Result<Outcome, ApiError> {
        Err(ApiError::unsupported_media_type(
            "server-side apply is not served yet: use one of application/json-patch+json, \
             application/merge-patch+json, application/strategic-merge-patch+json",
        ))
    }
}

/// Notes in `metadata.managedFields` who changed what. Client-side writes are not tracked yet.
pub(super) fn track(_context: &Context, _definition: &Definition, _new: &mut Value, _old: Option<&Value>) {}
