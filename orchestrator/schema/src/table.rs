//! The committed table of built-in types (`table/builtin.txt`), and its reader.
//!
//! Names, docs and defaults stay slices of the text, so the built-in schema costs little heap. The notation is
//! described where it is written: `xtask/src/codegen/emit.rs`.

use std::sync::{Arc, LazyLock};

use crate::model::{Alternative, Field, Gvk, ListKind, ProtoSlot, Schema, SchemaBuilder, Struct, Text, Type};

const TEXT: &str = include_str!("table/builtin.txt");
const SCHEMA_PROPS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// The committed table is wrong; only an edit of it by hand can cause this.
#[derive(Debug, thiserror::Error)]
#[error("schema table line {line}: {reason}")]
pub(crate) struct TableError {
    line: usize,
    reason: String,
}

static BUILTIN: LazyLock<Arc<Schema>> = LazyLock::new(|| match parse(TEXT) {
    Ok(schema) => schema,
    // The text is compiled in and parsed by the first test: not input.
    Err(error) => panic!("{error}"),
});

/// The schema of the built-in kinds.
pub(crate) fn builtin() -> Arc<Schema> {
    Arc::clone(&BUILTIN)
}

/// A type being read.
struct Open {
    def: Struct,
    fields: Vec<Field>,
    kinds: Vec<Gvk>,
    proto: Vec<(u32, ProtoSlot)>,
}

fn parse(text: &'static str) -> Result<Arc<Schema>, TableError> {
    let mut builder = SchemaBuilder::default();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("type ") {
            builder.id(name);
        }
    }
    let mut open: Option<Open> = None;
    for (index, line) in text.lines().enumerate() {
        let fail = |reason: &str| TableError { line: index + 1, reason: format!("{reason}: {line}") };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "type" {
            close(&mut builder, open.take());
            let def = Struct {
                name: Text::Borrowed(rest),
                fields: Box::default(),
                proto: Box::default(),
                kinds: Box::default(),
                preserve_unknown: false,
                shape_only: false,
                published: None,
                atomic: false,
                doc: Text::Borrowed(""),
            };
            open = Some(Open { def, fields: Vec::new(), kinds: Vec::new(), proto: Vec::new() });
            continue;
        }
        let open = open.as_mut().ok_or_else(|| fail("outside of a type"))?;
        match word {
            "doc" => open.def.doc = Text::Borrowed(rest),
            "atomic" => open.def.atomic = true,
            "kind" => open.kinds.push(gvk(rest).ok_or_else(|| fail("not a kind"))?),
            "d" => open.fields.last_mut().ok_or_else(|| fail("no field"))?.doc = Text::Borrowed(rest),
            "f" => {
                let index = open.fields.len() as u16;
                let (field, numbers) =
                    field(&mut builder, &open.def.name, rest).map_err(|reason| fail(&reason))?;
                place(&mut open.proto, &numbers, index);
                open.fields.push(field);
            }
            _ => return Err(fail("unknown word")),
        }
    }
    close(&mut builder, open);
    builder.build().map_err(|name| TableError { line: 0, reason: format!("{name} is used and not defined") })
}

fn close(builder: &mut SchemaBuilder, open: Option<Open>) {
    if let Some(Open { mut def, fields, kinds, proto }) = open {
        def.fields = fields.into();
        def.kinds = kinds.into();
        def.proto = proto.into();
        builder.define(def);
    }
}

fn gvk(text: &str) -> Option<Gvk> {
    let mut parts = text.split('/');
    let (group, version, kind) = (parts.next()?, parts.next()?, parts.next()?);
    let group = if group == "-" { "" } else { group };
    Some(Gvk { group: group.into(), version: version.into(), kind: kind.into() })
}

/// Puts a field at its number path, making the inlined messages on the way.
fn place(slots: &mut Vec<(u32, ProtoSlot)>, numbers: &[u32], field: u16) {
    match numbers {
        [] => {}
        [number] => slots.push((*number, ProtoSlot::Field(field))),
        [number, rest @ ..] => {
            let at = slots.iter().position(|(n, _)| n == number).unwrap_or_else(|| {
                slots.push((*number, ProtoSlot::Inline(Box::default())));
                slots.len() - 1
            });
            if let ProtoSlot::Inline(inner) = &mut slots[at].1 {
                let mut inside = std::mem::take(inner).into_vec();
                place(&mut inside, rest, field);
                *inner = inside.into();
            }
        }
    }
}

