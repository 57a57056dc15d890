//! A CRD version's structural schema as a [`Schema`], so that custom resources go through the same engine as
//! built-in kinds.
//!
//! Only the shape is taken over here: names, types, defaults, list types and docs. What values may be (patterns,
//! bounds) is [`crate::validation`]'s business. The schema is published as its author wrote it.

use serde_json::json;

use crate::model::{Field, Gvk, ListKind, Schema, SchemaBuilder, Struct, StructId, Text, Type, TypeRef};
use crate::{Map, Value};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
/// Any built-in kind: its docs of what all objects have are taken over.
const DOCUMENTED: &str = "io.k8s.api.core.v1.ConfigMap";

/// The type of a custom resource, in a schema that knows its list as well. `schema` is `openAPIV3Schema` of the
/// version, `null` if it has none; anything in it that is not understood is kept unpruned.
///
/// # Errors
/// A schema nested too deeply.
pub fn custom_type(gvk: &Gvk, list_kind: &str, schema: &Value) -> Result<TypeRef, StructuralError> {
    let reversed: Vec<&str> = gvk.group.rsplit('.').collect();
    let name_of = |kind: &str| format!("{}.{}.{kind}", reversed.join("."), gvk.version);
    let name = name_of(&gvk.kind);
    let mut builder = SchemaBuilder::default();
    import(&mut builder, OBJECT_META);
    import(&mut builder, LIST_META);
    let mut converter = Converter { builder, depth: 0 };
    let preserve = schema.is_null();
    let mut def = converter.structure(&name, schema)?;
    def.preserve_unknown |= preserve;
    def.kinds = Box::new([gvk.clone()]);
    let mut fields: Vec<Field> = def
        .fields
        .into_vec()
        .into_iter()
        .filter(|f| !matches!(&*f.name, "apiVersion" | "kind" | "metadata"))
        .collect();
    let metadata = Type::Struct(converter.builder.id(OBJECT_META));
    fields.extend([
        field("apiVersion", Type::String),
        field("kind", Type::String),
        field("metadata", metadata),
    ]);
    def.fields = fields.into();
    def.published = Some(Box::new(published(gvk, schema)));
    let item = converter.builder.define(def);
    let list = list_struct(&mut converter.builder, &name_of(list_kind), gvk, list_kind, item);
    converter.builder.define(list);
    let built = converter.builder.build().map_err(|missing| StructuralError::Missing { name: missing })?;
    built.by_name(&name).ok_or(StructuralError::Missing { name })
}

fn list_struct(
    builder: &mut SchemaBuilder,
    name: &str,
    gvk: &Gvk,
    list_kind: &str,
    item: StructId,
) -> Struct {
    let mut items = field("items", Type::List(Box::new(Type::Struct(item))));
    items.required = true;
    items.doc = Text::Borrowed("List of objects.");
    let metadata = Type::Struct(builder.id(LIST_META));
    let mut fields =
        [field("apiVersion", Type::String), field("kind", Type::String), field("metadata", metadata), items];
    for field in &mut fields {
        if let Some(known) =
            Schema::builtin().by_name(DOCUMENTED).and_then(|ty| ty.def().field(&field.name).cloned())
        {
            field.doc = known.doc;
        }
    }
    Struct {
        name: Text::Owned(name.to_owned()),
        fields: fields.into(),
        proto: Box::default(),
        kinds: Box::new([Gvk { kind: list_kind.to_owned(), ..gvk.clone() }]),
        preserve_unknown: false,
        atomic: false,
        shape_only: true,
        published: None,
        doc: Text::Owned(format!("{list_kind} is a list of {}", gvk.kind)),
    }
}

/// The schema as its author wrote it, with what every object has.
fn published(gvk: &Gvk, schema: &Value) -> Value {
    let mut out = match schema {
        Value::Object(_) => schema.clone(),
        _ => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    };
    publish_resource(&mut out);
    publish_embedded(&mut out);
    out["x-kubernetes-group-version-kind"] =
        json!([{"group": gvk.group, "version": gvk.version, "kind": gvk.kind}]);
    out
}

fn publish_resource(out: &mut Value) {
    if !out["properties"].is_object() {
        out["properties"] = json!({});
    }
    let documented = Schema::builtin().by_name(DOCUMENTED);
    let doc = |name: &str| documented.as_ref().and_then(|ty| ty.def().field(name)).map(Field::doc);
    for name in ["apiVersion", "kind"] {
        out["properties"][name] = json!({"type": "string", "description": doc(name)});
    }
    out["properties"]["metadata"] = json!({
        "description": doc("metadata"),
        "allOf": [{"$ref": format!("#/components/schemas/{OBJECT_META}")}],
    });
}

