//! One error, one `Status`: every failure the API server reports to a client.
//!
//! A handler returns `ApiError` and the server writes [`ApiError::status`] with [`ApiError::code`]. Reasons and
//! message shapes are the ones stock clients match on. This file knows no kind, no verb and no HTTP library.

use serde_json::{Map, Value, json};

/// What was wrong with one field; the vocabulary of `Status.details.causes[].reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    Required,
    Invalid,
    /// As `Invalid`, of a value too large to show.
    InvalidUnshown,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    TypeInvalid,
    Internal,
}

impl FieldErrorKind {
    /// The cause's machine-readable reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid | Self::InvalidUnshown => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::InvalidUnshown | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

/// One rule one field broke. `path` is like `spec.template.spec.containers[0].image`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    pub path: String,
    /// The offending value, shown in the message; `Null` when there is none to show.
    pub value: Value,
    pub detail: String,
}

impl FieldError {
    fn new(
        kind: FieldErrorKind,
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, path: path.into(), value: value.into(), detail: detail.into() }
    }

    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, Value::Null, detail)
    }

    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, value, detail)
    }

    /// As [`FieldError::invalid`], of a value too large to show.
    pub fn invalid_unshown(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::InvalidUnshown, path, Value::Null, detail)
    }

    /// `allowed` is listed sorted and quoted, as clients show it.
    pub fn not_supported(path: impl Into<String>, value: impl Into<Value>, allowed: &[&str]) -> Self {
        let mut sorted = allowed.to_vec();
        sorted.sort_unstable();
        let listed: Vec<String> = sorted.iter().map(|a| format!("\"{a}\"")).collect();
        let detail = if listed.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", listed.join(", "))
        };
        Self::new(FieldErrorKind::NotSupported, path, value, detail)
    }

    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, value, "")
    }

    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, Value::Null, detail)
    }

    pub fn too_long(path: impl Into<String>, max_bytes: usize) -> Self {
        Self::new(
            FieldErrorKind::TooLong,
            path,
            Value::Null,
            format!("may not be more than {max_bytes} bytes"),
        )
    }

    pub fn too_many(path: impl Into<String>, actual: usize, max: usize) -> Self {
        Self::new(FieldErrorKind::TooMany, path, actual as u64, format!("must have at most {max} items"))
    }

    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, value, "")
    }

    /// Everything after the path: `Invalid value: "x": why`.
    pub fn body(&self) -> String {
        let words = self.kind.words();
        let mut text = match self.kind {
            FieldErrorKind::Required
            | FieldErrorKind::InvalidUnshown
            | FieldErrorKind::Forbidden
            | FieldErrorKind::TooLong
            | FieldErrorKind::Internal => words.to_string(),
            _ => format!("{words}: {}", shown(&self.value)),
        };
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// A value as it is quoted inside a message; bounded, so that a hostile object cannot bloat the answer.
fn shown(value: &Value) -> String {
    const SHOWN_BYTES_MAX: usize = 4096;
    let mut text = match value {
        Value::Null => "null".to_string(),
        other => other.to_string(),
    };
    if text.len() > SHOWN_BYTES_MAX {
        let mut cut = SHOWN_BYTES_MAX;
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        text.truncate(cut);
        text.push_str("...");
    }
    text
}

/// `pods`, or `deployments.apps`: how a message names a resource.
pub fn qualified(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_string() } else { format!("{name}.{group}") }
}

