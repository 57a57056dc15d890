//! Joins the two views with the supplement and writes the table. Pure.
//!
//! A type is `type NAME`, then `doc`, `kind GROUP/VERSION/KIND`, `atomic`; a field is `f NAME NUMBER TYPE
//! ATTRIBUTES`, then `d DOC`. References within the same package are written `.Name`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::folded;
use super::json_side::{JsonField, JsonType, Merge};
use super::proto_side::{self, Message, ProtoField};
use super::supplement::Supplement;

/// The table and what is to be said about it.
pub struct Made {
    pub text: String,
    pub types: usize,
    pub fields: usize,
    /// `Type.field` of fields that protobuf would need and no source numbers.
    pub without_number: Vec<String>,
}

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Writes the table.
pub fn table(
    types: &BTreeMap<String, JsonType>,
    messages: &BTreeMap<String, Message>,
    supplement: &Supplement,
) -> Result<Made> {
    let mut blocks: BTreeMap<String, String> = BTreeMap::new();
    let mut made = Made { text: String::new(), types: 0, fields: 0, without_number: Vec::new() };
    for (name, ty) in types {
        let message = messages.get(&proto_side::key(name));
        let mut block = format!("type {name}\n");
        line(&mut block, "doc", &ty.doc);
        if let Some(kind) = &ty.kind {
            let _ = writeln!(block, "kind {kind}");
        }
        for kind in supplement.served.get(name).into_iter().flatten() {
            let _ = writeln!(block, "kind {kind}");
        }
        if message.is_some_and(|m| m.doc.contains("+structType=atomic")) {
            block.push_str("atomic\n");
        }
        for field in &ty.fields {
            field_lines(&mut block, name, ty, field, message, messages, supplement, &mut made)?;
        }
        blocks.insert(name.clone(), block);
        if let (Some(list), Some(kind)) = (&ty.list_kind, &ty.kind) {
            let (list_name, text) = list_block(name, ty, list, kind);
            blocks.insert(list_name, text);
        }
    }
    for (name, lines) in &supplement.types {
        blocks.insert(name.clone(), format!("type {name}\n{}\n", lines.join("\n")));
    }
    made.types = blocks.len();
    made.text.push_str("# Derived by `cargo xtask codegen`; do not edit.\n");
    for block in blocks.values() {
        made.text.push_str(block);
    }
    made.fields = made.text.lines().filter(|l| l.starts_with("f ")).count();
    Ok(made)
}

fn field_lines(
    block: &mut String,
    type_name: &str,
    ty: &JsonType,
    field: &JsonField,
    message: Option<&Message>,
    messages: &BTreeMap<String, Message>,
    supplement: &Supplement,
    made: &mut Made,
) -> Result<()> {
    let full = format!("{type_name}.{}", field.name);
    let found = message.and_then(|m| find(m, messages, &field.name, ty, 0));
    let proto = found.as_ref().map(|(_, field)| *field);
    // Of kinds, and of the options that may come with or without them.
    let is_type_meta = field.name == "apiVersion" || field.name == "kind";
    let number = match (&found, supplement.numbers.get(&full)) {
        (_, Some(number)) => number.clone(),
        (Some((path, _)), None) => path.iter().map(u32::to_string).collect::<Vec<_>>().join("/"),
        (None, None) if is_type_meta => "-".into(),
        (None, None) => {
            // `/version` is served as JSON only.
            if !type_name.starts_with("io.k8s.apimachinery.pkg.version.") {
                made.without_number.push(full.clone());
            }
            "-".into()
        }
    };
    let ty = shape(field, proto);
    let ty = shorten(&ty, type_name);
    let _ = write!(block, "f {} {number} {ty}", field.name);
    match supplement.attributes.get(&full) {
        Some(attributes) => {
            let _ = write!(block, " {attributes}");
        }
        None => attributes(block, &full, field, proto, supplement)?,
    }
    block.push('\n');
    line(block, "d", &field.doc);
    Ok(())
}

/// The number path of a JSON field: its own, or that of an inlined message which has it.
fn find<'m>(
    message: &'m Message,
    messages: &'m BTreeMap<String, Message>,
    name: &str,
    ty: &JsonType,
    depth: usize,
) -> Option<(Vec<u32>, &'m ProtoField)> {
    let name_folded = folded(name);
    if let Some(field) = message.fields.get(&name_folded) {
        return Some((vec![field.number], field));
    }
    if depth == 2 {
        return None;
    }
    for (inline_name, inline) in &message.fields {
        let named_in_json = ty.fields.iter().any(|f| folded(&f.name) == *inline_name);
        if inline.repeated || named_in_json {
            continue;
        }
        if let Some(inner) = inline.message.as_ref().and_then(|key| messages.get(key))
            && let Some((mut path, field)) = find(inner, messages, name, ty, depth + 1)
        {
            path.insert(0, inline.number);
            return Some((path, field));
        }
    }
    None
}

