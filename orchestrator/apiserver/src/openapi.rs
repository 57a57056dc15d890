//! OpenAPI v3 and v2: what the API looks like, for clients that check before they send.
//!
//! v3 is one document a group and version, v2 is one of everything; both are built from discovery's entries and the
//! schema when somebody asks. Documents are kept compressed, and only a few: kubectl reads them once and caches them
//! by their hash.

pub mod parameters;
pub mod paths;
pub mod v2;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::aggregation::Aggregation;
use crate::discovery::{Discovery, Group, Version, legacy};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::server::chain::{accept, takes_gzip};
use crate::server::query::Query;
use crate::server::{GIT_VERSION, Inner, negotiate, respond};
use paths::Gvk;
use v2::Form;

/// Compressed documents kept at once; the largest (v2, everything) is about 400 KiB.
const KEPT_MAX: usize = 4;

/// A built document.
#[derive(Clone)]
struct Document {
    hash: String,
    gzip: Bytes,
}

/// Builds documents and remembers their hashes.
pub struct OpenApi {
    registry: Arc<Registry>,
    discovery: Discovery,
    aggregation: Arc<Aggregation>,
    state: Mutex<State>,
    /// Held while v2 is built, so that clients that ask at once have it built once.
    building_whole: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// By path, e.g. `apis/apps/v1`. Cheap enough to keep for all.
    hashes: BTreeMap<String, String>,
    /// By form and path, e.g. `v3/apis/apps/v1`; most recently used last.
    kept: Vec<(String, Document)>,
    /// What the registry served when all this was true.
    generation: u64,
}

impl State {
    /// Forgets what was true of kinds that have changed since.
    fn at(&mut self, generation: u64) -> &mut Self {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
        self
    }
}

// === impl OpenApi ===

impl OpenApi {
    pub(crate) fn new(registry: Arc<Registry>, aggregation: Arc<Aggregation>) -> Self {
        Self {
            discovery: Discovery::new(registry.clone(), aggregation.clone()),
            aggregation,
            registry,
            state: Mutex::default(),
            building_whole: Mutex::default(),
        }
    }

    /// Changes whenever what there is to tell does.
    fn generation(&self) -> u64 {
        self.registry.generation().wrapping_add(self.aggregation.generation())
    }

    /// `/openapi/v3`: where each document is, under a URL that changes with its content.
    fn index(&self) -> Result<Value, ApiError> {
        let mut paths = Map::new();
        for group in self.discovery.local() {
            for version in &group.versions {
                let path = path_of(&group, version);
                let hash = self.hash(&path, &group, version)?;
                paths.insert(
                    path.clone(),
                    json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
                );
            }
        }
        for (path, document) in self.aggregation.known().all_openapi() {
            let hash = digest(&document.json);
            paths.insert(
                path.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
            );
        }
        Ok(json!({ "paths": paths }))
    }

    fn hash(&self, path: &str, group: &Group, version: &Version) -> Result<String, ApiError> {
        if let Some(hash) = self.state.lock().at(self.generation()).hashes.get(path) {
            return Ok(hash.clone());
        }
        // The hash covers what the document is made from, so that the index need not build any document: the types
        // are part of the program, whose version therefore stands for them.
        // Custom types stand in the entries by their fingerprints.
        let generation = self.generation();
        let seed = format!("{GIT_VERSION} {} {version:?}", group.name);
        let hash = digest(seed);
        self.state.lock().at(generation).hashes.insert(path.to_owned(), hash.clone());
        Ok(hash)
    }

    fn document(&self, path: &str) -> Result<Document, ApiError> {
        // A path comes from the client: it must not name another kind of document.
        let key = format!("v3/{path}");
        if let Some(document) = self.kept(&key) {
            return Ok(document);
        }
        let generation = self.generation();
        if let Some(foreign) = self.aggregation.known().openapi(path) {
            let document = Document { hash: digest(&foreign.json), gzip: zipped(&foreign.json)? };
            self.keep(&key, document.clone(), generation);
            return Ok(document);
        }
        let groups = self.discovery.local();
        let (group, version) = groups
            .iter()
            .flat_map(|g| g.versions.iter().map(move |v| (g, v)))
            .find(|(g, v)| path_of(g, v) == path)
            .ok_or_else(ApiError::no_such_path)?;
        let built = self.build(group, version);
        let gzip = zipped(built.to_string().as_bytes())?;
        let document = Document { hash: self.hash(path, group, version)?, gzip };
        self.keep(&key, document.clone(), generation);
        Ok(document)
    }

