//! OpenAPI v2 as gnostic's protobuf (`openapi.v2.Document`), the only form kubectl asks for.
//!
//! Every public function writes whole fields of a document. Protobuf merges a message that appears again, so a
//! document is the concatenation of its head, its paths and its definitions, in any number of pieces. Values of any
//! shape (defaults, vendor extensions) travel as text: JSON, which is YAML. Pure; must not know what the API has.

use serde_json::Value;

/// `swagger`, `info`, `security` and `securityDefinitions` of a document.
pub fn head(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    let mut info = Message::default();
    info.text(1, &document["info"]["title"]);
    info.text(2, &document["info"]["version"]);
    out.message(2, info);
    for requirement in items(&document["security"]) {
        let mut names = Message::default();
        for (name, scopes) in members(requirement) {
            let mut list = Message::default();
            list.texts(1, scopes);
            names.named(1, name, list);
        }
        out.message(12, names);
    }
    let mut definitions = Message::default();
    // API keys are all this server has.
    for (name, security) in members(&document["securityDefinitions"]) {
        let mut key = Message::default();
        key.text(1, &security["type"]);
        key.text(2, &security["name"]);
        key.text(3, &security["in"]);
        key.text(4, &security["description"]);
        definitions.named(1, name, wrapped(2, key));
    }
    out.message(13, definitions);
    out.0
}

/// One member of a document's `paths`.
pub fn path(path: &str, item: &Value) -> Vec<u8> {
    const METHODS: [(u32, &str); 7] =
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")];
    let mut out = Message::default();
    for (number, method) in METHODS {
        if item[method].is_object() {
            out.message(number, operation(&item[method]));
        }
    }
    for value in items(&item["parameters"]) {
        out.message(9, parameter(value));
    }
    out.extensions(10, item);
    let mut paths = Message::default();
    paths.named(2, path, out);
    wrapped(8, paths).0
}

/// One member of a document's `definitions`.
pub fn definition(name: &str, value: &Value) -> Vec<u8> {
    let mut definitions = Message::default();
    definitions.named(1, name, schema(value));
    wrapped(9, definitions).0
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, &operation["tags"]);
    out.text(2, &operation["summary"]);
    out.text(3, &operation["description"]);
    out.text(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    for value in items(&operation["parameters"]) {
        out.message(8, parameter(value));
    }
    let mut responses = Message::default();
    for (code, value) in members(&operation["responses"]) {
        let mut response = Message::default();
        response.text(1, &value["description"]);
        if value["schema"].is_object() {
            response.message(2, wrapped(1, schema(&value["schema"])));
        }
        responses.named(1, code, wrapped(1, response));
    }
    out.message(9, responses);
    out.flag(11, &operation["deprecated"]);
    out.extensions(13, operation);
    out
}

/// A `ParametersItem`. Only bodies, queries and paths; a parameter elsewhere is taken for a query's.
fn parameter(parameter: &Value) -> Message {
    let mut out = Message::default();
    let place = parameter["in"].as_str().unwrap_or_default();
    if place == "body" {
        out.text(1, &parameter["description"]);
        out.text(2, &parameter["name"]);
        out.text(3, &parameter["in"]);
        out.flag(4, &parameter["required"]);
        out.message(5, schema(&parameter["schema"]));
        return wrapped(1, wrapped(1, out));
    }
    // The message of path parameters is the query's without `allow_empty_value`, which was field 5.
    let (kind, moved) = if place == "path" { (4, 1) } else { (3, 0) };
    out.flag(1, &parameter["required"]);
    out.text(2, &parameter["in"]);
    out.text(3, &parameter["description"]);
    out.text(4, &parameter["name"]);
    out.text(6 - moved, &parameter["type"]);
    out.text(7 - moved, &parameter["format"]);
    out.any(10 - moved, &parameter["default"]);
    out.flag(20 - moved, &parameter["uniqueItems"]);
    for value in items(&parameter["enum"]) {
        out.any(21 - moved, value);
    }
    wrapped(1, wrapped(2, wrapped(kind, out)))
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.text(3, &value["title"]);
    out.text(4, &value["description"]);
    out.any(5, &value["default"]);
    out.number(6, &value["multipleOf"]);
    out.number(7, &value["maximum"]);
    out.flag(8, &value["exclusiveMaximum"]);
    out.number(9, &value["minimum"]);
    out.flag(10, &value["exclusiveMinimum"]);
    out.count(11, &value["maxLength"]);
    out.count(12, &value["minLength"]);
    out.text(13, &value["pattern"]);
    out.count(14, &value["maxItems"]);
    out.count(15, &value["minItems"]);
    out.flag(16, &value["uniqueItems"]);
    out.count(17, &value["maxProperties"]);
    out.count(18, &value["minProperties"]);
    out.texts(19, &value["required"]);
    for allowed in items(&value["enum"]) {
        out.any(20, allowed);
    }
    match &value["additionalProperties"] {
        Value::Bool(allowed) => out.message(21, {
            let mut choice = Message::default();
            // A chosen alternative is written even when it is false.
            choice.varint_field(2, u64::from(*allowed));
            choice
        }),
        Value::Null => {}
        of => out.message(21, wrapped(1, schema(of))),
    }
    if !value["type"].is_null() {
        let mut types = Message::default();
        types.text(1, &value["type"]);
        types.texts(1, &value["type"]);
        out.message(22, types);
    }
    if value["items"].is_object() {
        out.message(23, wrapped(1, schema(&value["items"])));
    }
    for part in items(&value["allOf"]) {
        out.message(24, schema(part));
    }
    if value["properties"].is_object() {
        let mut properties = Message::default();
        for (name, property) in members(&value["properties"]) {
            properties.named(1, name, schema(property));
        }
        out.message(25, properties);
    }
    out.text(26, &value["discriminator"]);
    out.flag(27, &value["readOnly"]);
    out.any(30, &value["example"]);
    out.extensions(31, value);
    out
}

