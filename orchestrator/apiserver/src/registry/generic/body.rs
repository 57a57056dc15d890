//! Bodies into objects: decoding, the kind check, what to do about unknown fields.

use penstock_schema::{DecodeError, Decoded, Issue, TypeRef, json, protobuf, yaml};
use serde_json::Value;

use crate::error::ApiError;
use crate::registry::context::{Body, Context, FieldValidation};
use crate::registry::definition::api_version;

/// The kind a body must be of.
pub(crate) struct Expected<'a> {
    pub ty: &'a TypeRef,
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
}

impl Expected<'_> {
    /// The body as an object with `apiVersion` and `kind`, pruned, not yet defaulted.
    pub(crate) fn decode(&self, context: &Context, body: &Body) -> Result<Value, ApiError> {
        let decoded = match body {
            Body::Json(bytes) => json::decode(self.ty, bytes).map_err(|e| self.refused(e))?,
            Body::Yaml(bytes) => yaml::decode(self.ty, bytes).map_err(|e| self.refused(e))?,
            Body::Protobuf(_) if self.ty.def().shape_only => {
                return Err(ApiError::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json, application/yaml",
                ));
            }
            Body::Protobuf(bytes) => {
                let envelope = protobuf::open_envelope(bytes).map_err(|e| self.refused(e))?;
                self.check_kind(&envelope.api_version, &envelope.kind)?;
                let object = protobuf::decode(self.ty, &envelope.raw).map_err(|e| self.refused(e))?;
                Decoded { object, issues: Vec::new() }
            }
        };
        let mut object = decoded.object;
        if !object.is_object() {
            return Err(ApiError::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: the body is not an object",
                self.kind, self.version, self.kind
            )));
        }
        let said = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
        self.check_kind(&said("apiVersion"), &said("kind"))?;
        object["apiVersion"] = api_version(self.group, self.version).into();
        object["kind"] = self.kind.into();
        report(context, &decoded.issues)?;
        Ok(object)
    }

    /// Absent names are filled in from the path, as upstream does; wrong ones are refused.
    fn check_kind(&self, said_version: &str, said_kind: &str) -> Result<(), ApiError> {
        let expected = api_version(self.group, self.version);
        if !said_kind.is_empty() && said_kind != self.kind {
            return Err(ApiError::bad_request(format!(
                "{said_kind} in version \"{}\" cannot be handled as a {}: converting ({said_version}, Kind={said_kind}) to ({expected}, Kind={}): unknown conversion",
                said_version.rsplit('/').next().unwrap_or_default(),
                self.kind,
                self.kind
            )));
        }
        if !said_version.is_empty() && said_version != expected {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({said_version}) does not match the expected API version ({expected})"
            )));
        }
        Ok(())
    }

    pub(crate) fn refused(&self, error: DecodeError) -> ApiError {
        match error {
            DecodeError::TooLarge { .. } => ApiError::request_too_large(error.to_string()),
            other => ApiError::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: {other}",
                self.kind, self.version, self.kind
            )),
        }
    }
}

/// Warns of or refuses unknown and duplicate fields, as the request asked.
pub(crate) fn report(context: &Context, issues: &[Issue]) -> Result<(), ApiError> {
    if issues.is_empty() {
        return Ok(());
    }
    match context.field_validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            for issue in issues {
                context.warn(issue.to_string());
            }
            Ok(())
        }
        FieldValidation::Strict => {
            let listed: Vec<String> = issues.iter().map(ToString::to_string).collect();
            Err(ApiError::bad_request(format!("strict decoding error: {}", listed.join(", "))))
        }
    }
}
