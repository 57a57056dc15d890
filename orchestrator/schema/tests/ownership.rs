//! Laws of owned fields, on generated objects and on anything that may stand where a set should.

#[path = "generate/generate.rs"]
mod generate;

use std::borrow::Cow;

use generate::Source;
use penstock_schema::ownership::claims::{Applied, Write};
use penstock_schema::ownership::{Filter, Managed, Manager, Set, Versions, combine, walk};
use penstock_schema::{Map, Schema, TypeRef, Value};
use proptest::prelude::*;

const KINDS: &[(&str, &str, &str)] = &[
    ("apps", "v1", "Deployment"),
    ("", "v1", "Pod"),
    ("", "v1", "Service"),
    ("", "v1", "ConfigMap"),
    ("networking.k8s.io", "v1", "NetworkPolicy"),
];

struct Only(TypeRef);

impl Versions for Only {
    fn convert<'v>(&self, object: &'v Value, _: &str) -> Option<(TypeRef, Cow<'v, Value>)> {
        Some((self.0.clone(), Cow::Borrowed(object)))
    }

    fn back(&self, object: Value, _: &str) -> Value {
        object
    }
}

fn apply(ty: &TypeRef, name: &str, before: &Applied, config: &Value, now: &str) -> Applied {
    let (versions, filter) = (Only(ty.clone()), Filter::default());
    let write = Write { versions: &versions, filter: &filter, api_version: "v1", now };
    let manager = Manager::applying(name, "");
    write.apply(&manager, before.managed.clone(), &before.object, config, true).expect("forced")
}

fn nothing() -> Applied {
    Applied { object: Value::Object(Map::new()), managed: Managed::default() }
}

/// An object whose items can be told apart, as a config must be, without what nobody owns.
fn config(kind: usize, seed: u64) -> Option<(TypeRef, Value)> {
    let (group, version, kind) = KINDS[kind % KINDS.len()];
    let ty = Schema::builtin().kind(group, version, kind).expect("a kind");
    let mut object = generate::object(&ty, &mut Source(seed));
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        const OWNED: &[&str] = &["annotations", "finalizers", "labels", "ownerReferences"];
        metadata.retain(|field, _| OWNED.contains(&field.as_str()));
    }
    if object.get("metadata") == Some(&Value::Object(Map::new())) {
        object.as_object_mut()?.remove("metadata");
    }
    walk::faults_of(&ty, &object).is_empty().then_some((ty, object))
}

/// JSON that looks like a set, more or less.
fn fields() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        "[fkvix]:[a-z0-9\"{}:.,\\[\\]-]{0,12}",
        Just(".".to_owned()),
        Just("k:{\"name\":\"a\"}".to_owned()),
        Just("v:1e400".to_owned()),
        ".{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Object(Map::new())),
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::btree_map(key.clone(), inner.clone(), 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
            prop::collection::vec(inner, 0..3).prop_map(Value::Array),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_set_survives_its_form_on_the_wire(kind in any::<usize>(), seed in any::<u64>()) {
        let Some((ty, object)) = config(kind, seed) else { return Ok(()) };
        let set = walk::fields_of(&ty, &object);
        prop_assert_eq!(Set::from_fields_v1(&set.to_fields_v1()), Ok(set));
    }

    #[test]
    fn to_apply_again_changes_nothing(kind in any::<usize>(), seed in any::<u64>()) {
        let Some((ty, object)) = config(kind, seed) else { return Ok(()) };
        let once = apply(&ty, "a", &nothing(), &object, "1");
        prop_assert_eq!(&once.object, &object);
        let twice = apply(&ty, "a", &once, &object, "2");
        prop_assert_eq!(&twice.object, &once.object);
        prop_assert_eq!(twice.managed, once.managed);
    }

    #[test]
    fn another_config_leaves_no_more_than_it_names(kind in any::<usize>(), a in any::<u64>(), b in any::<u64>()) {
        let (Some((ty, first)), Some((_, second))) = (config(kind, a), config(kind, b)) else { return Ok(()) };
        let after = apply(&ty, "a", &apply(&ty, "a", &nothing(), &first, "1"), &second, "2");
        prop_assert_eq!(
            walk::fields_of(&ty, &after.object).difference(&walk::fields_of(&ty, &second)),
            Set::default()
        );
        prop_assert!(walk::compare(&ty, &second, &after.object).modified.is_empty());
    }

    #[test]
    fn disjoint_configs_may_come_in_any_order(kind in any::<usize>(), seed in any::<u64>(), split in any::<u64>()) {
        let Some((ty, object)) = config(kind, seed) else { return Ok(()) };
        let (mut left, mut right) = (Map::new(), Map::new());
        for (part, fields) in object.as_object().expect("an object") {
            for (n, (name, value)) in fields.as_object().into_iter().flatten().enumerate() {
                let side = if split >> (n % 64) & 1 == 0 { &mut left } else { &mut right };
                let map = side.entry(part.clone()).or_insert_with(|| Value::Object(Map::new()));
                map[name.as_str()] = value.clone();
            }
        }
        let (left, right) = (Value::Object(left), Value::Object(right));
        let one = apply(&ty, "b", &apply(&ty, "a", &nothing(), &left, "1"), &right, "1");
        let other = apply(&ty, "a", &apply(&ty, "b", &nothing(), &right, "1"), &left, "1");
        prop_assert_eq!(&one.object, &other.object);
        prop_assert_eq!(&one.managed, &other.managed);
        // And whoever goes takes what is theirs and nothing else.
        let without = apply(&ty, "a", &one, &Value::Object(Map::new()), "2");
        prop_assert_eq!(walk::fields_of(&ty, &without.object), walk::fields_of(&ty, &right));
    }

    #[test]
    fn nothing_differs_from_itself_and_a_merge_holds_its_config(kind in any::<usize>(), a in any::<u64>(), b in any::<u64>()) {
        let (Some((ty, live)), Some((_, config))) = (config(kind, a), config(kind, b)) else { return Ok(()) };
        prop_assert!(walk::compare(&ty, &live, &live).is_empty());
        let merged = combine::merge(&ty, &live, &config);
        let found = walk::compare(&ty, &config, &merged);
        prop_assert!(found.modified.is_empty() && found.removed.is_empty(), "{:?}", found);
    }

    #[test]
    fn what_is_no_set_is_an_error_and_no_panic(fields in fields()) {
        if let Ok(set) = Set::from_fields_v1(&fields) {
            prop_assert_eq!(Set::from_fields_v1(&set.to_fields_v1()), Ok(set));
        }
        let entry = serde_json::json!([{"manager": "m", "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": fields}]);
        if let Ok(managed) = Managed::read(Some(&entry)) {
            prop_assert_eq!(Managed::read(Some(&Value::Array(managed.clone().write()))), Ok(managed));
        }
        prop_assert!(Managed::read(Some(&fields)).is_err() || fields.is_null() || fields.as_array().is_some_and(Vec::is_empty));
    }
}
