//! OpenAPI v3 component schemas of the types, as kubectl reads them for explain, apply and validation.
//!
//! References are wrapped into `allOf`, beside which a description and a default may stand; that is how upstream
//! publishes them and what its clients expect.

use std::collections::BTreeSet;

use serde_json::json;

use crate::model::{Alternative, Field, ListKind, Schema, Struct, Type, TypeRef};
use crate::{Map, Value};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

/// `components.schemas` of every type reachable from the roots.
pub fn v3_schemas(roots: &[TypeRef]) -> Map<String, Value> {
    let mut out = Map::new();
    let mut todo: Vec<TypeRef> = roots.to_vec();
    let mut leaves = BTreeSet::new();
    while let Some(ty) = todo.pop() {
        if out.contains_key(ty.name()) {
            continue;
        }
        if let Some(published) = &ty.def().published {
            todo.extend(built_in_fields(&ty));
            out.insert(ty.name().to_owned(), published.as_ref().clone());
            continue;
        }
        let mut reached = Reached { todo: &mut todo, leaves: &mut leaves, ty: &ty };
        let schema = structure(&mut reached, ty.schema(), ty.def());
        out.insert(ty.name().to_owned(), schema);
    }
    for name in leaves {
        let schema = leaf(&name);
        out.insert(name, schema);
    }
    out
}

/// What a custom resource shares with all objects: its metadata.
fn built_in_fields(ty: &TypeRef) -> impl Iterator<Item = TypeRef> {
    ty.def().fields.iter().filter_map(|field| match field.ty {
        Type::Struct(id) => Some(ty.schema().at(id)).filter(|ty| !ty.def().shape_only),
        _ => None,
    })
}

/// The component name, such as `io.k8s.api.core.v1.Pod`.
pub fn name_of(ty: &TypeRef) -> String {
    ty.name().to_owned()
}

/// What the schema of one type refers to.
struct Reached<'a> {
    todo: &'a mut Vec<TypeRef>,
    /// Components with a form of their own.
    leaves: &'a mut BTreeSet<String>,
    ty: &'a TypeRef,
}

