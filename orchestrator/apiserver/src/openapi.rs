//! OpenAPI v3: what the API looks like, for clients that check before they send.
//!
//! One document a group and version, built from discovery's entries and the schema when somebody asks. Documents are
//! kept compressed, and only a few: kubectl reads them once and caches them by their hash. `/openapi/v2` exists only
//! as protobuf upstream clients rarely need; it answers 406 so that they fall back.

pub mod parameters;
pub mod paths;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::discovery::{Discovery, Group, Version, legacy};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::server::chain::{accept, takes_gzip};
use crate::server::query::Query;
use crate::server::{GIT_VERSION, Inner, negotiate, respond};
use paths::Gvk;

/// Compressed documents kept at once; the largest (core) is about 100 KiB.
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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By path, e.g. `apis/apps/v1`. Cheap enough to keep for all.
    hashes: BTreeMap<String, String>,
    /// Most recently used last.
    kept: Vec<(String, Document)>,
}

// === impl OpenApi ===

impl OpenApi {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { discovery: Discovery::new(registry.clone()), registry, state: Mutex::default() }
    }

    /// `/openapi/v3`: where each document is, under a URL that changes with its content.
    fn index(&self) -> Result<Value, ApiError> {
        let mut paths = serde_json::Map::new();
        for group in self.discovery.groups() {
            for version in &group.versions {
                let path = path_of(&group, version);
                let hash = self.hash(&path, &group, version)?;
                paths.insert(
                    path.clone(),
                    json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
                );
            }
        }
        Ok(json!({ "paths": paths }))
    }

    fn hash(&self, path: &str, group: &Group, version: &Version) -> Result<String, ApiError> {
        if let Some(hash) = self.state.lock().hashes.get(path) {
            return Ok(hash.clone());
        }
        // The hash covers what the document is made from, so that the index need not build any document: the types
        // are part of the program, whose version therefore stands for them.
        let seed = format!("{GIT_VERSION} {} {version:?}", group.name);
        let digest: [u8; 32] = Sha256::digest(seed.as_bytes()).into();
        let hash: String = digest.iter().map(|b| format!("{b:02X}")).collect();
        self.state.lock().hashes.insert(path.to_owned(), hash.clone());
        Ok(hash)
    }

    fn document(&self, path: &str) -> Result<Document, ApiError> {
        {
            let mut state = self.state.lock();
            if let Some(at) = state.kept.iter().position(|(kept, _)| kept == path) {
                let hit = state.kept.remove(at);
                let document = hit.1.clone();
                state.kept.push(hit);
                return Ok(document);
            }
        }
        let groups = self.discovery.groups();
        let (group, version) = groups
            .iter()
            .flat_map(|g| g.versions.iter().map(move |v| (g, v)))
            .find(|(g, v)| path_of(g, v) == path)
            .ok_or_else(ApiError::no_such_path)?;
        let built = self.build(path, group, version);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(built.to_string().as_bytes()).map_err(ApiError::internal)?;
        let gzip = Bytes::from(encoder.finish().map_err(ApiError::internal)?);
        let document = Document { hash: self.hash(path, group, version)?, gzip };
        let mut state = self.state.lock();
        state.kept.push((path.to_owned(), document.clone()));
        if state.kept.len() > KEPT_MAX {
            state.kept.remove(0);
        }
        Ok(document)
    }

    fn build(&self, path: &str, group: &Group, version: &Version) -> Value {
        let schema = self.registry.schema();
        let name_of = |gvk: &Gvk| {
            schema.kind(&gvk.group, &gvk.version, &gvk.kind).map(|ty| penstock_schema::openapi::name_of(&ty))
        };
        let paths = paths::paths(&format!("/{path}"), &group.name, &version.name, &version.entries, &name_of);
        let mut roots = Vec::new();
        for entry in &version.entries {
            for kind in [entry.kind.clone(), format!("{}List", entry.kind)] {
                roots.extend(schema.kind(&group.name, &version.name, &kind));
            }
            roots
                .extend(entry.subresources.iter().filter_map(|s| schema.kind(&s.group, &s.version, &s.kind)));
        }
        for kind in ["Status", "DeleteOptions"] {
            roots.extend(schema.kind("", "v1", kind));
        }
        let mut schemas = penstock_schema::openapi::v3_schemas(&roots);
        schemas.entry("io.k8s.apimachinery.pkg.apis.meta.v1.Patch").or_insert_with(|| {
            json!({"type": "object", "description": "The body of a PATCH request, in one of the patch formats."})
        });
        json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": GIT_VERSION},
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {"BearerToken": {
                    "type": "apiKey", "name": "authorization", "in": "header",
                    "description": "Bearer Token authentication"}},
            },
        })
    }
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
            Ok(written(&inner.openapi.document(&path)?, query.text("hash"), headers))
        }
        ["v2"] => Err(ApiError::not_acceptable("OpenAPI v2 is not served; use /openapi/v3")),
        _ => Err(ApiError::no_such_path()),
    }
}

fn written(document: &Document, asked: Option<&str>, headers: &HeaderMap) -> Response<Body> {
    let tag = format!("\"{}\"", document.hash);
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if takes_gzip(headers) {
        let mut response = respond::bytes(200, negotiate::JSON, document.gzip.clone(), false);
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut plain = Vec::new();
        match GzDecoder::new(&document.gzip[..]).read_to_end(&mut plain) {
            Ok(_) => respond::bytes(200, negotiate::JSON, plain.into(), false),
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
