//! What definitions are refused for, in upstream's words and paths.

use super::*;

fn widget() -> Value {
    json!({
        "metadata": {"name": "widgets.shop.example.com"},
        "spec": {
            "group": "shop.example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "size": {"type": "integer", "default": 3}}}}}}}],
        },
        "status": {"storedVersions": ["v1"]},
    })
}

/// The errors of a widget after a change.
#[track_caller]
fn check(change: impl FnOnce(&mut Value), expect: &[&str]) {
    let mut crd = widget();
    change(&mut crd);
    let found: Vec<String> =
        CustomResourceDefinition.validate(&crd).iter().map(ToString::to_string).collect();
    assert_eq!(found, expect);
}

/// The errors of a schema at `spec.versions[0].schema.openAPIV3Schema`, whose path is cut off.
#[track_caller]
fn check_schema(schema: Value, expect: &[&str]) {
    let mut crd = widget();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema;
    let found: Vec<String> =
        CustomResourceDefinition.validate(&crd).iter().map(ToString::to_string).collect();
    let found: Vec<&str> = found
        .iter()
        .map(|e| e.strip_prefix("spec.versions[0].schema.openAPIV3Schema").unwrap_or(e))
        .collect();
    assert_eq!(found, expect);
}

#[test]
fn a_good_definition_passes() {
    check(|_| {}, &[]);
}

#[test]
fn names_belong_together() {
    check(
        |crd| crd["metadata"]["name"] = "gadgets.shop.example.com".into(),
        &[
            r#"metadata.name: Invalid value: "gadgets.shop.example.com": must be spec.names.plural+"."+spec.group"#,
        ],
    );
    check(
        |crd| crd["spec"]["names"]["listKind"] = "Widget".into(),
        &[r#"spec.names.listKind: Invalid value: "Widget": kind and listKind may not be the same"#],
    );
    check(
        |crd| crd["spec"]["scope"] = "World".into(),
        &[r#"spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced""#],
    );
}

#[test]
fn there_is_one_storage_version_and_a_schema_for_each() {
    let mut crd = widget();
    crd["spec"]["versions"][0]["storage"] = false.into();
    let found = CustomResourceDefinition.validate(&crd);
    assert!(
        found[0].to_string().ends_with("must have exactly one version marked as storage version"),
        "{found:?}"
    );
    check(
        |crd| crd["spec"]["versions"][0]["schema"] = Value::Null,
        &["spec.versions[0].schema.openAPIV3Schema: Required value"],
    );
    check(
        |crd| crd["status"]["storedVersions"] = json!(["v1", "v0"]),
        &[
            r#"status.storedVersions[1]: Invalid value: "v0": missing from spec.versions; v0 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v0 and removes v0 from status.storedVersions"#,
        ],
    );
}

#[test]
fn schemas_are_structural() {
    check_schema(json!({"properties": {}}), &[".type: Required value: must not be empty at the root"]);
    check_schema(
        json!({"type": "object", "properties": {"a": {"properties": {"b": {"type": "str"}}}, "l": {"type": "array"}}}),
        &[
            ".properties[a].type: Required value: must not be empty for specified object fields",
            r#".properties[a].properties[b].type: Unsupported value: "str": supported values: "array", "boolean", "integer", "number", "object", "string""#,
            ".properties[l].items: Required value: must be specified",
        ],
    );
    check_schema(
        json!({"type": "object", "properties": {"a": {"type": "integer"}},
               "anyOf": [{"properties": {"b": {"type": "integer"}}}, {"required": ["a"]}]}),
        &[
            ".properties[b]: Required value: because it is defined in spec.versions[0].schema.openAPIV3Schema.anyOf[0].properties[b]",
        ],
    );
    check_schema(
        json!({"type": "object", "properties": {"p": {"x-kubernetes-int-or-string": true,
               "anyOf": [{"type": "integer"}, {"type": "string"}]}}}),
        &[],
    );
    check_schema(
        json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {
               "name": {"type": "string", "maxLength": 3}, "labels": {"type": "object"}}}}}),
        &[
            ".properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ],
    );
}

#[test]
fn list_maps_have_keys_that_are_always_there() {
    let list = |keys: Value, items: Value| {
        json!({"type": "object", "properties": {"l": {"type": "array", "x-kubernetes-list-type": "map",
               "x-kubernetes-list-map-keys": keys, "items": items}}})
    };
    let item = json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"}, "port": {"type": "integer"}}});
    check_schema(list(json!(["name"]), item.clone()), &[]);
    check_schema(
        list(json!(["port"]), item.clone()),
        &[
            ".properties[l].items.properties[port].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ],
    );
    check_schema(
        list(json!([]), item),
        &[
            ".properties[l].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ],
    );
}

#[test]
fn defaults_are_valid_values() {
    check_schema(
        json!({"type": "object", "properties": {"n": {"type": "integer", "default": "x"}}}),
        &[r#".properties[n].default: Invalid value: "string":  in body must be of type integer: "string""#],
    );
}

#[test]
fn what_storage_depends_on_cannot_change() {
    let mut old = widget();
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let mut new = old.clone();
    new["spec"]["scope"] = "Cluster".into();
    new["spec"]["group"] = "other.example.com".into();
    let found: Vec<String> =
        CustomResourceDefinition.validate_update(&new, &old).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            r#"spec.group: Invalid value: "other.example.com": field is immutable"#,
            r#"spec.scope: Invalid value: "Cluster": field is immutable"#,
        ]
    );
}

#[test]
fn a_new_storage_version_is_remembered_and_deletion_waits_for_objects() {
    let old = widget();
    let mut new = old.clone();
    new["spec"]["versions"][0]["name"] = "v2".into();
    CustomResourceDefinition.prepare_update(&Context::system(), &mut new, &old);
    assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
    CustomResourceDefinition.mark_deleting(&mut new);
    assert_eq!(new["metadata"]["finalizers"], json!([CLEANUP_FINALIZER]));
    assert!(conditions::has(&new, "Terminating"));
}
