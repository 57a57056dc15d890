//! CertificateSigningRequest: somebody asks for a certificate; who asks is written down by the server.
//!
//! What is asked never changes. Whether it is granted is said through `/approval`, the certificate through `/status`;
//! who may do so is admission's to judge.

mod conditions;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use penstock_certificates::{Request, USAGES, check_chain};
use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS, Subresource, VERBS_STATUS};
use crate::registry::meta::{NameRule, names};
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

/// Upstream's signer of requests of versions before v1, which named none.
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";
/// A domain, a slash, and room for a name of a resource with its namespace (upstream's limit).
const SIGNER_BYTES_MAX: usize = 571;

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
        conditions::keep_decisions(new, old);
        conditions::date(new, old);
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let request = decoded(new, "/spec/request");
        if let Err(error) = Request::parse(&request) {
            errors.push(FieldError::invalid("spec.request", str_at(new, "/spec/request"), error.to_string()));
        }
        usages(items_at(new, "/spec/usages"), &mut errors);
        signer_name(str_at(new, "/spec/signerName"), &mut errors);
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

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = conditions::judge_change(new, old);
        conditions::judge_decisions_stay(new, old, &mut errors);
        certificate(new, old, &mut errors);
        errors
    }
}

/// Whoever approves may note why in conditions and metadata; `kept` is the stored object with the new conditions.
pub(crate) fn prepare_approval(kept: &mut Value, new: &Value, old: &Value) {
    kept["metadata"] = new["metadata"].clone();
    conditions::date(kept, old);
}

pub(crate) fn validate_approval(new: &Value, old: &Value) -> Vec<FieldError> {
    conditions::judge_change(new, old)
}

fn usages(usages: &[Value], errors: &mut Vec<FieldError>) {
    const PATH: &str = "spec.usages";
    if usages.is_empty() {
        errors.push(FieldError::required(PATH, ""));
    }
    for (i, usage) in usages.iter().enumerate() {
        let name = usage.as_str().unwrap_or_default();
        if !USAGES.contains(&name) {
            errors.push(FieldError::not_supported(format!("{PATH}[{i}]"), name, &USAGES));
        }
        if usages[..i].contains(usage) {
            errors.push(FieldError::duplicate(format!("{PATH}[{i}]"), name));
        }
    }
}

/// `example.com/signer-name`.
fn signer_name(name: &str, errors: &mut Vec<FieldError>) {
    const PATH: &str = "spec.signerName";
    let mut refuse = |why: String| errors.push(FieldError::invalid(PATH, name, why));
    if name == LEGACY_UNKNOWN {
        return refuse("the legacy signerName is not allowed via this API version".to_owned());
    }
    if name.is_empty() {
        return errors.push(FieldError::required(PATH, ""));
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, path] = parts[..] else {
        return refuse(
            "must be a fully qualified domain and path of the form 'example.com/signer-name'".to_owned(),
        );
    };
    if let Some(why) = domain.split('.').find_map(names::label) {
        refuse(format!("validating {domain:?}: {why}"));
    }
    if !domain.contains('.') {
        refuse("should be a domain with at least two segments separated by dots".to_owned());
    }
    if let Some(why) = path.split('.').find_map(names::subdomain) {
        refuse(format!("validating {path:?}: {why}"));
    }
    if name.len() > SIGNER_BYTES_MAX {
        errors.push(FieldError::too_long(PATH, SIGNER_BYTES_MAX));
    }
}

/// Written once, for a request that is not denied.
fn certificate(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    const PATH: &str = "status.certificate";
    let (issued, before) = (str_at(new, "/status/certificate"), str_at(old, "/status/certificate"));
    if issued == before {
        return;
    }
    if !before.is_empty() {
        errors.push(FieldError::forbidden(PATH, "updates may not modify existing certificate content"));
    } else if conditions::has(new, "Denied") {
        errors.push(FieldError::forbidden(PATH, "a denied request gets no certificate"));
    }
    if !issued.is_empty()
        && let Err(error) = check_chain(&decoded(new, "/status/certificate"))
    {
        errors.push(FieldError::invalid(PATH, "<certificate data>", error.to_string()));
    }
}

/// The bytes of a field; none if it is no base64.
pub(crate) fn decoded(object: &Value, pointer: &str) -> Vec<u8> {
    STANDARD.decode(str_at(object, pointer)).unwrap_or_default()
}
