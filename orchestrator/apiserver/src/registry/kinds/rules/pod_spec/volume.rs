//! Volumes of a pod spec: each of one source.

use serde_json::Value;

use super::mounts::Volumes;
use crate::error::FieldError;
use crate::registry::field_rules;
use crate::registry::meta::names;
use crate::registry::object::str_at;

mod projected;
pub(crate) mod sources;

/// The volumes by name, for mounts to refer to.
pub(super) fn validate<'a>(volumes: &'a [Value], path: &str, errors: &mut Vec<FieldError>) -> Volumes<'a> {
    let mut seen = Volumes::new();
    for (i, v) in volumes.iter().enumerate() {
        let at = format!("{path}[{i}]");
        let name = str_at(v, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else if let Some(why) = names::label(name) {
            errors.push(FieldError::invalid(format!("{at}.name"), name, why));
        }
        if seen.insert(name, v).is_some() && !name.is_empty() {
            errors.push(FieldError::duplicate(format!("{at}.name"), name));
        }
        one_source(v, sources::OF_POD, &at, errors);
    }
    seen
}

/// Exactly one of `sources` is there, and keeps its rules. `value` may have other fields.
pub(crate) fn one_source(
    value: &Value,
    sources: &[sources::Source],
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let mut given = sources.iter().filter(|(kind, _)| !value[*kind].is_null());
    let Some((kind, rules)) = given.next() else {
        errors.push(FieldError::required(path, "must specify a volume type"));
        return;
    };
    field_rules::judge(rules, &value[*kind], &format!("{path}.{kind}"), errors);
    for (kind, _) in given {
        errors
            .push(FieldError::forbidden(format!("{path}.{kind}"), "may not specify more than 1 volume type"));
    }
}