fn field(builder: &mut SchemaBuilder, owner: &str, text: &'static str) -> Result<(Field, Vec<u32>), String> {
    let mut words = text.splitn(4, ' ');
    let (Some(name), Some(number), Some(ty)) = (words.next(), words.next(), words.next()) else {
        return Err("a field needs a name, a number and a type".into());
    };
    let numbers = match number {
        "-" => Vec::new(),
        path => path.split('/').map(str::parse).collect::<Result<_, _>>().map_err(|_| "not a number path")?,
    };
    let mut field = Field {
        name: Text::Borrowed(name),
        ty: parse_type(builder, owner, ty)?,
        required: false,
        zero_is_absent: true,
        list: ListKind::Unset,
        patch_merge: false,
        patch_retain_keys: false,
        patch_merge_key: Text::Borrowed(""),
        default_text: Text::Borrowed(""),
        doc: Text::Borrowed(""),
    };
    let mut rest = words.next().unwrap_or_default();
    while !rest.is_empty() {
        if let Some(default) = rest.strip_prefix("default=") {
            field.default_text = Text::Borrowed(default);
            break;
        }
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after;
        match word.split_once('=').unwrap_or((word, "")) {
            ("req", _) => field.required = true,
            ("ptr", _) => field.zero_is_absent = false,
            ("list", "atomic") => field.list = ListKind::Atomic,
            ("list", "set") => field.list = ListKind::Set,
            ("list", map) => {
                let keys =
                    map.strip_prefix("map(").and_then(|m| m.strip_suffix(')')).ok_or("not a list type")?;
                field.list = ListKind::Map(keys.split(',').map(Text::Borrowed).collect());
            }
            ("patch", strategies) => {
                field.patch_merge = strategies.split(',').any(|s| s == "merge");
                field.patch_retain_keys = strategies.split(',').any(|s| s == "retainKeys");
            }
            ("key", key) => field.patch_merge_key = Text::Borrowed(key),
            _ => return Err(format!("unknown attribute {word}")),
        }
    }
    field.zero_is_absent &= !field.required;
    Ok((field, numbers))
}

fn parse_type(builder: &mut SchemaBuilder, owner: &str, text: &str) -> Result<Type, String> {
    let mut inner = |rest: &str| parse_type(builder, owner, rest).map(Box::new);
    if let Some(rest) = text.strip_prefix("[]") {
        return Ok(Type::List(inner(rest)?));
    }
    if let Some(rest) = text.strip_prefix("wrapped:") {
        return Ok(Type::WrappedList(inner(rest)?));
    }
    if let Some(rest) = text.strip_prefix("map:") {
        return Ok(Type::Map(inner(rest)?));
    }
    Ok(match text {
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "duration" => Type::Duration,
        "quantity" => Type::Quantity,
        "intorstring" => Type::IntOrString,
        "raw" => Type::Raw,
        "schemaor:bool" => Type::SchemaOr(Alternative::Bool, builder.id(SCHEMA_PROPS)),
        "schemaor:schemas" => Type::SchemaOr(Alternative::Schemas, builder.id(SCHEMA_PROPS)),
        "schemaor:strings" => Type::SchemaOr(Alternative::Strings, builder.id(SCHEMA_PROPS)),
        name => {
            let full = match name.strip_prefix('.') {
                Some(short) => {
                    format!("{}.{short}", owner.rsplit_once('.').map_or("", |(package, _)| package))
                }
                None => name.to_owned(),
            };
            Type::Struct(builder.lookup(&full).ok_or_else(|| format!("{full} is not in the table"))?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_the_kinds_people_use() {
        let schema = builtin();
        for (group, version, kind) in [
            ("", "v1", "Pod"),
            ("", "v1", "PodList"),
            ("apps", "v1", "Deployment"),
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            ("apiregistration.k8s.io", "v1", "APIService"),
            ("autoscaling", "v1", "Scale"),
            ("policy", "v1", "Eviction"),
            ("authentication.k8s.io", "v1", "TokenRequest"),
            ("authorization.k8s.io", "v1", "SelfSubjectAccessReview"),
            ("meta.k8s.io", "v1", "Table"),
            ("meta.k8s.io", "v1", "PartialObjectMetadataList"),
            ("apps", "v1", "DeleteOptions"),
            ("", "v1", "Status"),
        ] {
            assert!(schema.kind(group, version, kind).is_some(), "{group}/{version} {kind}");
        }
        assert!(schema.kinds().count() > 150);
    }

    #[test]
    fn every_field_but_type_meta_and_json_only_types_has_a_protobuf_number() {
        // Neither Table nor /version has a protobuf form upstream.
        let json_only = ["Table", "TableColumnDefinition", "TableRow", "TableRowCondition", "Info"];
        fn numbered(slots: &[(u32, ProtoSlot)], into: &mut Vec<u16>) {
            for (_, slot) in slots {
                match slot {
                    ProtoSlot::Field(i) => into.push(*i),
                    ProtoSlot::Inline(inner) => numbered(inner, into),
                }
            }
        }
        let schema = builtin();
        let mut without = Vec::new();
        for ty in schema.structs() {
            let def = ty.def();
            if json_only.iter().any(|name| def.name.ends_with(&format!(".{name}"))) {
                continue;
            }
            let mut have = Vec::new();
            numbered(&def.proto, &mut have);
            for (index, field) in def.fields.iter().enumerate() {
                if !have.contains(&(index as u16)) && field.name != "apiVersion" && field.name != "kind" {
                    without.push(format!("{}.{}", def.name, field.name));
                }
            }
        }
        assert_eq!(without, Vec::<String>::new());
    }

    #[test]
    fn merge_keys_and_list_types_are_upstreams() {
        let spec = builtin().by_name("io.k8s.api.core.v1.PodSpec").unwrap();
        let volumes = spec.def().field("volumes").unwrap();
        assert!(volumes.patch_merge && volumes.patch_retain_keys && volumes.patch_merge_key == "name");
        let container = builtin().by_name("io.k8s.api.core.v1.Container").unwrap();
        let ports = container.def().field("ports").unwrap();
        assert_eq!(ports.patch_merge_key, "containerPort");
        assert_eq!(ports.list, ListKind::Map(["containerPort".into(), "protocol".into()].into()));
    }

    #[test]
    fn a_table_that_names_an_unknown_type_is_refused() {
        assert!(parse("type a.B\nf x 1 .Missing\n").is_err());
    }
}