impl Reached<'_> {
    fn leaf(&mut self, name: impl Into<String>) -> Value {
        let name = name.into();
        let reference = reference(&name);
        self.leaves.insert(name);
        reference
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn structure(reached: &mut Reached<'_>, schema: &Schema, def: &Struct) -> Value {
    let mut out = Map::new();
    let doc = def.doc();
    if !doc.is_empty() {
        out.insert("description".into(), doc.into());
    }
    out.insert("type".into(), "object".into());
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in def.fields.iter() {
        properties.insert(field.name.to_string(), property(reached, schema, def, field));
        if field.required {
            required.push(Value::from(field.name.as_ref()));
        }
    }
    if !properties.is_empty() {
        out.insert("properties".into(), Value::Object(properties));
    }
    if !required.is_empty() {
        out.insert("required".into(), Value::Array(required));
    }
    if !def.kinds.is_empty() {
        let kinds = def.kinds.iter().map(|k| json!({"group": k.group, "kind": k.kind, "version": k.version}));
        out.insert("x-kubernetes-group-version-kind".into(), kinds.collect());
    }
    if def.atomic {
        out.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if def.preserve_unknown {
        out.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
    Value::Object(out)
}

fn property(reached: &mut Reached<'_>, schema: &Schema, owner: &Struct, field: &Field) -> Value {
    let mut out = match typed(reached, schema, owner, field, &field.ty) {
        Value::Object(shape) if shape.contains_key("$ref") => {
            Map::from_iter([("allOf".to_owned(), Value::Array(vec![Value::Object(shape)]))])
        }
        Value::Object(shape) => shape,
        _ => Map::new(),
    };
    let doc = field.doc();
    if !doc.is_empty() {
        out.insert("description".into(), doc.into());
    }
    // Go's pointers may be absent; its plain values show the zero they always have.
    let pointer = !field.zero_is_absent && !field.required;
    let default = field.default_value().or_else(|| match &field.ty {
        // Custom resources are no Go types: their schema says all there is.
        _ if owner.proto.is_empty() => None,
        Type::Struct(_) if !pointer => Some(json!({})),
        _ => field.zero(),
    });
    if let Some(default) = default {
        out.insert("default".into(), default);
    }
    match (&field.list, &field.ty) {
        (ListKind::Unset, _) => {}
        (ListKind::Atomic, Type::List(_) | Type::WrappedList(_)) => {
            out.insert("x-kubernetes-list-type".into(), "atomic".into());
        }
        (ListKind::Atomic, _) => {
            out.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        (ListKind::Set, _) => {
            out.insert("x-kubernetes-list-type".into(), "set".into());
        }
        (ListKind::Map(keys), _) => {
            out.insert("x-kubernetes-list-type".into(), "map".into());
            let keys = keys.iter().map(|k| Value::from(k.as_ref())).collect();
            out.insert("x-kubernetes-list-map-keys".into(), keys);
        }
    }
    let strategy = match (field.patch_merge, field.patch_retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) => "",
    };
    if !strategy.is_empty() {
        out.insert("x-kubernetes-patch-strategy".into(), strategy.into());
    }
    if !field.patch_merge_key.is_empty() {
        out.insert("x-kubernetes-patch-merge-key".into(), field.patch_merge_key.as_ref().into());
    }
    Value::Object(out)
}

fn typed(reached: &mut Reached<'_>, schema: &Schema, owner: &Struct, field: &Field, ty: &Type) -> Value {
    match ty {
        Type::Bool => json!({"type": "boolean"}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Double => json!({"type": "number", "format": "double"}),
        Type::String => json!({"type": "string"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Duration => reached.leaf(format!("{META}.Duration")),
        Type::Time => reached.leaf(format!("{META}.Time")),
        Type::MicroTime => reached.leaf(format!("{META}.MicroTime")),
        Type::Quantity => reached.leaf(QUANTITY),
        Type::IntOrString => reached.leaf(INT_OR_STRING),
        // Three types of Go's carry any JSON; where the field stands tells which.
        Type::Raw if field.name == "fieldsV1" => reached.leaf(format!("{META}.FieldsV1")),
        Type::Raw if owner.name.starts_with(EXTENSIONS) => reached.leaf(format!("{EXTENSIONS}.JSON")),
        Type::Raw => reached.leaf(RAW_EXTENSION),
        Type::List(item) | Type::WrappedList(item) => {
            json!({"type": "array", "items": item_schema(reached, schema, owner, field, item)})
        }
        Type::Map(value) => {
            json!({"type": "object", "additionalProperties": item_schema(reached, schema, owner, field, value)})
        }
        Type::Struct(id) => {
            reached.todo.push(reached.ty.schema().at(*id));
            reference(&schema.get(*id).name)
        }
        Type::SchemaOr(alternative, id) => {
            reached.todo.push(reached.ty.schema().at(*id));
            let name = match alternative {
                Alternative::Bool => "JSONSchemaPropsOrBool",
                Alternative::Schemas => "JSONSchemaPropsOrArray",
                Alternative::Strings => "JSONSchemaPropsOrStringArray",
            };
            reached.leaf(format!("{EXTENSIONS}.{name}"))
        }
        Type::Nullable(inner) => typed(reached, schema, owner, field, inner),
    }
}

/// The schema of a list's items or a map's values, with the zero Go gives them.
fn item_schema(
    reached: &mut Reached<'_>,
    schema: &Schema,
    owner: &Struct,
    field: &Field,
    ty: &Type,
) -> Value {
    match (ty, typed(reached, schema, owner, field, ty)) {
        (Type::Struct(_), reference) => json!({"allOf": [reference], "default": {}}),
        (Type::String, Value::Object(mut shape)) => {
            shape.insert("default".into(), "".into());
            Value::Object(shape)
        }
        (Type::Int32 | Type::Int64, Value::Object(mut shape)) => {
            shape.insert("default".into(), 0.into());
            Value::Object(shape)
        }
        (_, shape) => shape,
    }
}

fn leaf(name: &str) -> Value {
    let short = name.rsplit('.').next().unwrap_or_default();
    match short {
        "Time" => {
            json!({"description": "A point in time, RFC 3339 to the second.", "type": "string", "format": "date-time"})
        }
        "MicroTime" => {
            json!({"description": "A point in time, RFC 3339 to the microsecond.", "type": "string", "format": "date-time"})
        }
        "Duration" => json!({"description": "A duration such as 1h2m3s.", "type": "string"}),
        "Quantity" => json!({
            "description": "An amount with an optional suffix, such as 500m, 2, 1Gi or 12e6.",
            "oneOf": [{"type": "string"}, {"type": "number"}],
        }),
        "IntOrString" => json!({
            "description": "An integer or a string, such as 8080, http or 25%.",
            "format": "int-or-string",
            "oneOf": [{"type": "integer"}, {"type": "string"}],
        }),
        "FieldsV1" => json!({"description": "A set of fields, as a tree of their names.", "type": "object"}),
        "RawExtension" => json!({"description": "An object of any kind.", "type": "object"}),
        "JSONSchemaPropsOrBool" => {
            json!({"description": "A JSON Schema, or a boolean that allows all or nothing."})
        }
        "JSONSchemaPropsOrArray" => json!({"description": "A JSON Schema, or a list of them."}),
        "JSONSchemaPropsOrStringArray" => {
            json!({"description": "A JSON Schema, or a list of property names."})
        }
        _ => json!({"description": "Any JSON value."}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemas(group: &str, kind: &str) -> Map<String, Value> {
        let ty = Schema::builtin().kind(group, "v1", kind).unwrap();
        v3_schemas(&[ty])
    }

    #[test]
    fn a_pods_schema_carries_what_apply_and_explain_read() {
        let all = schemas("", "Pod");
        let pod = &all["io.k8s.api.core.v1.Pod"];
        assert_eq!(
            pod["x-kubernetes-group-version-kind"],
            json!([{"group": "", "kind": "Pod", "version": "v1"}])
        );
        assert_eq!(pod["properties"]["metadata"]["allOf"], json!([reference(&format!("{META}.ObjectMeta"))]));
        assert_eq!(pod["properties"]["metadata"]["default"], json!({}));
        assert!(
            pod["properties"]["apiVersion"]["description"].as_str().unwrap().contains("versioned schema")
        );
        let spec = &all["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["required"], json!(["containers"]));
        let containers = &spec["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        let ports = &all["io.k8s.api.core.v1.ContainerPort"]["properties"];
        assert_eq!(ports["protocol"]["default"], "TCP");
        assert_eq!(all["io.k8s.api.core.v1.LocalObjectReference"]["x-kubernetes-map-type"], "atomic");
    }

    #[test]
    fn every_reference_is_answered() {
        let schema = Schema::builtin();
        let roots: Vec<TypeRef> = schema.structs().collect();
        let all = v3_schemas(&roots);
        fn walk(value: &Value, visit: &mut dyn FnMut(&str)) {
            match value {
                Value::Object(fields) => {
                    if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                        visit(target);
                    }
                    fields.values().for_each(|v| walk(v, visit));
                }
                Value::Array(items) => items.iter().for_each(|v| walk(v, visit)),
                _ => {}
            }
        }
        let mut missing = Vec::new();
        all.values().for_each(|v| {
            walk(v, &mut |target| {
                let name = target.trim_start_matches("#/components/schemas/");
                if !all.contains_key(name) {
                    missing.push(name.to_owned());
                }
            });
        });
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn a_recursive_type_ends() {
        assert!(
            schemas("apiextensions.k8s.io", "CustomResourceDefinition")
                .contains_key(&format!("{EXTENSIONS}.JSON"))
        );
    }
}
