//! The engine judged by rules of a kind that is none.

use serde_json::{Value, json};

use super::*;
use crate::registry::meta::names;

const RULES: &[Rule] = &[
    at("spec.name", Check::Required("say it")),
    at("spec.items[].port", Check::Port),
    at("spec.items", Check::Unique(&["port"])),
    at("spec.amounts{}", Check::NotNegative),
    at("spec.mode", Check::OneOf(&["A", "B"])),
    within("spec.inner", &[at("kind", Check::Required("")), at("name", Check::Name(names::label))]),
    when("spec.mode", &["B"], &[at("spec.only", Check::Forbidden("not with B"))]),
];

fn found(object: Value) -> Vec<String> {
    let mut errors = Vec::new();
    judge(RULES, &object, "", &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_object_has_no_errors() {
    let good = json!({"spec": {"name": "x", "items": [{"port": 1}, {"port": "http"}, {}, {}],
        "amounts": {"cpu": "1"}, "mode": "A", "only": "y", "inner": {"kind": "k", "name": "n"}}});
    assert_eq!(found(good), Vec::<String>::new());
}

#[test]
fn every_broken_rule_is_told_under_its_path() {
    let bad = json!({"spec": {"items": [{"port": 0}, {"port": 7}, {"port": 7}], "amounts": {"cpu": "-1"},
        "mode": "C", "inner": {"name": "N"}}});
    let told = found(bad);
    let starts = [
        "spec.name: Required value: say it",
        "spec.items[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        "spec.items[2].port: Duplicate value: 7",
        "spec.amounts[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        "spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\"",
        "spec.inner.kind: Required value",
        "spec.inner.name: Invalid value: \"N\": a lowercase RFC 1123 label",
    ];
    assert_eq!(told.len(), starts.len(), "{told:?}");
    for (said, start) in told.iter().zip(starts) {
        assert!(said.starts_with(start), "{said}");
    }
}

#[test]
fn what_is_absent_is_asked_for_what_it_must_have_and_a_pointer_is_not() {
    assert_eq!(found(json!({})), ["spec.name: Required value: say it"]);
}

#[test]
fn a_condition_guards_its_rules() {
    let of = |mode: &str| found(json!({"spec": {"name": "x", "mode": mode, "only": "y"}}));
    assert_eq!(of("A"), Vec::<String>::new());
    assert_eq!(of("B"), ["spec.only: Forbidden: not with B"]);
}

#[test]
fn what_is_fixed_may_be_written_otherwise_but_not_changed() {
    let told = |new: Value, old: Value, fixed: Fixed| {
        let mut errors = Vec::new();
        fixed.judge(&new, &old, &mut errors);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(told(json!({"a": {"b": {}}}), json!({}), Fixed::Field("a.b")).is_empty());
    assert_eq!(
        told(json!({"a": 1}), json!({"a": 2}), Fixed::Field("a")),
        ["a: Invalid value: 1: field is immutable"]
    );
    assert_eq!(told(json!({"a": 1}), json!({}), Fixed::Sealed("a", "no")), ["a: Forbidden: no"]);
}
