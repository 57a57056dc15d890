//! Reads k8s-pb: protobuf numbers, shapes, and the `+marker`s of the comments.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{doc_of, folded, rust_files};

/// A protobuf message.
#[derive(Debug, Default)]
pub struct Message {
    pub doc: String,
    /// By folded name.
    pub fields: BTreeMap<String, ProtoField>,
}

/// A protobuf field.
#[derive(Debug)]
pub struct ProtoField {
    pub number: u32,
    pub repeated: bool,
    /// The key into the messages, for message fields and for maps to messages.
    pub message: Option<String>,
    pub doc: String,
}

impl ProtoField {
    /// The values of a `+name=value` marker, in order.
    pub fn marker<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.doc.lines().filter_map(move |line| line.strip_prefix('+')?.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Every message by [`key`].
pub fn read(dir: &Path) -> Result<BTreeMap<String, Message>> {
    let mut out = BTreeMap::new();
    for path in rust_files(dir)? {
        let module: Vec<String> = path
            .strip_prefix(dir)?
            .parent()
            .context("a file lies in a folder")?
            .iter()
            .map(|s| s.to_string_lossy().into_owned())
            .collect();
        let file =
            syn::parse_file(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())?;
        for item in &file.items {
            let syn::Item::Struct(item) = item else { continue };
            let mut message = Message { doc: doc_of(&item.attrs), ..Message::default() };
            for field in &item.fields {
                let Some(ident) = &field.ident else { continue };
                let Some(read) = proto_field(field, &module) else {
                    continue;
                };
                message.fields.insert(folded(&ident.to_string()), read);
            }
            out.insert(format!("{}::{}", module.join("::"), folded(&item.ident.to_string())), message);
        }
    }
    Ok(out)
}

/// The key of the message behind an OpenAPI name.
pub fn key(openapi_name: &str) -> String {
    let rest = openapi_name.trim_start_matches("io.k8s.");
    let mut parts: Vec<String> = rest.split('.').map(|s| s.replace('-', "_")).collect();
    let last = parts.pop().unwrap_or_default();
    format!("{}::{}", parts.join("::"), folded(&last))
}

fn proto_field(field: &syn::Field, module: &[String]) -> Option<ProtoField> {
    let mut out = ProtoField { number: 0, repeated: false, message: None, doc: doc_of(&field.attrs) };
    let mut is_message = false;
    let attr = field.attrs.iter().find(|a| a.path().is_ident("prost"))?;
    attr.parse_nested_meta(|meta| {
        let value = match meta.value() {
            Ok(value) => Some(value.parse::<syn::LitStr>()?.value()),
            Err(_) => None,
        };
        match (meta.path.get_ident().map(ToString::to_string).as_deref(), value) {
            (Some("tag"), Some(tag)) => out.number = tag.parse().unwrap_or_default(),
            (Some("repeated"), _) => out.repeated = true,
            (Some("message"), _) => is_message = true,
            (Some("btree_map"), Some(kinds)) => is_message = kinds.ends_with("message"),
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    if is_message {
        out.message = innermost(&field.ty, module);
    }
    Some(out)
}

/// The message a type constructor's last argument names, resolved against the module it stands in.
fn innermost(ty: &syn::Type, module: &[String]) -> Option<String> {
    let syn::Type::Path(path) = ty else { return None };
    if let syn::PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments {
        return arguments.args.iter().rev().find_map(|a| match a {
            syn::GenericArgument::Type(ty) => innermost(ty, module),
            _ => None,
        });
    }
    let mut at: Vec<String> = module.to_vec();
    for segment in &path.path.segments {
        match segment.ident.to_string().as_str() {
            "super" => {
                at.pop();
            }
            name => at.push(name.to_owned()),
        }
    }
    let last = at.pop()?;
    Some(format!("{}::{}", at.join("::"), folded(&last)))
}
