//! Reviews of what someone may do.

use serde_json::{Value, json};

use crate::authz::rules::strings;
use crate::authz::{Attributes, Decision};
use crate::error::{ApiError, FieldError};
use crate::registry::User;
use crate::server::Inner;

const GROUP: &str = "authorization.k8s.io";

/// The status of a SelfSubjectAccessReview.
pub(crate) async fn review_own(inner: &Inner, user: &User, review: &Value) -> Result<Value, ApiError> {
    let asked = attributes(review, "SelfSubjectAccessReview")?;
    Ok(status(inner, user, &asked).await)
}

/// The status of a SubjectAccessReview.
pub(crate) async fn review_subject(inner: &Inner, kind: &str, review: &Value) -> Result<Value, ApiError> {
    let asked = attributes(review, kind)?;
    let subject = subject(review);
    if subject.name.is_empty() && subject.groups.is_empty() {
        let missing = FieldError::required("spec.user", "at least one of user or group must be specified");
        return Err(ApiError::invalid(GROUP, kind, "", vec![missing]));
    }
    Ok(status(inner, &subject, &asked).await)
}

/// The status of a LocalSubjectAccessReview in `namespace`.
pub(crate) async fn review_local(inner: &Inner, namespace: &str, review: &Value) -> Result<Value, ApiError> {
    let kind = "LocalSubjectAccessReview";
    let asked_namespace = text(review, "/spec/resourceAttributes/namespace");
    let own_namespace = text(review, "/metadata/namespace");
    if asked_namespace != namespace || !(own_namespace.is_empty() || own_namespace == namespace) {
        let wrong = FieldError::invalid(
            "spec.resourceAttributes.namespace",
            asked_namespace,
            format!("must match the namespace of the request, {namespace:?}"),
        );
        return Err(ApiError::invalid(GROUP, kind, "", vec![wrong]));
    }
    review_subject(inner, kind, review).await
}

/// The status of a SelfSubjectRulesReview.
pub(crate) fn rules(inner: &Inner, user: &User, review: &Value) -> Result<Value, ApiError> {
    let namespace = text(review, "/spec/namespace");
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in inner.authorizer.rules_for(user, &namespace) {
        if !rule.resources.is_empty() {
            let mut shown =
                json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
            if !rule.resource_names.is_empty() {
                shown["resourceNames"] = json!(rule.resource_names);
            }
            resources.push(shown);
        }
        if !rule.non_resource_urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    if inner.authorizer.asks_a_webhook() {
        status["incomplete"] = true.into();
        status["evaluationError"] = "webhook authorizer does not support user rule resolution".into();
    }
    Ok(status)
}

async fn status(inner: &Inner, user: &User, asked: &Attributes) -> Value {
    let (mut status, reason) = match inner.authorizer.decide(user, asked).await {
        Decision::Allow { reason } => (json!({"allowed": true}), reason),
        Decision::Deny { reason } => (json!({"allowed": false, "denied": true}), reason),
        Decision::NoOpinion { reason } => (json!({"allowed": false}), reason),
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

fn attributes(review: &Value, kind: &str) -> Result<Attributes, ApiError> {
    let part = |name: &str| review.pointer(&format!("/spec/{name}")).filter(|v| v.is_object());
    match (part("resourceAttributes"), part("nonResourceAttributes")) {
        (Some(asked), None) => Ok(Attributes {
            verb: text(asked, "/verb"),
            namespace: text(asked, "/namespace"),
            group: text(asked, "/group"),
            version: text(asked, "/version"),
            resource: text(asked, "/resource"),
            subresource: text(asked, "/subresource"),
            name: text(asked, "/name"),
            path: String::new(),
            is_resource: true,
        }),
        (None, Some(asked)) => {
            Ok(Attributes { verb: text(asked, "/verb"), path: text(asked, "/path"), ..Attributes::default() })
        }
        (both, _) => {
            let detail = if both.is_some() {
                "cannot be specified in combination with resourceAttributes"
            } else {
                "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            };
            let wrong = FieldError::invalid("spec.resourceAttributes", Value::Null, detail);
            Err(ApiError::invalid(GROUP, kind, "", vec![wrong]))
        }
    }
}

fn subject(review: &Value) -> User {
    let mut user = User {
        name: text(review, "/spec/user"),
        uid: text(review, "/spec/uid"),
        groups: strings(review.pointer("/spec/groups")),
        ..User::default()
    };
    if let Some(extra) = review.pointer("/spec/extra").and_then(Value::as_object) {
        user.extra = extra.iter().map(|(key, values)| (key.clone(), strings(Some(values)))).collect();
    }
    user
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
