//! Broken rules of every kind, and how they are told.

use serde_json::json;

use super::*;

/// The violations of a value, one a line: `path: rule value: detail`.
#[track_caller]
fn check(schema: Value, value: Value, expect: &[&str]) {
    let validator = Validator::compile(&schema).unwrap();
    let found: Vec<String> = validator
        .validate(&value)
        .into_iter()
        .map(|v| format!("{}: {:?} {}: {}", v.path, v.rule, v.value, v.detail))
        .collect();
    assert_eq!(found, expect);
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

#[test]
fn types_are_told_as_upstream_tells_them() {
    let schema = object(json!({"spec": object(json!({
        "size": {"type": "integer"}, "port": {"x-kubernetes-int-or-string": true}, "ratio": {"type": "number"},
        "names": {"type": "array", "items": {"type": "string"}},
    }))}));
    check(schema.clone(), json!({"spec": {"size": 3.0, "port": "http", "ratio": 1, "names": ["a"]}}), &[]);
    check(
        schema,
        json!({"spec": {"size": "big", "port": true, "ratio": null, "names": ["a", 1]}}),
        &[
            r#"spec.names[1]: Type "integer": spec.names[1] in body must be of type string: "integer""#,
            r#"spec.port: Type "boolean": spec.port in body must be of type integer,string: "boolean""#,
            r#"spec.ratio: Type "null": spec.ratio in body must be of type number: "null""#,
            r#"spec.size: Type "string": spec.size in body must be of type integer: "string""#,
        ],
    );
}

#[test]
fn bounds_are_told_with_their_limits() {
    let schema = object(json!({
        "n": {"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 2},
        "x": {"type": "number", "minimum": 0.5, "exclusiveMinimum": true},
        "t": {"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^a"},
        "l": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer"}},
        "m": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string", "enum": ["a", "b"]}},
    }));
    check(schema.clone(), json!({"n": 4, "x": 0.6, "t": "ab", "l": [1], "m": {"k": "a"}}), &[]);
    check(
        schema.clone(),
        json!({"n": 11, "x": 0.5, "t": "b", "l": [], "m": {"k": "c"}}),
        &[
            "l: Other 0: l in body should have at least 1 items",
            r#"m.k: Enum "c": supported values: "a", "b""#,
            "n: Other 11: n in body should be a multiple of 2",
            "n: Other 11: n in body should be less than or equal to 10",
            r#"t: Other "b": t in body should be at least 2 chars long"#,
            "x: Other 0.5: x in body should be greater than 0.5",
        ],
    );
    check(
        schema,
        json!({"n": 0, "t": "bbbb", "l": [1, 2, 3], "m": {"a": "a", "b": "b"}}),
        &[
            "l: TooMany(2) 3: ",
            "m: TooMany(1) 2: ",
            "n: Other 0: n in body should be greater than or equal to 1",
            "t: TooLong(3) null: ",
        ],
    );
    check(
        object(json!({"t": {"type": "string", "pattern": "^a$"}})),
        json!({"t": "b"}),
        &[r#"t: Other "b": t in body should match '^a$'"#],
    );
}

#[test]
fn what_is_required_is_missed_by_its_path() {
    let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {
        "type": "object", "required": ["a", "b"], "properties": {"a": {"type": "string"}}}}});
    check(schema.clone(), json!({}), &["spec: Required null: "]);
    check(schema, json!({"spec": {"a": "x"}}), &["spec.b: Required null: "]);
}

#[test]
fn sets_and_maps_hold_nothing_twice() {
    let schema = object(json!({
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
    }));
    check(
        schema,
        json!({"set": ["a", "b", "a", "a"], "map": [{"name": "x", "v": 1}, {"name": "x", "v": 2}]}),
        &[r#"map[1]: Duplicate {"name":"x"}: "#, r#"set[2]: Duplicate "a": "#],
    );
}

#[test]
fn combined_schemas_are_told_by_what_failed() {
    let positive = json!({"minimum": 1});
    let even = json!({"multipleOf": 2});
    let of = |key: &str| object(json!({"n": {"type": "integer", key: [positive, even]}}));
    check(of("anyOf"), json!({"n": 1}), &[]);
    check(
        of("anyOf"),
        json!({"n": -1}),
        &[
            r#": Other "": "n" must validate at least one schema (anyOf)"#,
            "n: Other -1: n in body should be greater than or equal to 1",
        ],
    );
    check(
        of("oneOf"),
        json!({"n": 2}),
        &[r#": Other "": "n" must validate one and only one schema (oneOf). Found 2 valid alternatives"#],
    );
    check(
        of("allOf"),
        json!({"n": 1}),
        &[
            r#": Other "": "n" must validate all the schemas (allOf)"#,
            "n: Other 1: n in body should be a multiple of 2",
        ],
    );
    let schema = object(json!({"n": {"type": "integer", "not": {"minimum": 5}}}));
    check(schema, json!({"n": 6}), &[r#": Other "": "n" must not validate the schema (not)"#]);
}

#[test]
fn a_format_nobody_knows_is_no_rule() {
    let schema =
        object(json!({"ip": {"type": "string", "format": "ipv4"}, "x": {"type": "string", "format": "y"}}));
    check(
        schema,
        json!({"ip": "300.1.1.1", "x": "anything"}),
        &[r#"ip: Type "300.1.1.1": ip in body must be of type ipv4: "300.1.1.1""#],
    );
}

#[test]
fn a_pattern_that_is_none_is_refused_and_no_schema_allows_all() {
    let broken = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}});
    assert!(matches!(Validator::compile(&broken), Err(CompileError::Pattern { .. })));
    check(Value::Null, json!({"any": [1]}), &[]);
}
