//! AdmissionReviews: the question a webhook gets and the answer it gives. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Refusal;
use crate::admission::{Attributes, Operation};
use crate::error::ApiError;
use crate::registry::Definition;
use crate::registry::object::{items_at, str_at};

/// What a webhook said.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub allowed: bool,
    /// A JSON patch.
    pub patch: Option<Value>,
    pub warnings: Vec<String>,
    pub audit_annotations: BTreeMap<String, String>,
    /// `response.status`.
    status: Value,
}

/// What is asked about: the request, in the version the webhook knows.
pub(super) struct Question<'a> {
    pub attributes: &'a Attributes<'a>,
    /// The kind and version the webhook knows.
    pub definition: &'a Definition,
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
}

// === impl Question ===

impl Question<'_> {
    pub fn write(&self, uid: &str, review_version: &str) -> Value {
        let Self { attributes: a, definition, object, old } = self;
        // Options of a connection and bodies of subresources are of a kind of their own.
        let kind_of = |definition: &Definition| {
            let own = object.or(*old).filter(|_| !a.subresource.is_empty());
            let own_kind = own.map(|o| str_at(o, "/kind")).filter(|kind| *kind != &*a.definition.kind);
            match (own, own_kind) {
                (Some(own), Some(kind)) => {
                    let api_version = str_at(own, "/apiVersion");
                    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
                    json!({"group": group, "version": version, "kind": kind})
                }
                _ => {
                    json!({"group": &definition.group, "version": &definition.version, "kind": &definition.kind})
                }
            }
        };
        let resource_of =
            |d: &Definition| json!({"group": &d.group, "version": &d.version, "resource": &d.plural});
        let user = &a.context.user;
        let mut user_info = Map::new();
        user_info.insert("username".into(), user.name.as_str().into());
        if !user.uid.is_empty() {
            user_info.insert("uid".into(), user.uid.as_str().into());
        }
        if !user.groups.is_empty() {
            user_info.insert("groups".into(), json!(user.groups));
        }
        if !user.extra.is_empty() {
            user_info.insert("extra".into(), json!(user.extra));
        }
        let mut request = json!({
            "uid": uid,
            "kind": kind_of(definition),
            "resource": resource_of(definition),
            "requestKind": kind_of(a.definition),
            "requestResource": resource_of(a.definition),
            "operation": a.operation.name(),
            "userInfo": user_info,
            "object": object,
            "oldObject": old,
            "dryRun": a.context.dry_run,
            "options": options(a),
        });
        let optional = [
            ("subResource", a.subresource),
            ("requestSubResource", a.subresource),
            ("name", a.name),
            ("namespace", a.namespace_of_request()),
        ];
        for (field, text) in optional.into_iter().filter(|(_, text)| !text.is_empty()) {
            request[field] = text.into();
        }
        json!({
            "kind": "AdmissionReview",
            "apiVersion": format!("admission.k8s.io/{review_version}"),
            "request": request,
        })
    }
}

/// The options of the request, as far as the registry is told of them.
fn options(a: &Attributes<'_>) -> Value {
    let kind = match a.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if a.context.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if let Some(manager) = a.context.field_manager.as_deref().filter(|_| a.operation != Operation::Delete) {
        options["fieldManager"] = manager.into();
    }
    options
}

// === impl Answer ===

impl Answer {
    /// Checks and reads an answer to the question with this `uid`; says what is wrong with it otherwise.
    pub fn read(review: &Value, uid: &str, review_version: &str, mutating: bool) -> Result<Self, String> {
        let Some(response) = review.get("response").filter(|r| r.is_object()) else {
            return Err("webhook response was absent".into());
        };
        let text = |pointer: &str| str_at(response, pointer).to_owned();
        if review_version == "v1" {
            if text("/uid") != uid {
                return Err(format!("expected response.uid={uid:?}, got {:?}", text("/uid")));
            }
            let (api_version, kind) = (str_at(review, "/apiVersion"), str_at(review, "/kind"));
            if (api_version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
                return Err(format!(
                    "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {api_version}, Kind={kind}"
                ));
            }
        }
        let patch = text("/patch");
        let patch_type = response.get("patchType").and_then(Value::as_str);
        match (mutating, review_version) {
            (false, "v1") if !patch.is_empty() => {
                return Err("validating webhook may not return response.patch".into());
            }
            (false, "v1") if patch_type.is_some() => {
                return Err("validating webhook may not return response.patchType".into());
            }
            (true, "v1") => match (patch.is_empty(), patch_type) {
                (false, None) => {
                    return Err("webhook returned response.patch but not response.patchType".into());
                }
                (true, Some(_)) => {
                    return Err("webhook returned response.patchType but not response.patch".into());
                }
                (false, Some(other)) if other != "JSONPatch" => {
                    return Err(format!("unsupported patch type {other:?}"));
                }
                _ => {}
            },
            _ => {}
        }
        let patch = if mutating && !patch.is_empty() { Some(read_patch(&patch)?) } else { None };
        let annotations = response.get("auditAnnotations").and_then(Value::as_object);
        let pair = |(k, v): (&String, &Value)| Some((k.clone(), v.as_str()?.to_owned()));
        Ok(Self {
            allowed: response.get("allowed").and_then(Value::as_bool).unwrap_or(false),
            patch,
            warnings: items_at(response, "/warnings")
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            audit_annotations: annotations.into_iter().flatten().filter_map(pair).collect(),
            status: response.get("status").cloned().unwrap_or_default(),
        })
    }