/// Objects inside the object have what every object has, too.
fn publish_embedded(node: &mut Value) {
    match node {
        Value::Object(fields) => {
            for value in fields.values_mut() {
                publish_embedded(value);
            }
            if node["x-kubernetes-embedded-resource"] == true {
                publish_resource(node);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(publish_embedded),
        _ => {}
    }
}

/// Why a schema is not structural enough to be a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StructuralError {
    /// Nesting beyond what objects may have.
    #[error("{name}: the schema is nested too deeply")]
    TooDeep { name: String },
    /// A type that is used and not defined.
    #[error("{name} is not defined")]
    Missing { name: String },
}

/// Copies a built-in struct and all it refers to.
fn import(builder: &mut SchemaBuilder, name: &str) {
    let builtin = Schema::builtin();
    let mut todo: Vec<TypeRef> = builtin.by_name(name).into_iter().collect();
    let mut done: Vec<StructId> = Vec::new();
    while let Some(ty) = todo.pop() {
        if done.contains(&ty.id()) {
            continue;
        }
        done.push(ty.id());
        let mut def = ty.def().clone();
        for field in def.fields.iter_mut() {
            field.ty = moved(&field.ty, &mut |id| {
                todo.push(builtin.at(id));
                builder.id(builtin.get(id).name.clone())
            });
        }
        builder.define(def);
    }
}

/// The same type with its struct ids replaced.
fn moved(ty: &Type, replace: &mut dyn FnMut(StructId) -> StructId) -> Type {
    match ty {
        Type::List(inner) => Type::List(Box::new(moved(inner, replace))),
        Type::WrappedList(inner) => Type::WrappedList(Box::new(moved(inner, replace))),
        Type::Map(inner) => Type::Map(Box::new(moved(inner, replace))),
        Type::Struct(id) => Type::Struct(replace(*id)),
        Type::SchemaOr(alternative, id) => Type::SchemaOr(*alternative, replace(*id)),
        Type::Nullable(inner) => Type::Nullable(Box::new(moved(inner, replace))),
        other => other.clone(),
    }
}

struct Converter {
    builder: SchemaBuilder,
    depth: usize,
}

impl Converter {
    /// The struct of an `object` node.
    fn structure(&mut self, name: &str, node: &Value) -> Result<Struct, StructuralError> {
        self.depth += 1;
        if self.depth > crate::json::DEPTH_MAX {
            return Err(StructuralError::TooDeep { name: name.to_owned() });
        }
        let required: Vec<&str> =
            node["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut fields = Vec::new();
        for (key, property) in node["properties"].as_object().unwrap_or(&Map::new()) {
            let mut made = field(key, self.node(&format!("{name}.{key}"), property)?);
            made.required = required.contains(&key.as_str());
            made.list = list_kind(property);
            made.doc = escaped(&property["description"]);
            if let Some(default) = property.get("default") {
                made.default_text = Text::Owned(default.to_string());
            }
            fields.push(made);
        }
        self.depth -= 1;
        let embedded = node["x-kubernetes-embedded-resource"] == true;
        if embedded {
            for key in ["apiVersion", "kind"] {
                if !fields.iter().any(|f| f.name == key) {
                    fields.push(field(key, Type::String));
                }
            }
            fields.retain(|f| f.name != "metadata");
            let metadata = self.builder.id(OBJECT_META);
            fields.push(field("metadata", Type::Struct(metadata)));
        }
        Ok(Struct {
            name: Text::Owned(name.to_owned()),
            fields: fields.into(),
            proto: Box::default(),
            kinds: Box::default(),
            preserve_unknown: node["x-kubernetes-preserve-unknown-fields"] == true,
            atomic: node["x-kubernetes-map-type"] == "atomic",
            shape_only: true,
            published: None,
            doc: escaped(&node["description"]),
        })
    }

    fn node(&mut self, name: &str, node: &Value) -> Result<Type, StructuralError> {
        let ty = self.bare_node(name, node)?;
        Ok(if node["nullable"] == true { Type::Nullable(Box::new(ty)) } else { ty })
    }

    fn bare_node(&mut self, name: &str, node: &Value) -> Result<Type, StructuralError> {
        if node["x-kubernetes-int-or-string"] == true {
            return Ok(Type::IntOrString);
        }
        Ok(match node["type"].as_str().unwrap_or_default() {
            "boolean" => Type::Bool,
            "integer" => Type::Int64,
            "number" => Type::Double,
            "string" => Type::String,
            "array" => Type::List(Box::new(self.node(&format!("{name}.items"), &node["items"])?)),
            "object" => {
                let described =
                    node.get("properties").is_some() || node["x-kubernetes-embedded-resource"] == true;
                match (&node["additionalProperties"], described) {
                    (Value::Object(_), false) => {
                        let value = self.node(&format!("{name}.values"), &node["additionalProperties"])?;
                        Type::Map(Box::new(value))
                    }
                    (Value::Bool(true), false) => Type::Raw,
                    (_, false) if node["x-kubernetes-preserve-unknown-fields"] == true => Type::Raw,
                    _ => {
                        let def = self.structure(name, node)?;
                        Type::Struct(self.builder.define(def))
                    }
                }
            }
            _ => Type::Raw,
        })
    }
}

fn field(name: &str, ty: Type) -> Field {
    Field {
        name: Text::Owned(name.to_owned()),
        ty,
        required: false,
        // Custom resources are JSON: what is given is there.
        zero_is_absent: false,
        list: ListKind::Unset,
        patch_merge: false,
        patch_retain_keys: false,
        patch_merge_key: Text::Borrowed(""),
        default_text: Text::Borrowed(""),
        doc: Text::Borrowed(""),
    }
}

fn list_kind(node: &Value) -> ListKind {
    if node["x-kubernetes-map-type"] == "atomic" {
        return ListKind::Atomic;
    }
    match node["x-kubernetes-list-type"].as_str() {
        Some("atomic") => ListKind::Atomic,
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = node["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            ListKind::Map(keys.filter_map(Value::as_str).map(|k| Text::Owned(k.to_owned())).collect())
        }
        _ => ListKind::Unset,
    }
}

/// Docs are kept as the table keeps them.
fn escaped(doc: &Value) -> Text {
    Text::Owned(doc.as_str().unwrap_or_default().replace('\\', "\\\\").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Issue, defaults, json as json_decoder, openapi};

    fn widget() -> TypeRef {
        let gvk = Gvk { group: "shop.example.com".into(), version: "v1".into(), kind: "Widget".into() };
        let schema = json!({"type": "object", "description": "A widget.", "properties": {
            "spec": {"type": "object", "required": ["size"], "properties": {
                "size": {"type": "integer", "default": 3},
                "port": {"x-kubernetes-int-or-string": true},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "tags": {"type": "object", "additionalProperties": {"type": "string"}},
                "parts": {
                    "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}}},
                },
            }},
        }});
        custom_type(&gvk, "WidgetList", &schema).unwrap()
    }

    #[test]
    fn a_custom_resource_is_pruned_like_a_built_in_one() {
        let text = br#"{"apiVersion":"shop.example.com/v1","kind":"Widget","metadata":{"name":"w","nam":"x"},
            "spec":{"sizee":1,"port":"http","free":{"any":[null]},"tags":{"a":"b"},"parts":[{"name":"p","x":1}]}}"#;
        let decoded = json_decoder::decode(&widget(), text).unwrap();
        let paths: Vec<&str> = decoded.issues.iter().map(Issue::path).collect();
        assert_eq!(paths, ["metadata.nam", "spec.sizee", "spec.parts[0].x"]);
        assert_eq!(decoded.object["spec"]["free"], json!({"any": [null]}));
        let wrong = json_decoder::decode(&widget(), br#"{"spec":{"size":"big","parts":{"a":1}}}"#).unwrap();
        assert_eq!(
            wrong.object["spec"],
            json!({"size": "big", "parts": {"a": 1}}),
            "types are validated later"
        );
        assert!(json_decoder::decode(&widget(), br#"{"metadata":{"labels":{"a":1}}}"#).is_err());
    }

    #[test]
    fn null_is_a_value_where_it_is_said_to_be_one() {
        let gvk = Gvk { group: "a.b".into(), version: "v1".into(), kind: "Nil".into() };
        let text = json!({"type": "string"});
        let mut kept = text.clone();
        kept["nullable"] = true.into();
        let mut filled = text.clone();
        filled["default"] = "d".into();
        let schema = json!({"type": "object", "properties": {
            "kept": kept, "gone": text, "filled": filled,
            "map": {"type": "object", "additionalProperties": text},
            "maybe": {"type": "object", "additionalProperties": kept},
        }});
        let ty = custom_type(&gvk, "NilList", &schema).unwrap();
        let body = br#"{"kept":null,"gone":null,"filled":null,"map":{"a":null},"maybe":{"a":null}}"#;
        let mut object = json_decoder::decode(&ty, body).unwrap().object;
        defaults::apply(&ty, &mut object);
        assert_eq!(object, json!({"kept": null, "filled": "d", "map": {}, "maybe": {"a": null}}));
    }

    #[test]
    fn a_custom_resource_is_defaulted() {
        let mut object = json!({"spec": {}});
        defaults::apply(&widget(), &mut object);
        assert_eq!(object, json!({"spec": {"size": 3}}));
    }

    #[test]
    fn a_custom_resource_has_an_openapi_schema() {
        let all = openapi::v3_schemas(&[widget()]);
        let schema = &all["com.example.shop.v1.Widget"];
        assert_eq!(schema["description"], "A widget.");
        assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
        let spec = &schema["properties"]["spec"];
        assert_eq!(spec["properties"]["parts"]["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(
            schema["properties"]["metadata"]["allOf"][0]["$ref"],
            format!("#/components/schemas/{OBJECT_META}")
        );
        assert!(all.contains_key(OBJECT_META));
    }

    #[test]
    fn without_a_schema_everything_is_kept() {
        let gvk = Gvk { group: "a.b".into(), version: "v1".into(), kind: "Free".into() };
        let ty = custom_type(&gvk, "FreeList", &Value::Null).unwrap();
        let decoded =
            json_decoder::decode(&ty, br#"{"metadata":{"name":"x"},"anything":{"at":["all"]}}"#).unwrap();
        assert_eq!(decoded.issues, []);
        assert_eq!(decoded.object["anything"], json!({"at": ["all"]}));
    }
}
