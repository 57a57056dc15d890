//! Event in `events.k8s.io/v1`: the core Event under newer field names.

use serde_json::{Map, Value, json};

use crate::registry::definition::{Conversion, Declaration, StoredAs};
use crate::registry::kinds::core::events::OfVersion;
use crate::registry::meta::NameRule;
use crate::registry::object::str_at;
use crate::tables::core::EVENTS_V1;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("events.k8s.io", "v1", "Event", "events")
        .short(&["ev"])
        .columns(EVENTS_V1)
        .name_rule(NameRule::PathSegment)
        .create_on_update()
        .stored_as(StoredAs {
            group: "".into(),
            version: "v1".into(),
            plural: "events".into(),
            conversion: Conversion { to_stored, from_stored },
        })
        .fields(
            &[
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "reason",
                "reportingController",
                "type",
            ],
            |o| {
                let about = |f: &str| str_at(o, &format!("/regarding/{f}")).to_string();
                vec![
                    ("regarding.kind", about("kind")),
                    ("regarding.namespace", about("namespace")),
                    ("regarding.name", about("name")),
                    ("regarding.uid", about("uid")),
                    ("reason", str_at(o, "/reason").to_string()),
                    ("reportingController", str_at(o, "/reportingController").to_string()),
                    ("type", str_at(o, "/type").to_string()),
                ]
            },
        )
        .strategy(OfVersion {
            about: "regarding",
            reporter: "reportingController",
            note: "note",
            strict: true,
        })
}

/// New name and old name of every field that has two.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(mut value: Value, pairs: impl Iterator<Item = (&'static str, &'static str)>) -> Value {
    if let Some(map) = value.as_object_mut() {
        for (from, to) in pairs {
            if let Some(v) = map.remove(from) {
                map.insert(to.into(), v);
            }
        }
    }
    value
}

fn to_stored(value: Value) -> Value {
    let mut v = rename(value, RENAMED.into_iter());
    // Required in the core form.
    for (field, empty) in [("involvedObject", json!({})), ("source", Value::Object(Map::new()))] {
        if v.get(field).is_none() {
            v[field] = empty;
        }
    }
    v
}

fn from_stored(value: Value) -> Value {
    let mut v = rename(value, RENAMED.into_iter().map(|(new, old)| (old, new)));
    let is_empty = v["deprecatedSource"].as_object().is_some_and(Map::is_empty);
    if is_empty && let Some(map) = v.as_object_mut() {
        map.remove("deprecatedSource");
    }
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_the_way_there_and_back() {
        let v = json!({"regarding": {"kind": "Pod"}, "note": "x", "deprecatedSource": {"component": "c"}, "reason": "R"});
        assert_eq!(from_stored(to_stored(v.clone())), v);
    }
}
