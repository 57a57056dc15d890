//! Rules over objects, and definitions whose rules are wrong or too dear.

use serde_json::{Value, json};

use super::Rules;
use super::definitions::errors_of;

fn schema(spec: Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

fn broken(schema: &Value, new: Value, old: Option<Value>) -> Vec<String> {
    let rules = Rules::compile(schema).expect("there are rules");
    rules.validate(&new, old.as_ref()).iter().map(ToString::to_string).collect()
}

fn wrong(spec: Value) -> Vec<String> {
    errors_of(&schema(spec), "schema").iter().map(ToString::to_string).collect()
}

#[test]
fn rules_are_held_to_at_every_level() {
    let schema = schema(json!({
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.min <= self.max", "message": "min is beyond max", "fieldPath": ".min"},
            {"rule": "self.min >= 0", "messageExpression": "'min is ' + string(self.min)", "reason": "FieldValueForbidden"},
        ],
        "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"},
            "names": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [
                {"rule": "self.startsWith('n-')"}]}},
            "tags": {"type": "object", "additionalProperties": {"type": "integer", "x-kubernetes-validations": [
                {"rule": "self % 2 == 0", "message": "must be even"}]}},
        },
    }));
    let good = json!({"spec": {"min": 1, "max": 2, "names": ["n-a"], "tags": {"x": 2}}});
    assert_eq!(broken(&schema, good, None), Vec::<String>::new());
    let bad = json!({"spec": {"min": -1, "max": -2, "names": ["n-a", "b"], "tags": {"x": 1}}});
    assert_eq!(
        broken(&schema, bad, None),
        [
            "spec.min: Invalid value: min is beyond max",
            "spec: Forbidden: min is -1",
            "spec.names[1]: Invalid value: \"b\": failed rule: self.startsWith('n-')",
            "spec.tags[x]: Invalid value: 1: must be even",
        ]
    );
}

#[test]
fn transitions_compare_with_what_was_there() {
    let schema = schema(json!({
        "type": "object",
        "properties": {
            "size": {"type": "integer", "x-kubernetes-validations": [
                {"rule": "self >= oldSelf", "message": "may not shrink"}]},
            "mode": {"type": "string", "x-kubernetes-validations": [
                {"rule": "oldSelf.hasValue() || self == 'new'", "optionalOldSelf": true}]},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "self.n == oldSelf.n", "message": "n stays"}]}},
        },
    }));
    let old =
        json!({"spec": {"size": 3, "mode": "x", "parts": [{"name": "a", "n": 1}, {"name": "b", "n": 2}]}});
    let new =
        json!({"spec": {"size": 2, "mode": "y", "parts": [{"name": "b", "n": 3}, {"name": "c", "n": 9}]}});
    assert_eq!(
        broken(&schema, new.clone(), Some(old)),
        ["spec.parts[0]: Invalid value: n stays", "spec.size: Invalid value: 2: may not shrink"]
    );
    let made = broken(&schema, new, None);
    assert_eq!(made.len(), 1, "{made:?}");
    assert!(
        made[0].starts_with("spec.mode: Invalid value: \"y\": failed rule: oldSelf.hasValue()"),
        "{made:?}"
    );
}

#[test]
fn what_an_update_leaves_alone_may_stay_wrong() {
    let schema = schema(json!({"type": "object", "properties": {
        "a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 5"}]},
        "b": {"type": "integer"}}}));
    let old = json!({"spec": {"a": 1, "b": 1}});
    assert_eq!(broken(&schema, json!({"spec": {"a": 1, "b": 2}}), Some(old.clone())), Vec::<String>::new());
    assert_eq!(broken(&schema, json!({"spec": {"a": 2, "b": 2}}), Some(old)).len(), 1);
}

#[test]
fn types_follow_formats_and_names_are_escaped() {
    let schema = schema(json!({
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.until > timestamp('2024-01-01T00:00:00Z') && self.day.getFullYear() == 2024"},
            {"rule": "self.every <= duration('1h') && size(self.data) == 2"},
            {"rule": "self.foo__dash__bar == 1 && self.__namespace__ == 'x'"},
            {"rule": "type(self.port) == string || self.port < 10"},
            {"rule": "self.ratio / 2.0 == 0.5"},
        ],
        "properties": {
            "until": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"},
            "every": {"type": "string", "format": "duration"}, "data": {"type": "string", "format": "byte"},
            "foo-bar": {"type": "integer"}, "namespace": {"type": "string"},
            "port": {"x-kubernetes-int-or-string": true}, "ratio": {"type": "number"},
        },
    }));
    assert_eq!(errors_of(&schema, "schema"), []);
    let object = json!({"spec": {"until": "2024-02-01T00:00:00Z", "day": "2024-02-01", "every": "30m", "data": "aGk=",
        "foo-bar": 1, "namespace": "x", "port": "http", "ratio": 1}});
    assert_eq!(broken(&schema, object, None), Vec::<String>::new());
}

