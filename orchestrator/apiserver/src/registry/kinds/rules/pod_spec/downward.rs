//! What a pod may read of itself, in its environment and in files.

use penstock_schema::Quantity;
use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::quantity;
use crate::registry::meta::names;
use crate::registry::object::str_at;

/// Fields an environment variable may hold.
pub(super) const OF_ENVIRONMENT: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields a file may hold.
pub(super) const OF_VOLUME: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields that have a name at all.
const KNOWN: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
const AMOUNTS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTE_UNITS: &[&str] =
    &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// A `fieldRef`, to one of `allowed` or an entry of labels or annotations.
pub(super) fn field(reference: &Value, allowed: &[&str], path: &str, errors: &mut Vec<FieldError>) {
    let at = format!("{path}.fieldPath");
    let said = match str_at(reference, "/fieldPath") {
        "" => {
            errors.push(FieldError::required(at, ""));
            return;
        }
        "spec.host" => "spec.nodeName",
        said => said,
    };
    let entry = said.strip_suffix("']").and_then(|it| it.split_once("['")).filter(|(map, _)| !map.is_empty());
    let why = match entry {
        Some(("metadata.annotations", key)) => {
            names::qualified_name(&key.to_lowercase()).map(|why| (path, key, why))
        }
        Some(("metadata.labels", key)) => names::qualified_name(key).map(|why| (path, key, why)),
        Some(_) => {
            let why = format!("error converting fieldPath: field label does not support subscript: {said}");
            Some((at.as_str(), said, why))
        }
        None if !KNOWN.contains(&said) => {
            let why = format!("error converting fieldPath: field label not supported: {said}");
            Some((at.as_str(), said, why))
        }
        None => {
            if !allowed.contains(&said) {
                errors.push(FieldError::not_supported(at.as_str(), said, allowed));
            }
            None
        }
    };
    if let Some((path, value, why)) = why {
        errors.push(FieldError::invalid(path, value, why));
    }
}

/// A `resourceFieldRef`; in a volume it names its container.
pub(super) fn resource(reference: &Value, in_volume: bool, path: &str, errors: &mut Vec<FieldError>) {
    let said = str_at(reference, "/resource");
    let is_huge = said.starts_with("limits.hugepages-") || said.starts_with("requests.hugepages-");
    if in_volume && str_at(reference, "/containerName").is_empty() {
        errors.push(FieldError::required(format!("{path}.containerName"), ""));
    } else if said.is_empty() {
        errors.push(FieldError::required(format!("{path}.resource"), ""));
    } else if !AMOUNTS.contains(&said) && !is_huge {
        errors.push(FieldError::not_supported(format!("{path}.resource"), said, AMOUNTS));
    }
    let Some(divisor) = quantity(&reference["divisor"]).filter(|it| *it != Quantity::ZERO) else { return };
    let (units, of) = match said {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"][..], "cpu"),
        "limits.memory" | "requests.memory" => (BYTE_UNITS, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (BYTE_UNITS, "local ephemeral storage"),
        _ if is_huge => (BYTE_UNITS, "hugepages"),
        _ => return,
    };
    if !units.iter().any(|unit| Quantity::parse(unit) == Some(divisor)) {
        let listed = if of == "cpu" { "1m and 1".to_owned() } else { units.join(", ") };
        let why = format!("only divisor's values {listed} are supported with the {of} resource");
        errors.push(FieldError::invalid(format!("{path}.divisor"), said, why));
    }
}
