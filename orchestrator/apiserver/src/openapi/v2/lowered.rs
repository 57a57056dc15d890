//! OpenAPI v3 lowered to v2: bodies become parameters, media types lists, and references stand alone.
//!
//! Pure. v2 has no `oneOf`; the two types that need it (quantities and int-or-string) are strings there, as upstream
//! publishes them, and its clients let numbers pass for those.

use serde_json::{Map, Value, json};

const V3_PREFIX: &str = "#/components/schemas/";
const V2_PREFIX: &str = "#/definitions/";
/// The keys of a path item that are operations.
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
/// What v2's schemas do not know.
const V3_ONLY: [&str; 6] = ["oneOf", "anyOf", "not", "nullable", "deprecated", "writeOnly"];

/// A path with its operations.
pub fn path_item(item: &Value) -> Value {
    let mut out = Map::new();
    for (key, value) in item.as_object().into_iter().flatten() {
        let lowered = match key.as_str() {
            "parameters" => parameters(value).into(),
            method if METHODS.contains(&method) => operation(value),
            _ => value.clone(),
        };
        out.insert(key.clone(), lowered);
    }
    Value::Object(out)
}

/// A schema that has a name. Of a kind that keeps what it does not know nothing can be said: clients of v2 take what is
/// listed for all there is.
pub fn definition(schema: &Value) -> Value {
    if schema[PRESERVE] != true {
        return self::schema(schema);
    }
    let mut out = Map::new();
    out.insert("type".into(), "object".into());
    for key in ["x-kubernetes-group-version-kind", "x-kubernetes-selectable-fields"] {
        if let Some(value) = schema.get(key) {
            out.insert(key.into(), value.clone());
        }
    }
    Value::Object(out)
}

/// A schema and everything inside it.
pub fn schema(schema: &Value) -> Value {
    let Some(fields) = schema.as_object() else {
        // `additionalProperties` may be a boolean.
        return schema.clone();
    };
    let mut out = Map::new();
    for (key, value) in fields {
        let lowered = match key.as_str() {
            "$ref" => reference(value),
            "items" | "additionalProperties" => self::schema(value),
            "properties" => value
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, property)| (name.clone(), self::schema(property)))
                .collect(),
            "allOf" => match value.as_array().map(Vec::as_slice) {
                // v3 wraps a reference so that something may stand beside it.
                Some([only]) => {
                    if let Value::Object(only) = self::schema(only) {
                        out.extend(only);
                    }
                    continue;
                }
                Some(all) => all.iter().map(self::schema).collect(),
                None => continue,
            },
            "oneOf" => {
                out.insert("type".into(), "string".into());
                continue;
            }
            key if V3_ONLY.contains(&key) => continue,
            _ => value.clone(),
        };
        out.insert(key.clone(), lowered);
    }
    // What clients of v2 would take for a closed or typed value is left open.
    let nullable = fields.get("nullable") == Some(&Value::Bool(true));
    let preserves = fields.get(PRESERVE) == Some(&Value::Bool(true));
    if nullable || preserves {
        out.remove("items");
        out.remove("properties");
    }
    let untyped = match fields.get("type").and_then(Value::as_str) {
        Some("array") => !out.contains_key("items"),
        Some("object") => nullable || preserves,
        _ => nullable,
    };
    if untyped {
        out.remove("type");
    }
    if let Some(Value::Array(required)) = out.get_mut("required") {
        let property = |name: &Value| fields.get("properties").and_then(|all| all.get(name.as_str()?));
        required.retain(|name| property(name).is_none_or(|property| property["nullable"] != true));
    }
    if out.get("required").is_some_and(|required| *required == json!([])) {
        out.remove("required");
    }
    if out.contains_key("$ref") {
        // Clients refuse a type beside a reference, and its default is the default of what it refers to.
        out.retain(|key, _| matches!(key.as_str(), "$ref" | "description") || key.starts_with("x-"));
    }
    Value::Object(out)
}

fn reference(target: &Value) -> Value {
    let target = target.as_str().unwrap_or_default();
    format!("{V2_PREFIX}{}", target.strip_prefix(V3_PREFIX).unwrap_or(target)).into()
}

