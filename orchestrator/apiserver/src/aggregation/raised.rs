//! OpenAPI v2 raised to v3, for extension servers that know nothing newer. Pure.

use serde_json::{Map, Value, json};

const DEFINITIONS: &str = "#/definitions/";
const SCHEMAS: &str = "#/components/schemas/";
/// What v2 writes into a parameter and v3 into its schema.
const SCHEMA_WORDS: [&str; 8] =
    ["type", "format", "items", "default", "enum", "uniqueItems", "minimum", "maximum"];

/// The v3 document of what a v2 document says of paths under `root`.
pub(super) fn document(whole: &Value, root: &str) -> Value {
    let below = format!("{root}/");
    let paths: Map<String, Value> = whole["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(path, _)| path.starts_with(&below) || *path == root)
        .map(|(path, item)| (path.clone(), path_item(item)))
        .collect();
    let schemas: Map<String, Value> = whole["definitions"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, schema)| (name.clone(), referring(schema)))
        .collect();
    json!({"openapi": "3.0.0", "info": whole["info"], "paths": paths, "components": {"schemas": schemas}})
}

fn path_item(item: &Value) -> Value {
    let mut raised = Map::new();
    for (key, value) in item.as_object().into_iter().flatten() {
        let made = match key.as_str() {
            "parameters" => parameters(value),
            _ if value.is_object() => operation(value),
            _ => value.clone(),
        };
        raised.insert(key.clone(), made);
    }
    Value::Object(raised)
}

fn operation(operation: &Value) -> Value {
    let mut raised = operation.as_object().cloned().unwrap_or_default();
    let media = |raised: &mut Map<String, Value>, field: &str| -> Vec<String> {
        let listed = raised.remove(field).unwrap_or_default();
        let types = listed.as_array().into_iter().flatten().filter_map(Value::as_str);
        types.map(str::to_owned).collect()
    };
    let (consumes, produces) = (media(&mut raised, "consumes"), media(&mut raised, "produces"));
    raised.remove("schemes");
    let content = |types: &[String], schema: &Value| -> Value {
        let any = ["application/json".to_owned()];
        let types = if types.is_empty() { &any[..] } else { types };
        types
            .iter()
            .map(|media| (media.clone(), json!({"schema": referring(schema)})))
            .collect::<Map<_, _>>()
            .into()
    };
    if let Some(listed) = raised.get("parameters") {
        let body = listed.as_array().into_iter().flatten().find(|p| p["in"] == "body");
        let body = body
            .map(|p| json!({"content": content(&consumes, &p["schema"]), "required": p["required"] == true}));
        let listed = parameters(listed);
        raised.insert("parameters".into(), listed);
        raised.extend(body.map(|body| ("requestBody".to_owned(), body)));
    }
    if let Some(responses) = raised.get_mut("responses").and_then(Value::as_object_mut) {
        for response in responses.values_mut() {
            if let Some(schema) = response.as_object_mut().and_then(|r| r.remove("schema")) {
                response["content"] = content(&produces, &schema);
            }
        }
    }
    Value::Object(raised)
}

/// All but the body, which v3 keeps elsewhere.
fn parameters(listed: &Value) -> Value {
    let raise = |parameter: &Value| {
        let mut raised = parameter.as_object().cloned().unwrap_or_default();
        let words = SCHEMA_WORDS.iter().filter_map(|word| Some(((*word).to_owned(), raised.remove(*word)?)));
        let schema: Map<String, Value> = words.collect();
        if !schema.is_empty() {
            raised.insert("schema".into(), Value::Object(schema));
        }
        Value::Object(raised)
    };
    listed.as_array().into_iter().flatten().filter(|p| p["in"] != "body").map(raise).collect()
}

/// The same with its references pointing to where v3 keeps schemas.
fn referring(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value.as_str().and_then(|text| text.strip_prefix(DEFINITIONS)) {
                Some(name) if key == "$ref" => (key.clone(), format!("{SCHEMAS}{name}").into()),
                _ => (key.clone(), referring(value)),
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(referring).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_keeps_what_it_says() {
        let v2 = json!({
            "info": {"title": "w"},
            "paths": {
                "/apis/w/v1/flunders": {
                    "parameters": [{"in": "query", "name": "pretty", "type": "string"}],
                    "post": {
                        "consumes": ["*/*"], "produces": ["application/json"],
                        "parameters": [{"in": "body", "name": "body", "required": true,
                            "schema": {"$ref": "#/definitions/w.Flunder"}}],
                        "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/w.Flunder"}}}}},
                "/apis/other/v1/x": {}},
            "definitions": {"w.Flunder": {"properties": {"metadata": {"$ref": "#/definitions/m.Meta"}}}}});
        let v3 = document(&v2, "/apis/w/v1");
        assert_eq!(v3["paths"].as_object().unwrap().len(), 1);
        let item = &v3["paths"]["/apis/w/v1/flunders"];
        assert_eq!(
            item["parameters"][0],
            json!({"in": "query", "name": "pretty", "schema": {"type": "string"}})
        );
        let reference = json!({"$ref": "#/components/schemas/w.Flunder"});
        assert_eq!(item["post"]["requestBody"]["content"]["*/*"]["schema"], reference);
        assert_eq!(item["post"]["responses"]["200"]["content"]["application/json"]["schema"], reference);
        assert_eq!(item["post"]["parameters"], json!([]));
        let nested = &v3["components"]["schemas"]["w.Flunder"]["properties"]["metadata"]["$ref"];
        assert_eq!(nested, "#/components/schemas/m.Meta");
    }
}
