//! CertificateSigningRequest: somebody asks for a certificate; who asks is written down by the server.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS, Subresource, VERBS_STATUS};
use crate::registry::meta::NameRule;
use crate::registry::object::{items_at, str_at};
use crate::registry::strategy::Strategy;
use crate::tables::cluster::CERTIFICATE_SIGNING_REQUESTS;

const APPROVAL: Subresource =
    Subresource { name: "approval", group: "", version: "", kind: "", verbs: VERBS_STATUS };

pub(crate) fn declaration() -> Declaration {
    Declaration::new("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests")
        .short(&["csr"])
        .cluster_scoped()
        .name_rule(NameRule::PathSegment)
        .columns(CERTIFICATE_SIGNING_REQUESTS)
        .subresources(&[APPROVAL, STATUS])
        .fields(&["spec.signerName"], |o| {
            vec![("spec.signerName", str_at(o, "/spec/signerName").to_string())]
        })
        .strategy(CertificateSigningRequest)
}

struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn prepare_create(&self, context: &Context, new: &mut Value) {
        if !new["spec"].is_object() {
            return;
        }
        let user = &context.user;
        let spec = &mut new["spec"];
        spec["username"] = user.name.as_str().into();
        if let Some(map) = spec.as_object_mut() {
            map.remove("uid");
            map.remove("extra");
        }
        if !user.uid.is_empty() {
            spec["uid"] = user.uid.as_str().into();
        }
        spec["groups"] = json!(user.groups);
        if !user.extra.is_empty() {
            spec["extra"] = json!(user.extra);
        }
    }

    fn prepare_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        new["spec"] = old["spec"].clone();
    }

    fn prepare_status(&self, _context: &Context, new: &mut Value, old: &Value) {
        // Approval has its own path.
        let decides = |c: &Value| matches!(str_at(c, "/type"), "Approved" | "Denied");
        let mut conditions: Vec<Value> =
            items_at(old, "/status/conditions").iter().filter(|c| decides(c)).cloned().collect();
        conditions.extend(items_at(new, "/status/conditions").iter().filter(|c| !decides(c)).cloned());
        if new["status"].is_object() && !conditions.is_empty() {
            new["status"]["conditions"] = json!(conditions);
        }
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if str_at(new, "/spec/request").is_empty() {
            errors.push(FieldError::invalid(
                "spec.request",
                "",
                "PEM block type must be CERTIFICATE REQUEST",
            ));
        }
        if str_at(new, "/spec/signerName").is_empty() {
            errors.push(FieldError::required("spec.signerName", ""));
        }
        if items_at(new, "/spec/usages").is_empty() {
            errors.push(FieldError::required("spec.usages", "usages must have at least one item"));
        }
        if let Some(n) = new.pointer("/spec/expirationSeconds").and_then(Value::as_i64)
            && n < 600
        {
            errors.push(FieldError::invalid(
                "spec.expirationSeconds",
                n,
                "may not specify a duration less than 600 seconds (10 minutes)",
            ));
        }
        errors
    }
}
