//! OpenAPI v2: the whole API in one document, for clients that fall back from v3 (kubectl's check of `kind: List`).
//!
//! It tells what the v3 documents tell, lowered. The document is written piece by piece, one group version in memory
//! at a time, so that answering it once does not leave a large heap behind. Must not know where the pieces come from
//! nor how the document is kept.

pub mod gnostic;
pub mod lowered;

use std::io::{self, Write};

use serde_json::{Map, Value, json};

/// The media type of the protobuf form.
pub const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What kubectl calls [`PROTOBUF`] when it asks. `@` is no media type character: Go's clients refuse it as an
/// answer's type, so the answer goes by the other name.
pub const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// How the document is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    /// gnostic's `openapi.v2.Document`.
    Protobuf,
}

// === impl Form ===

impl Form {
    /// The name the document is kept under.
    pub fn key(self) -> &'static str {
        match self {
            Self::Json => "v2 json",
            Self::Protobuf => "v2 protobuf",
        }
    }
}

/// Writes a document: first every path, then every definition, then [`Writer::finish`].
pub struct Writer<W> {
    out: W,
    form: Form,
    /// Whether definitions have begun.
    defining: bool,
    /// Whether the JSON object being written has a member.
    filled: bool,
}

// === impl Writer ===

impl<W: Write> Writer<W> {
    /// Begins a document. `version` is the server's, such as `v1.36.0`.
    pub fn begin(mut out: W, form: Form, version: &str) -> io::Result<Self> {
        let head = json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": version},
            "security": [{"BearerToken": []}],
            "securityDefinitions": {"BearerToken": {
                "type": "apiKey", "name": "authorization", "in": "header",
                "description": "Bearer Token authentication"}},
        });
        match form {
            Form::Json => {
                let text = head.to_string();
                // The object stays open for what follows.
                out.write_all(text.strip_suffix('}').unwrap_or(&text).as_bytes())?;
                out.write_all(b",\"paths\":{")?;
            }
            Form::Protobuf => out.write_all(&gnostic::head(&head))?,
        }
        Ok(Self { out, form, defining: false, filled: false })
    }

    /// Path items of v3, by path. Must come before any definition.
    pub fn paths(&mut self, items: &Map<String, Value>) -> io::Result<()> {
        for (path, item) in items {
            let item = lowered::path_item(item);
            match self.form {
                Form::Json => self.member(path, &item)?,
                Form::Protobuf => self.out.write_all(&gnostic::path(path, &item))?,
            }
        }
        Ok(())
    }

    /// A component schema of v3. Each name at most once.
    pub fn definition(&mut self, name: &str, schema: &Value) -> io::Result<()> {
        let schema = lowered::definition(schema);
        match self.form {
            Form::Json => {
                self.begin_definitions()?;
                self.member(name, &schema)
            }
            Form::Protobuf => self.out.write_all(&gnostic::definition(name, &schema)),
        }
    }

    /// Ends the document and gives back what it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        if self.form == Form::Json {
            self.begin_definitions()?;
            self.out.write_all(b"}}")?;
        }
        Ok(self.out)
    }

    fn begin_definitions(&mut self) -> io::Result<()> {
        if self.defining {
            return Ok(());
        }
        self.defining = true;
        self.filled = false;
        self.out.write_all(b"},\"definitions\":{")
    }

    fn member(&mut self, name: &str, value: &Value) -> io::Result<()> {
        if self.filled {
            self.out.write_all(b",")?;
        }
        self.filled = true;
        serde_json::to_writer(&mut self.out, name)?;
        self.out.write_all(b":")?;
        serde_json::to_writer(&mut self.out, value)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Entry;
    use crate::openapi::paths::{Gvk, paths};

    fn namespaces() -> Map<String, Value> {
        let entry = Entry {
            kind: "Namespace".into(),
            list_kind: "NamespaceList".into(),
            plural: "namespaces".into(),
            singular: "namespace".into(),
            namespaced: false,
            verbs: ["get", "list", "patch"].map(str::to_owned).to_vec(),
            short_names: vec![],
            categories: vec![],
            subresources: vec![],
            fingerprint: String::new(),
        };
        paths("/api/v1", "", "v1", &[entry], &|gvk: &Gvk| Some(format!("x.{}", gvk.kind)))
    }

    fn written(form: Form) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), form, "v1").unwrap();
        writer.paths(&namespaces()).unwrap();
        writer.definition("x.Namespace", &json!({"type": "object"})).unwrap();
        writer.definition("x.NamespaceList", &json!({"type": "object"})).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn a_namespaces_patch_can_validate_fields() {
        let document: Value = serde_json::from_slice(&written(Form::Json)).unwrap();
        assert_eq!(document["swagger"], "2.0");
        assert_eq!(document["securityDefinitions"]["BearerToken"]["in"], "header");
        assert_eq!(document["definitions"].as_object().unwrap().len(), 2);
        let patch = &document["paths"]["/api/v1/namespaces/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Namespace");
        let named: Vec<&Value> = patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["name"] == "fieldValidation" && p["in"] == "query" && p["type"] == "string")
            .collect();
        assert_eq!(named.len(), 1);
    }

    #[test]
    fn the_protobuf_form_is_a_sequence_of_document_fields() {
        let bytes = written(Form::Protobuf);
        let (mut at, mut numbers) = (0, Vec::new());
        let varint = |at: &mut usize| {
            let (mut value, mut shift) = (0u64, 0);
            loop {
                let byte = bytes[*at];
                *at += 1;
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        };
        while at < bytes.len() {
            let tag = varint(&mut at);
            assert_eq!(tag & 7, 2, "every field of a document is text or a message");
            numbers.push(tag >> 3);
            at += varint(&mut at) as usize;
        }
        assert_eq!(at, bytes.len());
        assert_eq!(numbers, [1, 2, 12, 13, 8, 8, 9, 9]);
    }

    #[test]
    fn a_document_of_nothing_is_still_a_document() {
        let writer = Writer::begin(Vec::new(), Form::Json, "v1").unwrap();
        let document: Value = serde_json::from_slice(&writer.finish().unwrap()).unwrap();
        assert_eq!((&document["paths"], &document["definitions"]), (&json!({}), &json!({})));
    }
}
