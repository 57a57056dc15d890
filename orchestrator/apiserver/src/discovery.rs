//! Discovery: what is served, told both ways.
//!
//! [`legacy`] answers `/api`, `/apis`, `/apis/<group>` and `/apis/<group>/<version>` one document at a time;
//! [`aggregated`] tells everything at once to clients that ask for it. Both are pure functions of [`Group`]s, which
//! follow from the registry's definitions.

pub mod aggregated;
pub mod legacy;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::aggregation::Aggregation;
use crate::error::ApiError;
use crate::registry::{Definition, Registry, Subresource};
use crate::reviews;
use crate::server::chain::{accept, takes_gzip};
use crate::server::query::Query;
use crate::server::{Inner, negotiate, respond};

/// A path below an object, with the kind of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubresourceEntry {
    pub name: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub verbs: Vec<String>,
}

/// A resource of one group and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub singular: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub subresources: Vec<SubresourceEntry>,
    /// Stands for a type that is not part of the program; empty for built-in kinds.
    pub fingerprint: String,
}

/// A version of a group with its resources, by plural name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub name: String,
    pub entries: Vec<Entry>,
    /// Whoever serves it does not answer; this is what was known last.
    pub stale: bool,
}

/// An API group; the core group has an empty name. The first version is the preferred one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub versions: Vec<Version>,
}

/// Reads groups off the registry.
pub struct Discovery {
    registry: Arc<Registry>,
    aggregation: Arc<Aggregation>,
}

// === impl Discovery ===

impl Discovery {
    pub(crate) fn new(registry: Arc<Registry>, aggregation: Arc<Aggregation>) -> Self {
        Self { registry, aggregation }
    }

    /// Everything served, core group first, then by priority.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = self.local();
        self.aggregation.known().merge(&mut groups);
        groups
    }

    /// What this server serves itself, core group first, in the registry's order.
    pub fn local(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        for definition in self.registry.definitions() {
            add(&mut groups, &definition.group, &definition.version, entry(&definition));
        }
        for review in &reviews::RESOURCES {
            if self.registry.find(review.group, "v1", review.plural).is_none() {
                add(&mut groups, review.group, "v1", review_entry(review));
            }
        }
        for group in &mut groups {
            for version in &mut group.versions {
                version.entries.sort_by(|a, b| a.plural.cmp(&b.plural));
            }
        }
        groups.sort_by_key(|g| !g.name.is_empty());
        groups
    }
}

fn add(groups: &mut Vec<Group>, group: &str, version: &str, entry: Entry) {
    let group = match groups.iter().position(|g| g.name == group) {
        Some(at) => &mut groups[at],
        None => {
            groups.push(Group { name: group.to_owned(), versions: Vec::new() });
            let last = groups.len() - 1;
            &mut groups[last]
        }
    };
    match group.versions.iter_mut().find(|v| v.name == version) {
        Some(version) => version.entries.push(entry),
        None => {
            group.versions.push(Version { name: version.to_owned(), entries: vec![entry], stale: false });
        }
    }
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn entry(definition: &Definition) -> Entry {
    Entry {
        kind: definition.kind.to_string(),
        list_kind: definition.list_kind.to_string(),
        plural: definition.plural.to_string(),
        singular: definition.singular.clone(),
        namespaced: definition.namespaced,
        verbs: owned(definition.verbs),
        short_names: definition.short_names.iter().map(ToString::to_string).collect(),
        categories: definition.categories.iter().map(ToString::to_string).collect(),
        subresources: definition.subresources.iter().map(|s| subresource(definition, s)).collect(),
        fingerprint: definition.custom.as_ref().map(|custom| custom.fingerprint.clone()).unwrap_or_default(),
    }
}

fn subresource(definition: &Definition, subresource: &Subresource) -> SubresourceEntry {
    let own = subresource.version.is_empty();
    let pick = |theirs: &str, ours: &str| if own { ours.to_owned() } else { theirs.to_owned() };
    SubresourceEntry {
        name: subresource.name.to_owned(),
        group: pick(subresource.group, &definition.group),
        version: pick(subresource.version, &definition.version),
        kind: if subresource.kind.is_empty() { &definition.kind } else { subresource.kind }.to_owned(),
        verbs: owned(subresource.verbs),
    }
}

fn review_entry(review: &reviews::Review) -> Entry {
    Entry {
        kind: review.kind.to_owned(),
        list_kind: format!("{}List", review.kind),
        plural: review.plural.to_owned(),
        singular: review.kind.to_ascii_lowercase(),
        namespaced: review.namespaced,
        verbs: owned(&["create"]),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        fingerprint: String::new(),
    }
}

/// `/`: the paths there are.
pub fn root(discovery: &Discovery) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for group in discovery.groups().iter().filter(|g| !g.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{}", group.name, v.name)));
    }
    for path in [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    paths.push("/.well-known/openid-configuration".to_owned());
    paths.sort();
    json!({ "paths": paths })
}

/// Answers a path under `/api` or `/apis`, whose segments are `parts`.
pub(crate) fn answer(
    inner: &Inner,
    headers: &HeaderMap,
    query: &Query,
    parts: &[&str],
) -> Result<Response<Body>, ApiError> {
    let groups = inner.discovery.groups();
    if let (["api"] | ["apis"], Some(version)) = (parts, aggregated::wanted(accept(headers))) {
        let (core, named): (Vec<_>, Vec<_>) = groups.iter().partition(|g| g.name.is_empty());
        let told = aggregated::document(if parts == ["api"] { &core } else { &named }, version);
        return Ok(tagged(told, &aggregated::content_type(version), headers));
    }
    let missing = ApiError::no_such_path;
    let find = |name: &str| groups.iter().find(|g| g.name == name).ok_or_else(missing);
    let document = match parts {
        ["api"] => {
            let address = SocketAddr::new(inner.config.advertise_address, inner.config.listen.port());
            legacy::core_versions(find("")?, &address.to_string())
        }
        ["apis"] => legacy::groups(&groups),
        ["api", version] => legacy::resources(find("")?, version).ok_or_else(missing)?,
        ["apis", group] if !group.is_empty() => legacy::group(find(group)?),
        ["apis", group, version] if !group.is_empty() => {
            legacy::resources(find(group)?, version).ok_or_else(missing)?
        }
        _ => return Err(missing()),
    };
    let negotiated =
        negotiate::negotiate(accept(headers), query.flag("pretty")).ok_or_else(respond::not_acceptable)?;
    respond::value(200, inner.registry.schema(), &document, negotiated.encoding, takes_gzip(headers))
        .or_else(|_| Ok(respond::json(&document)))
}

/// A document with an ETag, or 304 when the client has it.
fn tagged(document: Value, content_type: &str, headers: &HeaderMap) -> Response<Body> {
    let body = document.to_string();
    let digest: [u8; 32] = Sha256::digest(body.as_bytes()).into();
    let tag = format!("\"{}\"", digest.iter().map(|b| format!("{b:02X}")).collect::<String>());
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::NOT_MODIFIED;
        response
    } else {
        respond::bytes(200, content_type, body.into(), takes_gzip(headers))
    };
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}
