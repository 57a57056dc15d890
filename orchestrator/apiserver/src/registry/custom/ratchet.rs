//! Ratcheting: an update may leave alone what was wrong before it, when the rules came after the object.

use penstock_schema::validation::{Rule, Violation};
use serde_json::Value;

/// The violations an update is answerable for: those of values it changed.
pub(crate) fn of_changes(violations: Vec<Violation>, new: &Value, old: &Value) -> Vec<Violation> {
    let changed = |violation: &Violation| {
        let path = match violation.rule {
            // What is missing is missing from its parent.
            Rule::Required => violation.path.rsplit_once('.').map_or("", |(parent, _)| parent),
            _ => violation.path.as_str(),
        };
        path.is_empty() || at(new, path) != at(old, path) || at(old, path).is_none()
    };
    violations.into_iter().filter(changed).collect()
}

/// The value at a path as violations print it. Keys may hold dots, so all that fit are tried.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    if path.is_empty() {
        return Some(value);
    }
    match value {
        Value::Array(items) => {
            let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
            at(items.get(index.parse::<usize>().ok()?)?, rest.strip_prefix('.').unwrap_or(rest))
        }
        Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            let rest = path.strip_prefix(key.as_str())?;
            match rest.chars().next() {
                None => Some(value),
                Some('.') => at(value, &rest[1..]),
                Some('[') => at(value, rest),
                Some(_) => None,
            }
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use penstock_schema::validation::Validator;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_changed_must_keep_to_new_rules() {
        let schema = json!({"type": "object", "properties": {"spec": {
            "type": "object", "required": ["must"],
            "properties": {"n": {"type": "integer", "maximum": 5}, "t": {"type": "string", "maxLength": 1},
                           "l": {"type": "array", "items": {"type": "string", "enum": ["a"]}}}}}});
        let validator = Validator::compile(&schema).unwrap();
        let old = json!({"spec": {"n": 9, "t": "ab", "l": ["x"]}});
        let mut new = old.clone();
        let broken = |new: &Value| -> Vec<String> {
            of_changes(validator.validate(new), new, &old).into_iter().map(|v| v.path).collect()
        };
        assert_eq!(broken(&new), Vec::<String>::new());
        new["spec"]["n"] = json!(8);
        assert_eq!(broken(&new), ["spec.n", "spec.must"]);
        new["spec"]["l"] = json!(["x", "y"]);
        assert_eq!(broken(&new), ["spec.l[1]", "spec.n", "spec.must"]);
    }
}
