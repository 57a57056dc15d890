//! Sets of fields in the form objects carry them: `FieldsV1`, a trie as JSON.

use serde_json::{Map, Value, json};

use super::element::{Element, ElementError};
use super::set::Set;
use crate::json::DEPTH_MAX;

/// The key that says that a node with parts is itself in the set.
const ITSELF: &str = ".";

/// Why a value is no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    #[error(transparent)]
    Element(#[from] ElementError),
    /// A node is something else than an object.
    #[error("{path:?} is not an object")]
    NotAnObject { path: String },
    /// Nesting that no object has.
    #[error("the set is nested deeper than {depth_max}")]
    TooDeep { depth_max: usize },
}

// === impl Set ===

impl Set {
    /// Reads `FieldsV1`. Elements of kinds that are not known are left out.
    ///
    /// # Errors
    /// Anything but a trie of elements.
    pub fn from_fields_v1(fields: &Value) -> Result<Set, FieldsError> {
        read(fields, "", 0).map(|(_, set)| set)
    }

    /// Whether `FieldsV1` has a field of this set. Costs what the set does, however large the other is.
    pub(crate) fn meets_fields_v1(&self, fields: &Value) -> bool {
        self.nodes().any(|(element, member, below)| {
            let Some(node) = fields.get(element.to_text()) else { return false };
            let itself = node.as_object().is_none_or(|inner| inner.is_empty() || inner.contains_key(ITSELF));
            (member && itself) || below.meets_fields_v1(node)
        })
    }

    /// Writes `FieldsV1`.
    pub fn to_fields_v1(&self) -> Value {
        let mut out = Map::new();
        for (element, member, below) in self.nodes() {
            let mut inner = below.to_fields_v1();
            if member && !below.is_empty() {
                inner[ITSELF] = json!({});
            }
            out.insert(element.to_text(), inner);
        }
        Value::Object(out)
    }
}

/// A node: whether it is itself in the set, and what is below it.
fn read(node: &Value, at: &str, depth: usize) -> Result<(bool, Set), FieldsError> {
    if depth > DEPTH_MAX {
        return Err(FieldsError::TooDeep { depth_max: DEPTH_MAX });
    }
    let fields = match node {
        Value::Object(fields) => fields,
        // Upstream reads null as an empty object.
        Value::Null => return Ok((true, Set::default())),
        _ => return Err(FieldsError::NotAnObject { path: at.to_owned() }),
    };
    let (mut itself, mut set) = (false, Set::default());
    for (text, inner) in fields {
        if text == ITSELF {
            itself = true;
            continue;
        }
        let element = match Element::parse(text) {
            Ok(element) => element,
            Err(ElementError::Unknown { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let (member, below) = read(inner, text, depth + 1)?;
        set.insert_node(element, member, below);
    }
    Ok((itself || set.is_empty(), set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_read_and_written_alike() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:x": {"v:1": {}}, "f:y": {"i:0": {}}},
        });
        let set = Set::from_fields_v1(&fields).unwrap();
        assert_eq!(set.len(), 6);
        assert_eq!(set.to_fields_v1(), fields);
        assert_eq!(Set::default().to_fields_v1(), json!({}));
    }

    #[test]
    fn a_set_meets_the_fields_it_shares() {
        let fields = json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"f:d": {}}});
        let meets = |path: &[&str]| Set::of([path]).meets_fields_v1(&fields);
        assert!(meets(&["a"]) && meets(&["a", "b"]) && meets(&["c", "d"]));
        assert!(!meets(&["c"]) && !meets(&["a", "c"]) && !meets(&["x"]) && !meets(&["a", "b", "e"]));
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let set =
            Set::from_fields_v1(&json!({"f:a": {"x:new": {}}, "f:b": {"f:c": {}, "x:new": {}}})).unwrap();
        assert_eq!(set.to_fields_v1(), json!({"f:a": {}, "f:b": {"f:c": {}}}));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for fields in [
            json!([]),
            json!("f:a"),
            json!({"f:a": 1}),
            json!({"spec": {}}),
            json!({"k:{": {}}),
            json!({"f:a": {"i:x": {}}}),
        ] {
            assert!(Set::from_fields_v1(&fields).is_err(), "{fields}");
        }
    }

    #[test]
    fn a_bomb_of_depth_is_refused() {
        let mut fields = json!({});
        for _ in 0..=DEPTH_MAX {
            fields = Value::Object(Map::from_iter([("f:a".to_owned(), fields)]));
        }
        assert_eq!(Set::from_fields_v1(&fields), Err(FieldsError::TooDeep { depth_max: DEPTH_MAX }));
        assert!(Set::from_fields_v1(&fields["f:a"]).is_ok());
    }
}