    /// The one document of v2.
    fn whole(&self, form: Form) -> Result<Document, ApiError> {
        if let Some(document) = self.kept(form.key()) {
            return Ok(document);
        }
        let _building = self.building_whole.lock();
        if let Some(document) = self.kept(form.key()) {
            return Ok(document);
        }
        let generation = self.generation();
        let groups = self.discovery.local();
        // The two forms are two contents, each with a tag of its own.
        let known = self.aggregation.known();
        let foreign: Vec<&[u8]> = known.all_openapi().map(|(_, document)| &document.json[..]).collect();
        let foreign_hashes: Vec<String> = foreign.iter().map(digest).collect();
        let hash = digest(format!("{GIT_VERSION} {} {groups:?} {foreign_hashes:?}", form.key()));
        let gzip = self.write_whole(form, &groups, &foreign).map_err(ApiError::internal)?;
        let document = Document { hash, gzip };
        self.keep(form.key(), document.clone(), generation);
        Ok(document)
    }

    /// Goes over the groups twice, for paths and for definitions, rather than hold either for all of them.
    fn write_whole(&self, form: Form, groups: &[Group], foreign: &[&[u8]]) -> io::Result<Bytes> {
        let encoder = GzEncoder::new(Vec::new(), Compression::default());
        let mut writer = v2::Writer::begin(encoder, form, GIT_VERSION)?;
        let versions = || groups.iter().flat_map(|g| g.versions.iter().map(move |v| (g, v)));
        for (group, version) in versions() {
            writer.paths(&self.paths(group, version))?;
        }
        // Documents of extension servers were objects when they were read.
        let parsed = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap_or_default();
        for document in foreign.iter().map(|json| parsed(json)) {
            writer.paths(document["paths"].as_object().unwrap_or(&Map::new()))?;
        }
        let mut defined = BTreeSet::new();
        for (group, version) in versions() {
            for (name, schema) in self.schemas(group, version) {
                if !defined.contains(&name) {
                    writer.definition(&name, &schema)?;
                    defined.insert(name);
                }
            }
        }
        for mut document in foreign.iter().map(|json| parsed(json)) {
            let Value::Object(schemas) = document["components"]["schemas"].take() else { continue };
            for (name, schema) in schemas {
                if !defined.contains(&name) {
                    writer.definition(&name, &schema)?;
                    defined.insert(name);
                }
            }
        }
        Ok(Bytes::from(writer.finish()?.finish()?))
    }

    /// A document that is still there, which makes it the most recently used.
    fn kept(&self, key: &str) -> Option<Document> {
        let mut state = self.state.lock();
        let state = state.at(self.generation());
        let at = state.kept.iter().position(|(kept, _)| kept == key)?;
        let hit = state.kept.remove(at);
        let document = hit.1.clone();
        state.kept.push(hit);
        Some(document)
    }

    /// Keeps a document of what was served at `generation`, unless that has changed while it was made.
    fn keep(&self, key: &str, document: Document, generation: u64) {
        let mut state = self.state.lock();
        if self.generation() != generation {
            return;
        }
        let state = state.at(generation);
        state.kept.push((key.to_owned(), document));
        if state.kept.len() > KEPT_MAX {
            state.kept.remove(0);
        }
    }

    fn paths(&self, group: &Group, version: &Version) -> Map<String, Value> {
        let name_of = |gvk: &Gvk| {
            let ty = self.registry.type_of(&gvk.group, &gvk.version, &gvk.kind)?;
            Some(penstock_schema::openapi::name_of(&ty))
        };
        let root = format!("/{}", path_of(group, version));
        paths::paths(&root, &group.name, &version.name, &version.entries, &name_of)
    }

    /// Every schema a group version's paths refer to, by name.
    fn schemas(&self, group: &Group, version: &Version) -> Map<String, Value> {
        let schema = self.registry.schema();
        let mut roots = Vec::new();
        for entry in &version.entries {
            for kind in [&entry.kind, &entry.list_kind] {
                roots.extend(self.registry.type_of(&group.name, &version.name, kind));
            }
            roots.extend(
                entry
                    .subresources
                    .iter()
                    .filter_map(|s| self.registry.type_of(&s.group, &s.version, &s.kind)),
            );
        }
        for kind in ["Status", "DeleteOptions"] {
            roots.extend(schema.kind("", "v1", kind));
        }
        let mut schemas = penstock_schema::openapi::v3_schemas(&roots);
        schemas.entry("io.k8s.apimachinery.pkg.apis.meta.v1.Patch").or_insert_with(|| {
            json!({"type": "object", "description": "The body of a PATCH request, in one of the patch formats."})
        });
        schemas
    }