#[test]
fn evaluation_stops_when_the_budget_is_spent() {
    let schema = schema(json!({"type": "object", "properties": {"list": {
        "type": "array", "items": {"type": "integer"},
        "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a + b >= 0))"}, {"rule": "self.size() == 0"}]}}}));
    let list: Vec<u32> = (0..10_000).collect();
    let errors = broken(&schema, json!({"spec": {"list": list}}), None);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains("no further validation rules will be run due to call cost exceeds limit"),
        "{errors:?}"
    );
}

#[test]
fn errors_of_evaluation_name_the_rule() {
    let schema = schema(json!({"type": "object", "properties": {"map": {
        "type": "object", "additionalProperties": {"type": "string"},
        "x-kubernetes-validations": [{"rule": "self['x'] == 'y'"}]}}}));
    let errors = broken(&schema, json!({"spec": {"map": {}}}), None);
    assert_eq!(errors, ["spec.map: Invalid value: no such key: x evaluating rule: self['x'] == 'y'"]);
}

#[test]
fn wrong_rules_are_refused_with_the_definition() {
    let rule = |rule: Value| {
        json!({"type": "object", "properties": {"n": {"type": "integer"}},
        "x-kubernetes-validations": [rule]})
    };
    let at = "schema.properties[spec].x-kubernetes-validations[0]";
    for (given, wanted) in [
        (json!({"rule": " "}), format!("{at}.rule: Required value: rule is not specified")),
        (json!({"rule": "self.m > 1"}), "compilation failed: ERROR: <input>:1:5: undefined field 'm'".into()),
        (json!({"rule": "self.n + 1"}), "cel expression must evaluate to a bool".into()),
        (
            json!({"rule": "true", "message": "a\nb"}),
            format!("{at}.message: Invalid value: \"a\\nb\": must not contain line breaks"),
        ),
        (
            json!({"rule": "self.n >\n1"}),
            format!("{at}.message: Required value: message must be specified if rule contains line breaks"),
        ),
        (
            json!({"rule": "true", "messageExpression": "1"}),
            "messageExpression must evaluate to a string".into(),
        ),
        (json!({"rule": "true", "reason": "Odd"}), format!("{at}.reason: Unsupported value: \"Odd\"")),
        (
            json!({"rule": "true", "fieldPath": ".x"}),
            format!("{at}.fieldPath: Invalid value: \".x\": must be a valid path"),
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            "may not be set if oldSelf is not used in rule".into(),
        ),
    ] {
        let errors = wrong(rule(given)).join("\n");
        assert!(errors.contains(&wanted), "{wanted}\nis not in\n{errors}");
    }
    assert_eq!(wrong(rule(json!({"rule": "self.n > 1", "fieldPath": ".n"}))), Vec::<String>::new());
    let uncorrelated = json!({"type": "array", "maxItems": 10, "items": {"type": "integer",
        "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
    let errors = wrong(uncorrelated).join("\n");
    assert!(errors.contains("oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[spec]"), "{errors}");
}

#[test]
fn rules_that_may_never_end_are_refused() {
    let nested = |bounds: Value| {
        let mut list = json!({"type": "array", "items": {"type": "integer"},
            "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a != b))"}]});
        list.as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
        wrong(list)
    };
    let errors = nested(json!({})).join("\n");
    assert!(
        errors.contains("rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x"),
        "{errors}"
    );
    assert_eq!(nested(json!({"maxItems": 100})), Vec::<String>::new());
    let strings = |bounds: Value| {
        let mut text =
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "self.contains('x')"}]});
        text.as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
        wrong(json!({"type": "array", "items": text}))
    };
    assert!(!strings(json!({})).is_empty(), "an unbounded list of unbounded strings");
    assert_eq!(strings(json!({"maxLength": 20})), Vec::<String>::new());
    let plain = json!({"type": "array", "items": {"type": "string"},
        "x-kubernetes-validations": [{"rule": "self.size() > 0 && self.all(x, x.size() > 1)"}]});
    assert_eq!(wrong(plain), Vec::<String>::new(), "one unbounded list is within what is paid for");
}
