//! What extension servers say of themselves: resources for discovery, OpenAPI for everybody who checks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::availability::get;
use super::raised;
use super::remote::Remote;
use crate::discovery::{Entry, SubresourceEntry};
use crate::outbound::{CallError, Identity};
use crate::registry::Registry;
use crate::registry::object::{items_at, str_at};

/// Larger documents of extension servers are refused.
pub(super) const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// What one server said last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Documents {
    pub entries: Vec<Entry>,
    pub openapi: Option<OpenApiDocument>,
}

/// An OpenAPI v3 document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenApiDocument {
    pub json: Bytes,
}

/// The resources of an APIResourceList.
pub(super) fn entries(group: &str, version: &str, list: &Value) -> Vec<Entry> {
    let texts = |value: &Value, field: &str| -> Vec<String> {
        let items = items_at(value, &format!("/{field}")).iter();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let or = |said: &str, ours: &str| if said.is_empty() { ours } else { said }.to_owned();
    let mut entries: Vec<Entry> = Vec::new();
    let mut subresources = Vec::new();
    for resource in items_at(list, "/resources") {
        let (name, kind) = (str_at(resource, "/name"), str_at(resource, "/kind").to_owned());
        match name.split_once('/') {
            None => entries.push(Entry {
                list_kind: format!("{kind}List"),
                singular: or(str_at(resource, "/singularName"), &kind.to_ascii_lowercase()),
                kind,
                plural: name.to_owned(),
                namespaced: resource["namespaced"] == true,
                verbs: texts(resource, "verbs"),
                short_names: texts(resource, "shortNames"),
                categories: texts(resource, "categories"),
                subresources: Vec::new(),
                fingerprint: String::new(),
            }),
            Some((parent, name)) => subresources.push((
                parent.to_owned(),
                SubresourceEntry {
                    name: name.to_owned(),
                    group: or(str_at(resource, "/group"), group),
                    version: or(str_at(resource, "/version"), version),
                    kind,
                    verbs: texts(resource, "verbs"),
                },
            )),
        }
    }
    for (parent, subresource) in subresources {
        if let Some(entry) = entries.iter_mut().find(|entry| entry.plural == parent) {
            entry.subresources.push(subresource);
        }
    }
    entries.sort_by(|a, b| a.plural.cmp(&b.plural));
    entries
}

/// The OpenAPI document of a server's group and version: its own of v3, or what its v2 says of it.
pub(super) async fn openapi(
    registry: &Registry,
    identity: Option<&Arc<Identity>>,
    remote: &Remote,
) -> Result<OpenApiDocument, CallError> {
    let path = format!("/openapi/v3{}", remote.discovery_path());
    let reading = async {
        match get(registry, identity, remote, &path).await {
            Ok(json) => Ok(json),
            Err(CallError::Refused { .. }) => {
                let whole = get(registry, identity, remote, "/openapi/v2").await?;
                let whole: Value =
                    serde_json::from_slice(&whole).map_err(|e| CallError::NotJson { why: e.to_string() })?;
                Ok(raised::document(&whole, &remote.discovery_path()).to_string().into())
            }
            Err(error) => Err(error),
        }
    };
    let json = tokio::time::timeout(TIMEOUT, reading).await.unwrap_or(Err(CallError::Deadline))?;
    match serde_json::from_slice::<Value>(&json) {
        Ok(Value::Object(_)) => Ok(OpenApiDocument { json }),
        Ok(_) => Err(CallError::NotJson { why: "an OpenAPI document is an object".into() }),
        Err(e) => Err(CallError::NotJson { why: e.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resource_list_is_read_with_its_subresources() {
        let list = json!({"kind": "APIResourceList", "resources": [
            {"name": "flunders/status", "kind": "Flunder", "verbs": ["get"]},
            {"name": "flunders", "kind": "Flunder", "namespaced": true, "verbs": ["get", "list"], "shortNames": ["fl"]},
            {"name": "flunders/scale", "kind": "Scale", "group": "autoscaling", "version": "v1", "verbs": ["get"]},
            {"name": "orphans/status", "kind": "Orphan", "verbs": []}]});
        let entries = entries("wardle.example.com", "v1alpha1", &list);
        assert_eq!(entries.len(), 1);
        let flunder = &entries[0];
        assert_eq!(
            (&*flunder.singular, &*flunder.list_kind, flunder.namespaced),
            ("flunder", "FlunderList", true)
        );
        let subs: Vec<(&str, &str)> =
            flunder.subresources.iter().map(|s| (s.name.as_str(), s.group.as_str())).collect();
        assert_eq!(subs, [("status", "wardle.example.com"), ("scale", "autoscaling")]);
    }
}