    /// The error a client gets who is refused.
    pub fn denial(&self, webhook: &str) -> Refusal {
        let by = format!("admission webhook {webhook:?} denied the request");
        let (message, reason) = (str_at(&self.status, "/message"), str_at(&self.status, "/reason"));
        let message = match (message, reason) {
            ("", "") => format!("{by} without explanation"),
            ("", reason) => format!("{by}: {reason}"),
            (message, _) => format!("{by}: {message}"),
        };
        let code = self.status.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        let mut error =
            ApiError::new(code.filter(|code| (400..600).contains(code)).unwrap_or(400), "", message);
        error.foreign_reason = (!reason.is_empty()).then(|| reason.into());
        error.details = self.status.get("details").filter(|details| details.is_object()).cloned();
        Refusal::Denied(Box::new(error))
    }
}

fn read_patch(encoded: &str) -> Result<Value, String> {
    let undecodable = |why: String| format!("received undecodable patch in webhook response: {why}");
    let bytes = STANDARD.decode(encoded).map_err(|e| undecodable(e.to_string()))?;
    let patch: Value = serde_json::from_slice(&bytes).map_err(|e| undecodable(e.to_string()))?;
    if patch.is_array() { Ok(patch) } else { Err(undecodable("it is no list of operations".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    fn denied(status: Value) -> ApiError {
        let answer = review(json!({"uid": "u", "allowed": false, "status": status}));
        match Answer::read(&answer, "u", "v1", false).unwrap().denial("w.example.com") {
            Refusal::Denied(error) => *error,
            Refusal::Failed { why } => panic!("{why}"),
        }
    }

    #[test]
    fn denials_read_like_upstreams() {
        let error = denied(json!({"message": "no", "code": 403, "reason": "Forbidden"}));
        assert_eq!(
            (error.code, &*error.message),
            (403, "admission webhook \"w.example.com\" denied the request: no")
        );
        assert_eq!(error.status()["reason"], "Forbidden");
        let error = denied(json!({"reason": "the name is taken"}));
        assert_eq!(
            (error.code, &*error.message),
            (400, "admission webhook \"w.example.com\" denied the request: the name is taken")
        );
        let error = denied(Value::Null);
        assert!(error.message.ends_with("denied the request without explanation") && error.code == 400);
        assert_eq!(denied(json!({"code": 200})).code, 400);
    }

    #[test]
    fn improper_answers_say_what_is_wrong() {
        let wrong = |review: Value, mutating| Answer::read(&review, "u", "v1", mutating).unwrap_err();
        assert_eq!(wrong(json!({}), true), "webhook response was absent");
        assert_eq!(wrong(review(json!({"uid": "x"})), true), "expected response.uid=\"u\", got \"x\"");
        let mut other = review(json!({"uid": "u"}));
        other["apiVersion"] = "v1".into();
        assert!(wrong(other, true).starts_with("expected webhook response of admission.k8s.io/v1"));
        let patched = review(json!({"uid": "u", "allowed": true, "patch": "W10="}));
        assert_eq!(
            wrong(patched.clone(), true),
            "webhook returned response.patch but not response.patchType"
        );
        assert_eq!(wrong(patched, false), "validating webhook may not return response.patch");
        let typed = |kind: &str, patch: &str| {
            review(json!({"uid": "u", "allowed": true, "patch": patch, "patchType": kind}))
        };
        assert_eq!(wrong(typed("Merge", "W10="), true), "unsupported patch type \"Merge\"");
        assert!(wrong(typed("JSONPatch", "***"), true).starts_with("received undecodable patch"));
    }
}
