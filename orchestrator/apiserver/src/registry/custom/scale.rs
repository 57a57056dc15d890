//! Where a custom resource keeps what `/scale` shows.

use serde_json::{Map, Value};

use crate::error::FieldError;

/// Simple dotted paths, as the definition gives them (`.spec.replicas`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}

// === impl ScalePaths ===

impl ScalePaths {
    /// Reads `subresources.scale`.
    pub fn of(scale: &Value) -> Option<ScalePaths> {
        let text = |key: &str| scale[key].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        Some(ScalePaths {
            spec_replicas: text("specReplicasPath")?,
            status_replicas: text("statusReplicasPath")?,
            label_selector: text("labelSelectorPath"),
        })
    }

    /// The fields that lead to the wanted count.
    pub fn wanted_path(&self) -> impl Iterator<Item = &str> {
        keys(&self.spec_replicas)
    }

    /// The wanted count, if there is one.
    pub fn wanted(&self, object: &Value) -> Option<i64> {
        at(object, &self.spec_replicas).and_then(Value::as_i64)
    }

    /// The present count; 0 if nobody told.
    pub fn present(&self, object: &Value) -> i64 {
        at(object, &self.status_replicas).and_then(Value::as_i64).unwrap_or(0)
    }

    /// The selector in the query parameter's grammar; empty if there is none.
    pub fn selector(&self, object: &Value) -> String {
        let path = self.label_selector.as_deref();
        path.and_then(|path| at(object, path)).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Writes the wanted count, making the objects it stands in.
    pub fn set(&self, object: &mut Value, replicas: i64) {
        let mut here = object;
        for key in keys(&self.spec_replicas) {
            if !here.is_object() {
                *here = Value::Object(Map::new());
            }
            here = &mut here[key];
        }
        *here = replicas.into();
    }

    /// Counts that no workload can have.
    pub fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        for path in [&self.spec_replicas, &self.status_replicas] {
            let Some(count) = at(object, path).and_then(Value::as_i64) else { continue };
            let name = path.trim_start_matches('.');
            if count < 0 {
                errors.push(FieldError::invalid(name, count, "should be a non-negative integer"));
            } else if count > i64::from(i32::MAX) {
                let why = format!("should be less than or equal to {}", i32::MAX);
                errors.push(FieldError::invalid(name, count, why));
            }
        }
    }
}

fn keys(path: &str) -> impl Iterator<Item = &str> {
    path.trim_start_matches('.').split('.')
}

fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    keys(path).try_fold(object, |here, key| here.get(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_are_read_written_and_bounded() {
        let paths =
            ScalePaths::of(&json!({"specReplicasPath": ".spec.a.n", "statusReplicasPath": ".status.n"}))
                .unwrap();
        let mut object = json!({});
        assert_eq!((paths.wanted(&object), paths.present(&object)), (None, 0));
        paths.set(&mut object, 4);
        assert_eq!(object, json!({"spec": {"a": {"n": 4}}}));
        assert_eq!(paths.wanted(&object), Some(4));
        paths.set(&mut object, -1);
        let mut errors = Vec::new();
        paths.validate(&object, &mut errors);
        assert_eq!(errors[0].to_string(), "spec.a.n: Invalid value: -1: should be a non-negative integer");
    }
}