/// A message whose only field is another.
fn wrapped(number: u32, inner: Message) -> Message {
    let mut out = Message::default();
    out.message(number, inner);
    out
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}

/// The fields of a message so far. What is absent, or of another type than the field, is not written.
#[derive(Default)]
struct Message(Vec<u8>);

// === impl Message ===

impl Message {
    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn texts(&mut self, number: u32, list: &Value) {
        items(list).for_each(|value| self.text(number, value));
    }

    fn flag(&mut self, number: u32, value: &Value) {
        if value == true {
            self.varint_field(number, 1);
        }
    }

    fn count(&mut self, number: u32, value: &Value) {
        if let Some(count) = value.as_u64() {
            self.varint_field(number, count);
        }
    }

    fn number(&mut self, number: u32, value: &Value) {
        if let Some(value) = value.as_f64() {
            self.varint(u64::from(number) << 3 | 1);
            self.0.extend(value.to_le_bytes());
        }
    }

    /// gnostic's `Any`, whose text is field 2.
    fn any(&mut self, number: u32, value: &Value) {
        if !value.is_null() {
            let mut any = Self::default();
            any.bytes(2, value.to_string().as_bytes());
            self.message(number, any);
        }
    }

    /// The `x-` members of an object, each a `NamedAny`.
    fn extensions(&mut self, number: u32, object: &Value) {
        for (name, value) in members(object).filter(|(name, _)| name.starts_with("x-")) {
            let mut entry = Self::default();
            entry.bytes(1, name.as_bytes());
            entry.any(2, value);
            self.message(number, entry);
        }
    }

    /// An entry of a map: gnostic's `Named…` messages.
    fn named(&mut self, number: u32, name: &str, value: Message) {
        let mut entry = Self::default();
        entry.bytes(1, name.as_bytes());
        entry.message(2, value);
        self.message(number, entry);
    }

    fn message(&mut self, number: u32, inner: Message) {
        self.bytes(number, &inner.0);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn varint_field(&mut self, number: u32, value: u64) {
        self.varint(u64::from(number) << 3);
        self.varint(value);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_is_laid_out_as_the_proto_file_says() {
        let written = definition("P", &json!({"type": "object", "x-a": [1], "additionalProperties": false}));
        let schema = [
            &b"\xaa\x01\x02\x10\x00"[..],  // additional_properties = 21, boolean = 2
            b"\xb2\x01\x08\x0a\x06object", // type = 22, value = 1
            b"\xfa\x01\x0c\x0a\x03x-a\x12\x05\x12\x03[1]", // vendor_extension = 31, name = 1, value = 2, yaml = 2
        ]
        .concat();
        let mut want = b"\x4a\x26\x0a\x24\x0a\x01P\x12\x1f".to_vec(); // definitions = 9, entry = 1, name = 1, value = 2
        want.extend(&schema);
        assert_eq!(schema.len(), 0x1f);
        assert_eq!(written, want);
    }

    #[test]
    fn query_and_path_parameters_differ_by_one() {
        let flat =
            |place: &str| parameter(&json!({"name": "n", "in": place, "type": "t", "uniqueItems": true})).0;
        assert_eq!(flat("query"), b"\x0a\x14\x12\x12\x1a\x10\x12\x05query\x22\x01n\x32\x01t\xa0\x01\x01");
        assert_eq!(flat("path"), b"\x0a\x13\x12\x11\x22\x0f\x12\x04path\x22\x01n\x2a\x01t\x98\x01\x01");
    }

    #[test]
    fn the_extension_kubectl_reads_is_text_it_can_parse() {
        let item = json!({"patch": {"x-kubernetes-group-version-kind": {"group": "", "kind": "Namespace", "version": "v1"}}});
        let written = path("/p", &item);
        let text = br#"{"group":"","kind":"Namespace","version":"v1"}"#;
        assert!(written.windows(text.len()).any(|w| w == text));
        assert_eq!(written[0], 0x42, "paths = 8");
    }
}
