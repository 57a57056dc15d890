//! VolumeAttachment: the wish that a volume be attached to a node. It is made anew rather than changed.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::field_rules::{self, Check, Fixed, Rule, at, within};
use crate::registry::kinds::core::persistentvolumes::INLINE_SPEC;
use crate::registry::meta::{annotation_bytes, names};

pub(crate) fn declaration() -> Declaration {
    Declaration::new("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments")
        .cluster_scoped()
        .subresources(&[STATUS])
        .rules(RULES)
        .fixed(&[Fixed::Field("spec")])
        .status_rules(STATUS_RULES)
}

const STATUS_RULES: &[Rule] = &[
    at("status.attachmentMetadata", Check::Judge(metadata_bytes)),
    within("status.attachError", ERROR),
    within("status.detachError", ERROR),
];

const METADATA_BYTES_MAX: usize = 256 * 1024;

const RULES: &[Rule] = &[
    at("spec.attacher", Check::Required("")),
    at("spec.attacher", Check::Name(names::csi_driver)),
    at("spec.source", Check::Judge(source)),
    at("spec.nodeName", Check::Text(names::subdomain)),
    at("spec.source.persistentVolumeName", Check::Text(names::subdomain)),
];

const ERROR: &[Rule] =
    &[at("message", Check::BytesMax(1024)), at("errorCode", Check::Between(0, i32::MAX as i64))];

fn source(source: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.get("inlineVolumeSpec"), source["persistentVolumeName"].as_str()) {
        (None, None) => errors.push(FieldError::required(path, ONE)),
        (Some(_), Some(_)) => errors.push(FieldError::forbidden(path, ONE)),
        (None, Some("")) => {
            let why = "must specify non empty persistentVolumeName";
            errors.push(FieldError::required(format!("{path}.persistentVolumeName"), why));
        }
        (None, Some(_)) => {}
        (Some(inline), None) => {
            field_rules::judge(INLINE_SPEC, inline, &format!("{path}.inlineVolumeSpec"), errors);
        }
    }
}

fn metadata_bytes(metadata: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if metadata.as_object().is_some_and(|map| annotation_bytes(map) > METADATA_BYTES_MAX) {
        errors.push(FieldError::too_long(path, METADATA_BYTES_MAX));
    }
}
