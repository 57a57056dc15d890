//! How volumes may be mounted: by whom, and as what.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::Judge;

pub(crate) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
/// A list of access modes that go together.
pub(crate) const ACCESS_MODES: Judge = access_modes;

const KNOWN: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(modes: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let modes: Vec<&str> = modes.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for mode in modes.iter().filter(|mode| !KNOWN.contains(mode)) {
        errors.push(FieldError::not_supported(path, *mode, KNOWN));
    }
    let is_alone = |mode: &&str| *mode == "ReadWriteOncePod";
    if modes.iter().any(is_alone) && modes.iter().any(|mode| KNOWN.contains(mode) && !is_alone(mode)) {
        errors.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}
