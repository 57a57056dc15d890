//! The discovery documents of old: `APIVersions`, `APIGroupList`, `APIGroup`, `APIResourceList`.

use serde_json::{Value, json};

use super::{Entry, Group};

/// `/api`.
pub fn core_versions(core: &Group, address: &str) -> Value {
    let versions: Vec<&str> = core.versions.iter().map(|v| v.name.as_str()).collect();
    json!({
        "kind": "APIVersions",
        "apiVersion": "v1",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`.
pub fn groups(groups: &[Group]) -> Value {
    let groups: Vec<Value> = groups.iter().filter(|g| !g.name.is_empty()).map(bare_group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub fn group(group: &Group) -> Value {
    let mut document = bare_group(group);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    document
}

/// `/api/v1` and `/apis/<group>/<version>`; None when the group has no such version.
pub fn resources(group: &Group, version: &str) -> Option<Value> {
    let version = group.versions.iter().find(|v| v.name == version)?;
    let resources: Vec<Value> = version.entries.iter().flat_map(|e| lines(group, e)).collect();
    let group_version = group_version(&group.name, &version.name);
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
    )
}

/// `apps/v1`, or `v1` in the core group.
pub fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn bare_group(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|v| json!({"groupVersion": group_version(&group.name, &v.name), "version": v.name}))
        .collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group.name, "versions": versions, "preferredVersion": preferred})
}

/// A resource's line and one for each of its subresources.
fn lines(group: &Group, entry: &Entry) -> Vec<Value> {
    let mut own = json!({
        "name": entry.plural,
        "singularName": entry.singular,
        "namespaced": entry.namespaced,
        "kind": entry.kind,
        "verbs": entry.verbs,
    });
    if !entry.short_names.is_empty() {
        own["shortNames"] = json!(entry.short_names);
    }
    if !entry.categories.is_empty() {
        own["categories"] = json!(entry.categories);
    }
    let mut lines = vec![own];
    lines.extend(entry.subresources.iter().map(|sub| {
        let mut line = json!({
            "name": format!("{}/{}", entry.plural, sub.name),
            "singularName": "",
            "namespaced": entry.namespaced,
            "kind": sub.kind,
            "verbs": sub.verbs,
        });
        // Only a foreign kind names its group and version: `drain` looks for policy/v1 on pods/eviction.
        if sub.group != group.name || sub.kind != entry.kind {
            let foreign = group.versions.iter().all(|v| v.name != sub.version) || sub.group != group.name;
            if foreign {
                line["group"] = sub.group.as_str().into();
                line["version"] = sub.version.as_str().into();
            }
        }
        line
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::{SubresourceEntry, Version};
    use super::*;

    fn core() -> Group {
        let eviction = SubresourceEntry {
            name: "eviction".into(),
            group: "policy".into(),
            version: "v1".into(),
            kind: "Eviction".into(),
            verbs: vec!["create".into()],
        };
        let status = SubresourceEntry {
            name: "status".into(),
            group: String::new(),
            version: "v1".into(),
            kind: "Pod".into(),
            verbs: vec!["get".into()],
        };
        let pods = Entry {
            kind: "Pod".into(),
            list_kind: "PodList".into(),
            plural: "pods".into(),
            singular: "pod".into(),
            namespaced: true,
            verbs: vec!["get".into(), "list".into()],
            short_names: vec!["po".into()],
            categories: vec!["all".into()],
            subresources: vec![eviction, status],
            fingerprint: String::new(),
        };
        Group {
            name: String::new(),
            versions: vec![Version { name: "v1".into(), entries: vec![pods], stale: false }],
        }
    }

    #[test]
    fn eviction_names_the_group_drain_looks_for() {
        let document = resources(&core(), "v1").unwrap();
        let lines = document["resources"].as_array().unwrap();
        assert_eq!(lines[0]["shortNames"][0], "po");
        assert_eq!(
            lines[1],
            json!({"name": "pods/eviction", "singularName": "", "namespaced": true, "kind": "Eviction",
                   "verbs": ["create"], "group": "policy", "version": "v1"})
        );
        assert!(lines[2].get("group").is_none());
        assert!(resources(&core(), "v2").is_none());
    }
}
