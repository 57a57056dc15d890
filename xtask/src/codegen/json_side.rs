//! Reads k8s-openapi: the JSON view of every type (names, types, docs, required, kinds, merge hints).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use syn::visit::Visit;

use super::{doc_of, rust_files};

/// A type as JSON sees it.
#[derive(Debug, Default)]
pub struct JsonType {
    pub doc: String,
    pub fields: Vec<JsonField>,
    /// `group/version/Kind`, the core group as `-`.
    pub kind: Option<String>,
    /// Kind of the list of this kind.
    pub list_kind: Option<String>,
}

/// A field as JSON sees it.
#[derive(Debug)]
pub struct JsonField {
    pub name: String,
    pub doc: String,
    /// The type in the table's notation, references in full.
    pub ty: String,
    pub required: bool,
    pub merge: Option<Merge>,
}

/// What a DeepMerge impl does with a field.
#[derive(Debug, Clone)]
pub enum Merge {
    ListMap(Vec<String>),
    ListSet,
    ListAtomic,
    MapAtomic,
}

/// Reads every type below the folder of one API level.
pub fn read(dir: &Path) -> Result<BTreeMap<String, JsonType>> {
    let mut names = BTreeMap::new();
    let mut files = Vec::new();
    for path in rust_files(dir)? {
        let text = fs::read_to_string(&path)?;
        let Some(name) = text.lines().next().and_then(|l| l.strip_prefix("// Generated from definition "))
        else {
            continue;
        };
        let relative = path.strip_prefix(dir)?.parent().context("a file lies in a folder")?;
        let module = relative.to_string_lossy().replace('/', "::");
        let rust_name = name.rsplit('.').next().unwrap_or_default();
        names.insert(format!("{module}::{rust_name}"), name.to_owned());
        files.push((name.to_owned(), path, text));
    }
    let mut out = BTreeMap::new();
    for (name, path, text) in files {
        let file = syn::parse_file(&text).with_context(|| format!("parsing {}", path.display()))?;
        if let Some(ty) = json_type(&name, &file, &text, &names).with_context(|| name.clone())? {
            out.insert(name, ty);
        }
    }
    Ok(out)
}

fn json_type(
    name: &str,
    file: &syn::File,
    text: &str,
    names: &BTreeMap<String, String>,
) -> Result<Option<JsonType>> {
    let rust_name = name.rsplit('.').next().unwrap_or_default();
    let Some(item) = file.items.iter().find_map(|i| match i {
        syn::Item::Struct(s) if s.ident == rust_name => Some(s),
        _ => None,
    }) else {
        return Ok(None);
    };
    let mut ty = JsonType { doc: doc_of(&item.attrs), ..JsonType::default() };
    if !item.generics.params.is_empty() {
        return Ok(None);
    }
    if let syn::Fields::Unnamed(_) = &item.fields {
        // A newtype over any JSON is an empty struct upstream, unless it is one of the leaf types.
        return Ok(leaf(name).is_none().then_some(ty));
    }
    let mut keys = KeyNames::default();
    keys.visit_file(file);
    let mut merges = Merges::default();
    merges.visit_file(file);
    let mut constants = BTreeMap::new();
    for item in &file.items {
        let syn::Item::Impl(block) = item else { continue };
        for item in &block.items {
            if let syn::ImplItem::Const(c) = item
                && let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(value), .. }) = &c.expr
            {
                constants.insert(c.ident.to_string(), value.value());
            }
        }
    }
    if let (Some(group), Some(version), Some(kind)) =
        (constants.get("GROUP"), constants.get("VERSION"), constants.get("KIND"))
    {
        let group = if group.is_empty() { "-" } else { group };
        ty.kind = Some(format!("{group}/{version}/{kind}"));
        for key in ["apiVersion", "kind"] {
            let doc = type_meta_doc(text, key);
            ty.fields.push(JsonField {
                name: key.into(),
                doc,
                ty: "string".into(),
                required: false,
                merge: None,
            });
        }
    }
    ty.list_kind = constants.get("LIST_KIND").cloned();
    for field in &item.fields {
        let ident = field.ident.as_ref().context("a named field")?.to_string();
        let json = keys.names.get(&ident).with_context(|| format!("no JSON name for {ident}"))?;
        let (inner, required) = match generic(&field.ty, "Option") {
            Some(inner) => (inner, false),
            None => (&field.ty, true),
        };
        // k8s-openapi leaves metadata out of Option although upstream does not require it.
        let required = required && !(json == "metadata" && ty.kind.is_some());
        let merge = merges.found.get(&ident).map(|m| match m {
            Merge::ListMap(idents) => Merge::ListMap(idents.iter().map(|i| keys_of_other(i)).collect()),
            other => other.clone(),
        });
        ty.fields.push(JsonField {
            name: json.clone(),
            doc: doc_of(&field.attrs),
            ty: notation(inner, names)?,
            required,
            merge,
        });
    }
    Ok(Some(ty))
}

/// Merge keys are Rust identifiers of another struct; all of them are plain camel case in JSON.
fn keys_of_other(ident: &str) -> String {
    let mut out = String::new();
    let mut upper = false;
    for c in ident.trim_end_matches('_').chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                out.push(c.to_ascii_uppercase());
                upper = false;
            }
            c => out.push(c),
        }
    }
    out
}

