//! Volumes made of several sources, and files that tell a pod about itself.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::downward;
use super::sources::KEY_TO_PATH;
use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at, within};
use crate::registry::kinds::rules::labels::validate_selector;
use crate::registry::kinds::rules::paths::{file_mode, non_reserved};
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

const KINDS: &[&str] =
    &["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

const NAMED: &[Rule] = &[at("name", Check::Required("")), within("items[]", KEY_TO_PATH)];

const FILE: &[Rule] = &[
    at("path", Check::Required("")),
    at("path", Check::Judge(non_reserved)),
    at("mode", Check::Judge(file_mode)),
    at("", Check::Judge(file_source)),
];

const CERTIFICATE: &[Rule] = &[
    at("signerName", Check::Required("")),
    at("keyType", Check::OneOf(&["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"])),
    at("credentialBundlePath", Check::Judge(non_reserved)),
    at("keyPath", Check::Judge(non_reserved)),
    at("certificateChainPath", Check::Judge(non_reserved)),
    at("", Check::Judge(certificate)),
];

/// The files of a downward API volume; upstream names the volume in their errors, not the file.
pub(super) fn downward_files(volume: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for file in items_at(volume, "/items") {
        field_rules::judge(FILE, file, path, errors);
    }
}

fn file_source(file: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let (field, resource) = (&file["fieldRef"], &file["resourceFieldRef"]);
    if !field.is_null() {
        downward::field(field, downward::OF_VOLUME, &format!("{path}.fieldRef"), errors);
        if !resource.is_null() {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(FieldError::invalid(path, "resource", why));
        }
    } else if !resource.is_null() {
        downward::resource(resource, true, &format!("{path}.resourceFieldRef"), errors);
    } else {
        errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
    }
}

/// The sources of a projected volume: one each, and no two of a path.
pub(super) fn validate(volume: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut taken = BTreeSet::new();
    for (i, source) in items_at(volume, "/sources").iter().enumerate() {
        let at = format!("{path}.sources[{i}]");
        for kind in ["secret", "configMap"] {
            if !source[kind].is_null() {
                field_rules::judge(NAMED, &source[kind], &format!("{at}.{kind}"), errors);
            }
        }
        downward_files(&source["downwardAPI"], &format!("{at}.downwardAPI"), errors);
        token(&source["serviceAccountToken"], path, &format!("{at}.serviceAccountToken"), errors);
        trust_bundle(&source["clusterTrustBundle"], &format!("{at}.clusterTrustBundle"), errors);
        if !source["podCertificate"].is_null() {
            let at = format!("{at}.podCertificate");
            field_rules::judge(CERTIFICATE, &source["podCertificate"], &at, errors);
        }
        for (shown, file) in paths_of(source) {
            if !file.is_empty() && !taken.insert(file) {
                errors.push(FieldError::invalid(path, shown, "conflicting duplicate paths"));
            }
        }
        if KINDS.iter().filter(|kind| !source[**kind].is_null()).count() > 1 {
            let why = "may not specify more than 1 volume type per source";
            errors.push(FieldError::forbidden(at, why));
        }
    }
}

/// Every file a source makes, beside what an error of it shows.
fn paths_of(source: &Value) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for kind in ["secret", "configMap"] {
        let name = str_at(&source[kind], "/name");
        found.extend(items_at(&source[kind], "/items").iter().map(|it| (name, str_at(it, "/path"))));
    }
    let own = |text| (text, text);
    found.extend(items_at(source, "/downwardAPI/items").iter().map(|it| own(str_at(it, "/path"))));
    found.push(own(str_at(source, "/clusterTrustBundle/path")));
    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        found.push(own(str_at(&source["podCertificate"], &format!("/{field}"))));
    }
    found
}

fn token(token: &Value, volume_path: &str, path: &str, errors: &mut Vec<FieldError>) {
    if token.is_null() {
        return;
    }
    if let Some(seconds) = token["expirationSeconds"].as_i64() {
        let at = format!("{path}.expirationSeconds");
        if seconds < 600 {
            errors.push(FieldError::invalid(at, seconds, "may not specify a duration less than 10 minutes"));
        } else if seconds > 1 << 32 {
            errors.push(FieldError::invalid(
                at,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
    }
    let at = format!("{volume_path}.path");
    if field_rules::is_empty(&token["path"]) {
        errors.push(FieldError::required(at, ""));
    } else {
        non_reserved(&token["path"], &at, errors);
    }
}

fn trust_bundle(bundle: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if bundle.is_null() {
        return;
    }
    match (bundle["name"].as_str(), bundle["signerName"].as_str()) {
        (Some(_), Some(_)) => {
            let why = "only one of name and signerName may be used";
            errors.push(FieldError::invalid(path, bundle.clone(), why));
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.push(FieldError::required(format!("{path}.name"), "must be a valid object name"));
            }
            if !bundle["labelSelector"].is_null() {
                let why = "labelSelector must be unset if name is specified";
                let at = format!("{path}.labelSelector");
                errors.push(FieldError::invalid(at, bundle["labelSelector"].clone(), why));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors
                    .push(FieldError::required(format!("{path}.signerName"), "must be a valid signer name"));
            } else if let Some(why) = names::domain_prefixed_path(signer) {
                errors.push(FieldError::invalid(format!("{path}.signerName"), signer, why));
            }
            validate_selector(&bundle["labelSelector"], &format!("{path}.labelSelector"), errors);
        }
        (None, None) => {
            errors.push(FieldError::required(path, "either name or signerName must be specified"));
        }
    }
    let at = format!("{path}.path");
    if field_rules::is_empty(&bundle["path"]) {
        errors.push(FieldError::required(at.as_str(), ""));
    }
    non_reserved(&bundle["path"], &at, errors);
}

fn certificate(certificate: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let paths = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    if paths.iter().all(|field| field_rules::is_empty(&certificate[*field])) {
        let why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path, why));
    }
    if let Some(seconds) = certificate["maxExpirationSeconds"].as_i64()
        && seconds < 3600
    {
        let why = "if provided, maxExpirationSeconds must be >= 3600";
        errors.push(FieldError::invalid(format!("{path}.maxExpirationSeconds"), seconds, why));
    }
}
