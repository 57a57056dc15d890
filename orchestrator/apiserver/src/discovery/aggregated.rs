//! Aggregated discovery: every group, version and resource in one document.

use serde_json::{Value, json};

use super::{Entry, Group};
use crate::server::negotiate;

const GROUP: &str = "apidiscovery.k8s.io";
const KIND: &str = "APIGroupDiscoveryList";

/// The document's version a client wants, if it prefers the aggregated form at all.
pub fn wanted(accept: Option<&str>) -> Option<&'static str> {
    let ranges = negotiate::accepted(accept?);
    for range in &ranges {
        if range.media != negotiate::JSON && range.media != "*/*" && range.media != "application/*" {
            continue;
        }
        match (range.parameter("as"), range.parameter("g"), range.parameter("v")) {
            (Some(KIND), Some(GROUP), Some("v2")) => return Some("v2"),
            (Some(KIND), Some(GROUP), Some("v2beta1")) => return Some("v2beta1"),
            (None, ..) => return None,
            _ => {}
        }
    }
    None
}

/// The content type clients check before they believe the document.
pub fn content_type(version: &str) -> String {
    format!("application/json;g={GROUP};v={version};as={KIND}")
}

/// The document.
pub fn document(groups: &[&Group], version: &str) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|v| {
                    let resources: Vec<Value> =
                        v.entries.iter().map(|e| resource(&group.name, &v.name, e)).collect();
                    let freshness = if v.stale { "Stale" } else { "Current" };
                    json!({"version": v.name, "resources": resources, "freshness": freshness})
                })
                .collect();
            let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": KIND, "apiVersion": format!("{GROUP}/{version}"), "metadata": {}, "items": items})
}

fn resource(group: &str, version: &str, entry: &Entry) -> Value {
    let mut resource = json!({
        "resource": entry.plural,
        "responseKind": {"group": group, "version": version, "kind": entry.kind},
        "scope": if entry.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": entry.singular,
        "verbs": entry.verbs,
    });
    if !entry.short_names.is_empty() {
        resource["shortNames"] = json!(entry.short_names);
    }
    if !entry.categories.is_empty() {
        resource["categories"] = json!(entry.categories);
    }
    if !entry.subresources.is_empty() {
        let subresources: Vec<Value> = entry
            .subresources
            .iter()
            .map(|s| {
                json!({
                    "subresource": s.name,
                    "responseKind": {"group": s.group, "version": s.version, "kind": s.kind},
                    "verbs": s.verbs,
                })
            })
            .collect();
        resource["subresources"] = Value::Array(subresources);
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_that_ask_get_the_aggregated_form() {
        let both = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(wanted(Some(both)), Some("v2"));
        assert_eq!(wanted(Some("application/json, */*")), None);
        assert_eq!(wanted(None), None);
    }
}