fn type_meta_doc(text: &str, key: &str) -> String {
    let quoted = format!("\"{key}\": {{");
    let Some(start) = text.find(&quoted) else {
        return String::new();
    };
    let marker = "\"description\": ";
    let Some(doc) = text[start..].find(marker).map(|i| &text[start + i + marker.len()..]) else {
        return String::new();
    };
    let line = doc.lines().next().unwrap_or_default().trim_end_matches(',');
    serde_json::from_str(line).unwrap_or_default()
}

/// The table's notation of a Rust type.
fn notation(ty: &syn::Type, names: &BTreeMap<String, String>) -> Result<String> {
    if let Some(inner) = generic(ty, "Vec") {
        return Ok(format!("[]{}", notation(inner, names)?));
    }
    if let Some(inner) = generic(ty, "BTreeMap") {
        return Ok(format!("map:{}", notation(inner, names)?));
    }
    if let Some(inner) = generic(ty, "Box") {
        return notation(inner, names);
    }
    let syn::Type::Path(path) = ty else { bail!("not a path: {ty:?}") };
    let segments: Vec<String> = path.path.segments.iter().map(|s| s.ident.to_string()).collect();
    Ok(match segments.last().map(String::as_str).unwrap_or_default() {
        "bool" => "bool".into(),
        "i32" => "int32".into(),
        "i64" => "int64".into(),
        "f64" => "double".into(),
        "ByteString" => "bytes".into(),
        "String" => "string".into(),
        "Value" => "raw".into(),
        _ => {
            let path = segments[1..].join("::");
            let name = names.get(&path).with_context(|| format!("unknown type {path}"))?;
            leaf(name).map_or_else(|| name.clone(), str::to_owned)
        }
    })
}

/// Types with a form of their own in JSON.
fn leaf(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once("io.k8s.").map_or(name, |(_, rest)| rest) {
        "apimachinery.pkg.apis.meta.v1.Time" => "time",
        "apimachinery.pkg.apis.meta.v1.MicroTime" => "microtime",
        "apimachinery.pkg.apis.meta.v1.FieldsV1" => "raw",
        "apimachinery.pkg.runtime.RawExtension" => "raw",
        "apimachinery.pkg.api.resource.Quantity" => "quantity",
        "apimachinery.pkg.util.intstr.IntOrString" => "intorstring",
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => "raw",
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool" => "schemaor:bool",
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray" => "schemaor:schemas",
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => {
            "schemaor:strings"
        }
        _ => return None,
    })
}

/// The last generic argument of a type constructor of that name.
fn generic<'a>(ty: &'a syn::Type, constructor: &str) -> Option<&'a syn::Type> {
    let syn::Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    if last.ident != constructor {
        return None;
    }
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    arguments.args.iter().rev().find_map(|a| match a {
        syn::GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// `"appProtocol" => Field::Key_app_protocol`, by Rust identifier.
#[derive(Default)]
struct KeyNames {
    names: BTreeMap<String, String>,
}

impl Visit<'_> for KeyNames {
    fn visit_arm(&mut self, arm: &syn::Arm) {
        if let syn::Pat::Lit(syn::ExprLit { lit: syn::Lit::Str(json), .. }) = &arm.pat
            && let syn::Expr::Path(path) = &*arm.body
            && let Some(last) = path.path.segments.last()
            && let Some(ident) = last.ident.to_string().strip_prefix("Key_")
        {
            self.names.insert(ident.to_owned(), json.value());
        }
    }
}

/// `merge_strategies::…(&mut self.field, …)` calls, by Rust identifier.
#[derive(Default)]
struct Merges {
    found: BTreeMap<String, Merge>,
}

impl Visit<'_> for Merges {
    fn visit_expr_call(&mut self, call: &syn::ExprCall) {
        let syn::Expr::Path(path) = &*call.func else {
            return;
        };
        let path: Vec<String> = path.path.segments.iter().map(|s| s.ident.to_string()).collect();
        let Some(at) = path.iter().position(|s| s == "merge_strategies") else {
            return;
        };
        let Some(field) = call.args.first().and_then(field_of_self) else {
            return;
        };
        let merge = match path[at + 1..].join("::").as_str() {
            "list::atomic" => Merge::ListAtomic,
            "list::set" => Merge::ListSet,
            "map::atomic" => Merge::MapAtomic,
            "list::map" => {
                let mut keys = ComparedFields::default();
                if let Some(closures) = call.args.get(2) {
                    keys.visit_expr(closures);
                }
                Merge::ListMap(keys.fields)
            }
            _ => return,
        };
        self.found.insert(field, merge);
    }
}

fn field_of_self(expr: &syn::Expr) -> Option<String> {
    let syn::Expr::Reference(reference) = expr else {
        return None;
    };
    let syn::Expr::Field(field) = &*reference.expr else {
        return None;
    };
    match &field.member {
        syn::Member::Named(ident) => Some(ident.to_string()),
        syn::Member::Unnamed(_) => None,
    }
}

#[derive(Default)]
struct ComparedFields {
    fields: Vec<String>,
}

impl Visit<'_> for ComparedFields {
    fn visit_expr_binary(&mut self, binary: &syn::ExprBinary) {
        if let syn::Expr::Field(field) = &*binary.left
            && let syn::Member::Named(ident) = &field.member
        {
            self.fields.push(ident.to_string());
        }
    }
}