fn operation(operation: &Value) -> Value {
    let mut out = Map::new();
    let mut taken = Vec::new();
    for (key, value) in operation.as_object().into_iter().flatten() {
        match key.as_str() {
            "parameters" => taken.extend(parameters(value)),
            "requestBody" => {
                let content = media_types(value);
                if let Some((_, first)) = content.first() {
                    let mut body = json!({"in": "body", "name": "body", "schema": schema(&first["schema"])});
                    if value["required"] == true {
                        body["required"] = true.into();
                    }
                    taken.insert(0, body);
                }
                out.insert("consumes".into(), content.iter().map(|(media, _)| Value::from(*media)).collect());
            }
            "responses" => {
                let (responses, produces) = responses(value);
                out.insert("responses".into(), responses);
                if !produces.is_empty() {
                    out.insert("produces".into(), produces.into());
                }
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    if !taken.is_empty() {
        out.insert("parameters".into(), taken.into());
    }
    Value::Object(out)
}

/// Parameters in the path and the query, whose schema v2 writes into the parameter itself.
fn parameters(list: &Value) -> Vec<Value> {
    let flat = |parameter: &Value| {
        let mut out = Map::new();
        for (key, value) in parameter.as_object().into_iter().flatten() {
            match (key.as_str(), value) {
                ("schema", Value::Object(schema)) => out.extend(schema.clone()),
                _ => {
                    out.insert(key.clone(), value.clone());
                }
            }
        }
        Value::Object(out)
    };
    list.as_array().into_iter().flatten().map(flat).collect()
}

/// The responses by code, and every media type in them.
fn responses(responses: &Value) -> (Value, Vec<Value>) {
    let mut out = Map::new();
    let mut produces: Vec<Value> = Vec::new();
    for (code, response) in responses.as_object().into_iter().flatten() {
        let content = media_types(response);
        let mut lowered = json!({"description": response["description"]});
        if let Some((_, first)) = content.first() {
            lowered["schema"] = schema(&first["schema"]);
        }
        for (media, _) in content {
            if !produces.iter().any(|known| known == media) {
                produces.push(media.into());
            }
        }
        out.insert(code.clone(), lowered);
    }
    (Value::Object(out), produces)
}

fn media_types(holder: &Value) -> Vec<(&str, &Value)> {
    let content = holder["content"].as_object().into_iter().flatten();
    content.map(|(media, content)| (media.as_str(), content)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stand_alone_and_properties_keep_their_names() {
        let v3 = json!({
            "type": "object",
            "properties": {
                "metadata": {"allOf": [{"$ref": "#/components/schemas/Meta"}], "default": {}, "description": "d"},
                "oneOf": {"type": "array", "items": {"allOf": [{"$ref": "#/components/schemas/X"}], "default": {}},
                          "x-kubernetes-list-type": "atomic"},
                "amount": {"description": "q", "oneOf": [{"type": "string"}, {"type": "number"}]},
                "labels": {"type": "object", "additionalProperties": {"type": "string", "default": ""}},
            },
            "required": ["metadata"],
        });
        let v2 = json!({
            "type": "object",
            "properties": {
                "metadata": {"$ref": "#/definitions/Meta", "description": "d"},
                "oneOf": {"type": "array", "items": {"$ref": "#/definitions/X"}, "x-kubernetes-list-type": "atomic"},
                "amount": {"description": "q", "type": "string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string", "default": ""}},
            },
            "required": ["metadata"],
        });
        assert_eq!(schema(&v3), v2);
    }

    #[test]
    fn what_may_be_anything_is_left_open() {
        let v3 = json!({
            "type": "object",
            "required": ["gone", "kept"],
            "properties": {
                "gone": {"type": "string", "nullable": true},
                "kept": {"type": "array", "items": {"type": "string"}},
                "free": {"type": "object", "properties": {"a": {"type": "string"}}, PRESERVE: true},
                "list": {"type": "array", "items": {"type": "object"}, "nullable": true},
            },
        });
        let v2 = json!({
            "type": "object",
            "required": ["kept"],
            "properties": {
                "gone": {},
                "kept": {"type": "array", "items": {"type": "string"}},
                "free": {PRESERVE: true},
                "list": {},
            },
        });
        assert_eq!(definition(&v3), v2);
        let kind = json!([{"group": "g", "kind": "K", "version": "v1"}]);
        let free = json!({"type": "object", PRESERVE: true, "properties": {"metadata": {}}, "x-kubernetes-group-version-kind": kind});
        assert_eq!(definition(&free), json!({"type": "object", "x-kubernetes-group-version-kind": kind}));
    }

    #[test]
    fn a_body_becomes_a_parameter_and_its_media_types_what_is_consumed() {
        let item = path_item(&json!({"put": {
            "requestBody": {"required": true, "content": {"*/*": {"schema": {"$ref": "#/components/schemas/Pod"}}}},
            "responses": {"200": {"description": "OK", "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Pod"}}}}},
            "parameters": [{"name": "dryRun", "in": "query", "schema": {"type": "string", "uniqueItems": true}}],
        }}));
        let put = json!({
            "consumes": ["*/*"],
            "produces": ["application/json"],
            "parameters": [
                {"in": "body", "name": "body", "required": true, "schema": {"$ref": "#/definitions/Pod"}},
                {"name": "dryRun", "in": "query", "type": "string", "uniqueItems": true},
            ],
            "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/Pod"}}},
        });
        assert_eq!(item, json!({ "put": put }));
    }
}