/// The type, corrected by what only protobuf tells: durations, and lists in a message of their own.
fn shape(field: &JsonField, proto: Option<&ProtoField>) -> String {
    let message = proto.and_then(|p| p.message.as_deref()).unwrap_or_default();
    if field.ty == "string" && message.ends_with("::v1::duration") {
        return "duration".into();
    }
    if field.ty.starts_with("[]") && !message.is_empty() && proto.is_some_and(|p| !p.repeated) {
        return format!("wrapped:{}", &field.ty[2..]);
    }
    // Protobuf has no map to lists: the list is always a message of its own.
    field.ty.replace("map:[]", "map:wrapped:")
}

fn attributes(
    block: &mut String,
    full: &str,
    field: &JsonField,
    proto: Option<&ProtoField>,
    supplement: &Supplement,
) -> Result<()> {
    // A default makes k8s-openapi drop the Option; the marker tells.
    if field.required && !proto.is_some_and(|p| p.doc.lines().any(|line| line.trim() == "+optional")) {
        block.push_str(" req");
    }
    if supplement.pointers.contains(full) {
        block.push_str(" ptr");
    }
    let marker = |name: &'static str| proto.and_then(|p| p.marker(name).next()).map(str::to_owned);
    let keys: Vec<String> =
        proto.map(|p| p.marker("listMapKey").map(str::to_owned).collect()).unwrap_or_default();
    match (marker("listType").as_deref(), &field.merge) {
        (Some("map"), _) => {
            let _ = write!(block, " list=map({})", keys.join(","));
        }
        (Some(kind), _) => {
            let _ = write!(block, " list={kind}");
        }
        // No marker because the crate is older than the field: the merge code still tells.
        (None, Some(merge)) if proto.is_none() => match merge {
            Merge::ListMap(keys) => {
                let _ = write!(block, " list=map({}) patch=merge key={}", keys.join(","), keys.join(","));
            }
            Merge::ListSet => block.push_str(" list=set"),
            Merge::ListAtomic => block.push_str(" list=atomic"),
            Merge::MapAtomic => block.push_str(" list=atomic"),
        },
        (None, _) => {}
    }
    if marker("mapType").or_else(|| marker("structType")).as_deref() == Some("atomic") {
        block.push_str(" list=atomic");
    }
    if let Some(strategy) = marker("patchStrategy") {
        let _ = write!(block, " patch={strategy}");
    }
    if let Some(key) = marker("patchMergeKey") {
        let _ = write!(block, " key={key}");
    }
    if let Some(default) = marker("default") {
        let default = match default.strip_prefix("ref(").and_then(|d| d.strip_suffix(')')) {
            Some(name) => {
                let short = name.rsplit('.').next().unwrap_or(name);
                match supplement.constants.get(short) {
                    Some(value) => value.clone(),
                    None => bail!("{full}: the supplement lacks the constant {short}"),
                }
            }
            None => default,
        };
        // `{}` of a struct says nothing that its own fields' defaults do not say.
        let value: serde_json::Value = serde_json::from_str(&default)?;
        if value != serde_json::json!({}) {
            let _ = write!(block, " default={value}");
        }
    }
    Ok(())
}

/// The list of a kind, which k8s-openapi writes as a generic.
fn list_block(item: &str, ty: &JsonType, list: &str, kind: &str) -> (String, String) {
    let (package, short) = item.rsplit_once('.').unwrap_or_default();
    let gv = kind.rsplit_once('/').unwrap_or_default().0;
    let name = format!("{package}.{list}");
    let mut text = format!("type {name}\ndoc {list} is a list of {short}\nkind {gv}/{list}\n");
    for key in ["apiVersion", "kind"] {
        let _ = writeln!(text, "f {key} - string");
        if let Some(field) = ty.fields.iter().find(|f| f.name == key) {
            line(&mut text, "d", &field.doc);
        }
    }
    let _ = writeln!(text, "f items 2 []{} req", shorten(item, &name));
    let _ = writeln!(text, "d List of objects.");
    let _ = writeln!(text, "f metadata 1 {}", shorten(LIST_META, &name));
    let _ = writeln!(text, "d Standard list metadata.");
    (name, text)
}

fn shorten(ty: &str, within: &str) -> String {
    let package = within.rsplit_once('.').map(|(package, _)| package).unwrap_or_default();
    let (head, reference) = match ty.find("io.k8s.") {
        Some(at) => ty.split_at(at),
        None => return ty.to_owned(),
    };
    match reference.rsplit_once('.') {
        Some((p, short)) if p == package => format!("{head}.{short}"),
        _ => ty.to_owned(),
    }
}

fn line(block: &mut String, word: &str, doc: &str) {
    if !doc.is_empty() {
        let escaped = unlinked(doc).replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(block, "{word} {escaped}");
    }
}

/// k8s-openapi escapes brackets for rustdoc; the published docs do not.
fn unlinked(doc: &str) -> String {
    doc.replace("\\[", "[").replace("\\]", "]")
}
