//! Patch: the present object, changed as the patch says, then stored as any update.

use bytes::Bytes;
use penstock_schema::{PatchError, check, defaults, patch};
use serde_json::Value;

use super::body::{Expected, report};
use super::update::Race;
use crate::error::ApiError;
use crate::registry::context::{Context, PatchKind, Target};
use crate::registry::definition::Definition;
use crate::registry::object::meta_str;
use crate::registry::ownership::{self, Tracking};
use crate::registry::{Outcome, Registry, subresource};

impl Registry {
    pub async fn patch(
        &self,
        context: &Context,
        definition: &Definition,
        target: &Target,
        kind: PatchKind,
        patch: Bytes,
    ) -> Result<Outcome, ApiError> {
        if kind == PatchKind::Apply {
            return self.apply(context, definition, target, &patch).await;
        }
        if kind == PatchKind::Strategic
            && definition.custom.is_some()
            && target.subresource.as_deref() != Some("scale")
        {
            return Err(ApiError::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ));
        }
        let patch: Value = serde_json::from_slice(&patch)
            .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
        if target.subresource.as_deref() == Some("scale") {
            return subresource::scale::patch(self, context, definition, target, kind, &patch).await;
        }
        self.modify(context, definition, target, Race::Rebases, Tracking::Changes, &mut |old, list| {
            let mut listed;
            let base = if kind == PatchKind::Json && reaches_owners(&patch) {
                listed = old.clone();
                ownership::put_list(&mut listed, list.cloned());
                &listed
            } else {
                old
            };
            let mut new = patched(definition, target.name(), kind, base, &patch)?;
            let expected = Expected {
                ty: &definition.ty,
                group: &definition.group,
                version: &definition.version,
                kind: &definition.kind,
            };
            let issues = check::conform(&definition.ty, &mut new).map_err(|e| expected.refused(e))?;
            report(context, &issues)?;
            for field in ["apiVersion", "kind"] {
                new[field] = old[field].clone();
            }
            let named = meta_str(&new, "name");
            if named != target.name() {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({named}) does not match the name on the URL ({})",
                    target.name()
                )));
            }
            defaults::apply(&definition.ty, &mut new);
            Ok(new)
        })
        .await
    }
}

/// Whether a JSON patch looks at the list of owners, which objects are worked on without.
fn reaches_owners(patch: &Value) -> bool {
    let looks = |operation: &Value, field: &str| {
        operation.get(field).and_then(Value::as_str).is_some_and(|path| {
            path.is_empty() || path == "/metadata" || path.starts_with("/metadata/managedFields")
        })
    };
    patch.as_array().into_iter().flatten().any(|op| looks(op, "path") || looks(op, "from"))
}

/// The patched value, unchecked.
pub(crate) fn patched(
    definition: &Definition,
    name: &str,
    kind: PatchKind,
    old: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    let refuse = |e: PatchError| match e {
        PatchError::Malformed { reason } => ApiError::bad_request(reason),
        PatchError::Conflict { reason } | PatchError::TestFailed { reason } => {
            let mut e = ApiError::invalid(&definition.group, &definition.kind, name, Vec::new());
            e.message = format!("the server rejected our request due to an error in our request: {reason}");
            e
        }
        PatchError::TooMany { .. } => ApiError::request_too_large(e.to_string()),
    };
    match kind {
        PatchKind::Json => patch::json(old, patch).map_err(refuse),
        PatchKind::Strategic => {
            if !patch.is_object() {
                return Err(ApiError::bad_request(
                    "error decoding patch: a strategic merge patch must be an object",
                ));
            }
            patch::strategic(&definition.ty, old, patch).map_err(refuse)
        }
        PatchKind::Merge | PatchKind::Apply => {
            if !patch.is_object() {
                return Err(ApiError::bad_request("error decoding patch: a merge patch must be an object"));
            }
            Ok(patch::merge(old, patch))
        }
    }
}
