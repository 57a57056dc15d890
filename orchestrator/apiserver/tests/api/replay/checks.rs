//! Whether an answer is what our own documents promise: the schema engine's types, the OpenAPI v3 we serve, the shape
//! of Tables and of failures.

use std::collections::HashMap;

use anyhow::{Context as _, ensure};
use penstock_apiserver::User;
use penstock_schema::{Schema, protobuf};
use serde_json::{Map, Value};

use crate::cluster::Cluster;

/// Upstream's reasons of failures (`StatusReason` in meta/v1).
pub const REASONS: [&str; 22] = [
    "Unauthorized",
    "Forbidden",
    "NotFound",
    "AlreadyExists",
    "Conflict",
    "Gone",
    "Invalid",
    "ServerTimeout",
    "StoreReadError",
    "Timeout",
    "TooManyRequests",
    "BadRequest",
    "MethodNotAllowed",
    "NotAcceptable",
    "RequestEntityTooLarge",
    "UnsupportedMediaType",
    "InternalError",
    "Expired",
    "ServiceUnavailable",
    "NotImplemented",
    "Unknown",
    "ResourceVersionTooLarge",
];

/// An answer's object, whatever it was sent as; protobuf must be what the schema says of its kind.
pub fn object(content_type: &str, bytes: &[u8]) -> anyhow::Result<Value> {
    if !content_type.starts_with("application/vnd.kubernetes.protobuf") {
        return serde_json::from_slice(bytes).with_context(|| String::from_utf8_lossy(bytes).into_owned());
    }
    let envelope = protobuf::open_envelope(bytes)?;
    let (group, version) = group_version(&envelope.api_version);
    let ty = Schema::builtin().kind(group, version, &envelope.kind);
    let ty = ty.with_context(|| format!("no {} in {}", envelope.kind, envelope.api_version))?;
    let mut object = protobuf::decode(&ty, &envelope.raw)?;
    // A list of nothing has no items in this form.
    if envelope.kind.ends_with("List") && object.get("items").is_none() {
        object["items"] = Value::Array(Vec::new());
    }
    object["apiVersion"] = envelope.api_version.into();
    object["kind"] = envelope.kind.into();
    Ok(object)
}

fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// A built-in object has no field its type has not.
pub fn check_type(object: &Value) -> anyhow::Result<()> {
    let (group, version) = group_version(object["apiVersion"].as_str().unwrap_or_default());
    let kind = object["kind"].as_str().unwrap_or_default();
    if let Some(ty) = Schema::builtin().kind(group, version, kind) {
        let decoded = penstock_schema::json::decode(&ty, object.to_string().as_bytes())?;
        ensure!(decoded.issues.is_empty(), "{kind}: {:?}", decoded.issues);
    }
    Ok(())
}

/// A failure: the code of the answer, and a reason clients know.
pub fn check_status(code: u16, status: &Value) -> anyhow::Result<()> {
    ensure!(status["kind"] == "Status" && status["apiVersion"] == "v1", "no Status: {status}");
    check_type(status)?;
    if code >= 400 {
        ensure!(status["status"] == "Failure", "{status}");
        ensure!(status["code"] == code, "the code of the answer is {code}: {status}");
        ensure!(REASONS.iter().any(|reason| status["reason"] == *reason), "an unknown reason: {status}");
        ensure!(status["message"].as_str().is_some_and(|message| !message.is_empty()), "{status}");
    }
    Ok(())
}

/// As many cells as columns, each column complete, each row with the object it tells of.
pub fn check_table(table: &Value, is_first: bool) -> anyhow::Result<()> {
    ensure!(table["apiVersion"] == "meta.k8s.io/v1", "{table}");
    let columns = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
    ensure!(!is_first || !columns.is_empty(), "no columns: {table}");
    for column in &columns {
        for key in ["name", "type", "format", "description"] {
            ensure!(column[key].is_string(), "{key} of {column}");
        }
        ensure!(column["priority"].is_u64(), "priority of {column}");
    }
    for row in table["rows"].as_array().context("no rows")? {
        let cells = row["cells"].as_array().context("no cells")?;
        ensure!(columns.is_empty() || cells.len() == columns.len(), "{} columns: {row}", columns.len());
        for (cell, column) in cells.iter().zip(&columns) {
            let fits = match column["type"].as_str().unwrap_or_default() {
                "integer" => cell.is_i64() || cell.is_null(),
                "string" | "date" => cell.is_string() || cell.is_null(),
                "boolean" => cell.is_boolean(),
                _ => true,
            };
            ensure!(fits, "{cell} in column {column}");
        }
        ensure!(row["object"]["kind"] == "PartialObjectMetadata", "{row}");
    }
    Ok(())
}

/// The OpenAPI v3 documents of a server, as it serves them.
pub struct Documents {
    /// By their path: `api/v1`, `apis/apps/v1`.
    pub by_path: HashMap<String, Value>,
    /// `?hash=` of each.
    pub hashes: HashMap<String, String>,
}