/// A failure with everything its `Status` says.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// `Status.reason`; empty when upstream leaves it out.
    pub reason: &'static str,
    /// `Status.reason` in the words of a webhook, which may use its own; goes before `reason`.
    pub foreign_reason: Option<Box<str>>,
    pub message: String,
    /// `Status.details`, when there are any.
    pub details: Option<Value>,
    /// Also sent as the `Retry-After` header.
    pub retry_after_seconds: Option<u32>,
    /// `Status.metadata.continue`: the token an expired list may go on with.
    pub continue_token: Option<Box<str>>,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            foreign_reason: None,
            message: message.into(),
            details: None,
            retry_after_seconds: None,
            continue_token: None,
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !group.is_empty() {
            details.insert("group".into(), group.into());
        }
        if !kind.is_empty() {
            details.insert("kind".into(), kind.into());
        }
        self.details = Some(Value::Object(details));
        self
    }

    /// 404 for one object of a resource.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", qualified(group, resource)))
            .about(group, resource, name)
    }

    /// 404 for a path that nothing serves.
    pub fn no_such_path() -> Self {
        let mut e = Self::new(404, "NotFound", "the server could not find the requested resource");
        e.details = Some(json!({}));
        e
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", qualified(group, resource)))
            .about(group, resource, name)
    }

    /// A generated name collided more often than can be chance.
    pub fn generate_name_conflict(group: &str, resource: &str, name: &str) -> Self {
        let message = format!(
            "{} \"{name}\" already exists, the server was not able to generate a unique name for the object",
            qualified(group, resource)
        );
        let mut e = Self::new(409, "AlreadyExists", message).about(group, resource, name);
        e.retry_after_seconds = Some(1);
        e
    }

    pub fn conflict(group: &str, resource: &str, name: &str, why: impl std::fmt::Display) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
        Self::new(409, "Conflict", message).about(group, resource, name)
    }

    /// The optimistic lock failed.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422 with every broken rule at once.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: Vec<FieldError>) -> Self {
        let list = match errors.len() {
            1 => errors[0].to_string(),
            _ => format!("[{}]", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {list}", qualified(group, kind));
        let causes: Vec<Value> = errors
            .iter()
            .map(|e| json!({"reason": e.kind.reason(), "message": e.body(), "field": e.path}))
            .collect();
        let mut e = Self::new(422, "Invalid", message).about(group, kind, name);
        if let Some(Value::Object(details)) = &mut e.details {
            details.insert("causes".into(), Value::Array(causes));
        }
        e
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 403 for one object; `why` ends the sentence.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: impl std::fmt::Display) -> Self {
        let what = qualified(group, resource);
        let message = match (what.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{what} is forbidden: {why}"),
            (false, false) => format!("{what} \"{name}\" is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message).about(group, resource, name)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn method_not_allowed(group: &str, resource: &str, verb: &str) -> Self {
        let message =
            format!("{verb} is not supported on resources of kind \"{}\"", qualified(group, resource));
        Self::new(405, "MethodNotAllowed", message).about(group, resource, "")
    }

    /// 410 `Expired`: the version asked for is gone.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410 as a watch reports it.
    pub fn too_old(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// 504: the version asked for has not been reached yet.
    pub fn too_large_version(asked: u64, current: u64) -> Self {
        let mut e = Self::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        );
        e.retry_after_seconds = Some(1);
        e.details = Some(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1
        }));
        e
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut e = Self::new(429, "TooManyRequests", message);
        e.retry_after_seconds = Some(retry_after_seconds);
        e
    }

    /// More is asked of the server than it can do at once (upstream's words).
    pub fn overloaded(retry_after_seconds: u32) -> Self {
        Self::too_many_requests("Too many requests, please try again later.", retry_after_seconds)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        let mut e = Self::new(500, "InternalError", format!("Internal error occurred: {message}"));
        e.details = Some(json!({"causes": [{"message": message.to_string()}]}));
        e
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    pub fn request_too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// Adds one machine-readable cause.
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: Option<&str>) -> Self {
        let mut cause = Map::new();
        cause.insert("reason".into(), reason.into());
        cause.insert("message".into(), message.into().into());
        if let Some(field) = field {
            cause.insert("field".into(), field.into());
        }
        let details = self.details.get_or_insert_with(|| json!({}));
        match details.get_mut("causes").and_then(Value::as_array_mut) {
            Some(causes) => causes.push(Value::Object(cause)),
            None => details["causes"] = json!([cause]),
        }
        self
    }

    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// The metav1 `Status` a client reads.
    pub fn status(&self) -> Value {
        let mut meta = Map::new();
        if let Some(token) = &self.continue_token {
            meta.insert("continue".into(), token.as_ref().into());
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": meta,
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        match &self.foreign_reason {
            Some(reason) => status["reason"] = reason.as_ref().into(),
            None if self.reason.is_empty() => {}
            None => status["reason"] = self.reason.into(),
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        if let Some(seconds) = self.retry_after_seconds {
            if status.get("details").is_none() {
                status["details"] = json!({});
            }
            status["details"]["retryAfterSeconds"] = seconds.into();
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_rule_reads_like_upstream() {
        let e = ApiError::invalid("apps", "Deployment", "x", vec![FieldError::required("spec.selector", "")]);
        assert_eq!(e.message, "Deployment.apps \"x\" is invalid: spec.selector: Required value");
        assert_eq!(e.status()["details"]["causes"][0]["field"], "spec.selector");
    }

    #[test]
    fn several_broken_rules_are_listed_in_brackets() {
        let errors =
            vec![FieldError::invalid("a", "x", "bad"), FieldError::not_supported("b", "Y", &["B", "A"])];
        let e = ApiError::invalid("", "Pod", "p", errors);
        assert_eq!(
            e.message,
            "Pod \"p\" is invalid: [a: Invalid value: \"x\": bad, b: Unsupported value: \"Y\": supported values: \"A\", \"B\"]"
        );
    }

    #[test]
    fn a_missing_object_names_its_resource_and_group() {
        assert_eq!(
            ApiError::not_found("apps", "deployments", "d").message,
            "deployments.apps \"d\" not found"
        );
        assert_eq!(
            ApiError::not_found("", "pods", "p").status()["details"],
            json!({"name": "p", "kind": "pods"})
        );
    }
}