    fn build(&self, group: &Group, version: &Version) -> Value {
        json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": GIT_VERSION},
            "paths": self.paths(group, version),
            "components": {
                "schemas": self.schemas(group, version),
                "securitySchemes": {"BearerToken": {
                    "type": "apiKey", "name": "authorization", "in": "header",
                    "description": "Bearer Token authentication"}},
            },
        })
    }
}

fn zipped(plain: &[u8]) -> Result<Bytes, ApiError> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).map_err(ApiError::internal)?;
    Ok(encoder.finish().map_err(ApiError::internal)?.into())
}

fn digest(seed: impl AsRef<[u8]>) -> String {
    let digest: [u8; 32] = Sha256::digest(seed.as_ref()).into();
    digest.iter().map(|b| format!("{b:02X}")).collect()
}

/// `api/v1`, `apis/apps/v1`.
fn path_of(group: &Group, version: &Version) -> String {
    let root = if group.name.is_empty() { "api" } else { "apis" };
    format!("{root}/{}", legacy::group_version(&group.name, &version.name))
}

/// Answers `/openapi/<rest>`.
pub(crate) fn answer(
    inner: &Inner,
    headers: &HeaderMap,
    query: &Query,
    rest: &[&str],
) -> Result<Response<Body>, ApiError> {
    match rest {
        ["v3"] => Ok(respond::json(&inner.openapi.index()?)),
        ["v3", path @ ..] => {
            let path = path.join("/");
            let takes_json = negotiate::accepted(accept(headers).unwrap_or("*/*"))
                .iter()
                .any(|r| matches!(r.media.as_str(), negotiate::JSON | "*/*" | "application/*"));
            if !takes_json {
                return Err(respond::not_acceptable());
            }
            Ok(written(&inner.openapi.document(&path)?, negotiate::JSON, query.text("hash"), headers))
        }
        ["v2"] => {
            let (form, content_type) =
                v2_form(accept(headers).unwrap_or("*/*")).ok_or_else(v2_not_acceptable)?;
            Ok(written(&inner.openapi.whole(form)?, content_type, None, headers))
        }
        _ => Err(ApiError::no_such_path()),
    }
}

/// The form of v2 an `Accept` header wants most, and the content type it goes by.
fn v2_form(accept: &str) -> Option<(Form, &'static str)> {
    negotiate::accepted(accept).iter().find_map(|range| match range.media.as_str() {
        negotiate::JSON | "*/*" | "application/*" => Some((Form::Json, negotiate::JSON)),
        v2::PROTOBUF | v2::PROTOBUF_ASKED => Some((Form::Protobuf, v2::PROTOBUF)),
        _ => None,
    })
}

fn v2_not_acceptable() -> ApiError {
    ApiError::not_acceptable(format!(
        "only the following media types are accepted: {}, {}",
        negotiate::JSON,
        v2::PROTOBUF
    ))
}

fn written(
    document: &Document,
    content_type: &str,
    asked: Option<&str>,
    headers: &HeaderMap,
) -> Response<Body> {
    let tag = format!("\"{}\"", document.hash);
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if takes_gzip(headers) {
        let mut response = respond::bytes(200, content_type, document.gzip.clone(), false);
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut plain = Vec::new();
        match GzDecoder::new(&document.gzip[..]).read_to_end(&mut plain) {
            Ok(_) => respond::bytes(200, content_type, plain.into(), false),
            Err(error) => respond::text(500, error.to_string()),
        }
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, value);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    // A URL with the right hash names this very content for ever.
    let caching = if asked == Some(document.hash.as_str()) {
        "public, immutable, max-age=31536000"
    } else {
        "no-cache, private"
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_answers_with_a_type_gos_clients_can_parse() {
        for name in [v2::PROTOBUF, v2::PROTOBUF_ASKED] {
            let either = format!("{name}, application/json;q=0.5");
            for accept in [name, &either] {
                assert_eq!(v2_form(accept), Some((Form::Protobuf, v2::PROTOBUF)), "{accept}");
            }
        }
        assert!(!v2::PROTOBUF.contains('@'));
        assert_eq!(v2_form("*/*"), Some((Form::Json, negotiate::JSON)));
        assert_eq!(v2_form("text/html"), None);
    }
}