// === impl Documents ===

impl Documents {
    pub async fn read(cluster: &Cluster) -> anyhow::Result<Self> {
        let client = cluster.server.client(User::system("test"));
        let get = async |path: &str| {
            client.request::<Value>(http::Request::get(path).body(Vec::new()).expect("a request")).await
        };
        let index = get("/openapi/v3").await?;
        let (mut by_path, mut hashes) = (HashMap::new(), HashMap::new());
        for (path, entry) in index["paths"].as_object().context("no paths")? {
            let url = entry["serverRelativeURL"].as_str().context("no URL")?;
            if url.contains("metrics.k8s.io") {
                continue;
            }
            by_path.insert(path.clone(), get(url).await?);
            let hash = url.split_once("hash=").map(|(_, hash)| hash.to_owned());
            hashes.insert(path.clone(), hash.unwrap_or_default());
        }
        Ok(Self { by_path, hashes })
    }

    /// Checks a successful answer by what the operation promises. Paths nobody documents are not checked.
    pub fn check(&self, method: &str, path: &str, code: u16, object: &Value) -> anyhow::Result<()> {
        let path = path.split('?').next().unwrap_or_default();
        let Some((document, template)) = self.template(path) else { return Ok(()) };
        let operation = &document["paths"][template][method.to_ascii_lowercase()];
        ensure!(operation.is_object(), "{method} {template} is not documented");
        let response = &operation["responses"][code.to_string()];
        ensure!(response.is_object(), "{method} {template}: an answer of {code} is not documented");
        let schema = &response["content"]["application/json"]["schema"];
        if schema.is_null() {
            return Ok(());
        }
        let validator = Validator { components: &document["components"]["schemas"] };
        // A deletion that is not done yet answers with the object, for which upstream's documents have no word either.
        let promised = schema["$ref"].as_str().unwrap_or_default();
        if promised.ends_with(".Status") && object["kind"] != "Status" {
            return check_type(object);
        }
        validator.check(schema, object, "").with_context(|| format!("{method} {template}"))
    }

    fn template(&self, path: &str) -> Option<(&Value, &str)> {
        self.by_path.iter().find_map(|(_, document)| {
            let templates = document["paths"].as_object()?.keys();
            let mut fits: Vec<&String> = templates.filter(|template| matches(template, path)).collect();
            // `/namespaces/{name}` and the like: the template with fewest holes means it.
            fits.sort_by_key(|template| template.matches('{').count());
            Some((document, fits.first()?.as_str()))
        })
    }
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.trim_end_matches('/').split('/'));
    let (template, path): (Vec<_>, Vec<_>) = (template.collect(), path.collect());
    template.len() == path.len() && template.iter().zip(&path).all(|(t, p)| t.starts_with('{') || t == p)
}

/// OpenAPI v3 schemas as far as ours use them.
struct Validator<'a> {
    components: &'a Value,
}

// === impl Validator ===

impl Validator<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str) -> anyhow::Result<()> {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            let named = &self.components[name];
            ensure!(named.is_object(), "{at}: {name} is not in the document");
            return self.check(named, value, at);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.check(part, value, at)?;
        }
        for choice in ["oneOf", "anyOf"] {
            if let Some(parts) = schema[choice].as_array() {
                ensure!(parts.iter().any(|part| self.check(part, value, at).is_ok()), "{at}: {value}");
            }
        }
        let ty = schema["type"].as_str().unwrap_or_default();
        let fits = match ty {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            _ => true,
        };
        ensure!(fits, "{at}: {value} is no {ty}");
        if schema["format"] == "date-time" {
            let parsed = value.as_str().unwrap_or_default().parse::<jiff::Timestamp>();
            ensure!(parsed.is_ok(), "{at}: {value} is no time");
        }
        if let Some(allowed) = schema["enum"].as_array() {
            ensure!(allowed.contains(value), "{at}: {value} is none of {allowed:?}");
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(&schema["items"], item, &format!("{at}[{index}]"))?;
        }
        match value.as_object() {
            Some(object) if ty == "object" => self.check_fields(schema, object, at),
            _ => Ok(()),
        }
    }

    fn check_fields(&self, schema: &Value, object: &Map<String, Value>, at: &str) -> anyhow::Result<()> {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            ensure!(object.contains_key(name), "{at}: {name} is missing");
        }
        for (name, field) in object {
            let at = format!("{at}.{name}");
            if let Some(known) = schema["properties"].get(name) {
                self.check(known, field, &at)?;
            } else if schema["additionalProperties"].is_object() {
                self.check(&schema["additionalProperties"], field, &at)?;
            } else {
                let open = schema["properties"].is_null() || schema["additionalProperties"] == true;
                ensure!(open, "{at} is not in the schema");
            }
        }
        Ok(())
    }
}
