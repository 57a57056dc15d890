//! A CustomResourceDefinition object into the definitions of its kinds. Pure.

use std::cmp::Ordering;
use std::sync::Arc;

use penstock_schema::structural::{StructuralError, custom_type};
use penstock_schema::validation::{CompileError, Validator};
use penstock_schema::{Gvk, Text};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::CustomKind;
use super::columns::PrinterColumns;
use super::conversion::Converter;
use super::json_path::JsonPath;
use super::rules::Rules;
use super::scale::ScalePaths;
use super::strategy;
use crate::registry::definition::{
    Conversion, Declaration, Definition, SCALE, STATUS, StoredAs, Subresource,
};
use crate::registry::meta::NameRule;
use crate::registry::object::{items_at, meta_str, str_at};
use crate::registry::served::Custom;

/// Why a definition cannot be served. Validation refuses such definitions; one may still be in the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("no version is the storage version")]
    NoStorage,
    #[error("version {version}: {source}")]
    Structure {
        version: String,
        #[source]
        source: StructuralError,
    },
    #[error("version {version}: {source}")]
    Rules {
        version: String,
        #[source]
        source: CompileError,
    },
}

/// Everything the definition adds to what is served, under the names in `names` (accepted ones).
pub(crate) fn build(crd: &Value, names: &Value) -> Result<Custom, BuildError> {
    let versions = items_at(crd, "/spec/versions");
    let storage = versions.iter().find(|v| v["storage"] == true).ok_or(BuildError::NoStorage)?;
    let stored = Arc::new(definition(crd, names, versions, storage, storage)?);
    let mut served = Vec::new();
    for version in versions.iter().filter(|v| v["served"] == true) {
        served.push(if version["name"] == storage["name"] {
            stored.clone()
        } else {
            Arc::new(definition(crd, names, versions, version, storage)?)
        });
    }
    served.sort_by(|a, b| preference(&a.version, &b.version));
    // Objects in the cache are shaped by the storage version's schema and indexed by its selectable fields.
    let fingerprint = digest(&[
        meta_str(crd, "uid"),
        str_at(crd, "/spec/scope"),
        str_at(crd, "/spec/conversion/strategy"),
        &names.to_string(),
        &storage["name"].to_string(),
        &storage["schema"].to_string(),
        &storage["selectableFields"].to_string(),
    ]);
    Ok(Custom { versions: served, stored, storage_fingerprint: fingerprint })
}

fn definition(
    crd: &Value,
    names: &Value,
    versions: &[Value],
    version: &Value,
    storage: &Value,
) -> Result<Definition, BuildError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> Vec<Text> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|t| Text::Owned(t.to_owned()))
            .collect()
    };
    let name = text(&version["name"]);
    let group = text(&crd["spec"]["group"]);
    let (kind, list_kind, plural) = (text(&names["kind"]), text(&names["listKind"]), text(&names["plural"]));
    let schema = &version["schema"]["openAPIV3Schema"];
    let gvk = Gvk { group: group.clone(), version: name.clone(), kind: kind.clone() };
    let ty = custom_type(&gvk, &list_kind, schema)
        .map_err(|source| BuildError::Structure { version: name.clone(), source })?;
    let validator =
        Validator::compile(schema).map_err(|source| BuildError::Rules { version: name.clone(), source })?;
    let selectable: Vec<(Text, JsonPath)> = items_at(version, "/selectableFields")
        .iter()
        .filter_map(|field| {
            let path = field["jsonPath"].as_str()?;
            Some((Text::Owned(path.trim_start_matches('.').to_owned()), JsonPath::parse(path)?))
        })
        .collect();
    let scale = ScalePaths::of(&version["subresources"]["scale"]);
    let status = version["subresources"]["status"].is_object();
    let custom = Arc::new(CustomKind {
        validator,
        rules: Rules::compile(schema),
        columns: PrinterColumns::of(&version["additionalPrinterColumns"]),
        fingerprint: digest(&[&version.to_string(), &names.to_string()]),
        terminating: !meta_str(crd, "deletionTimestamp").is_empty(),
        converter: Converter::of(
            crd,
            digest(&[&version.to_string(), &crd["spec"]["conversion"].to_string()]),
        ),
        deprecation: deprecation(&group, &kind, version, versions),
        selectable,
        scale,
    });
    const NONE: &[Subresource] = &[];
    let subresources: &'static [Subresource] = match (status, custom.scale.is_some()) {
        (false, false) => NONE,
        (true, false) => &[STATUS],
        (false, true) => &[SCALE],
        (true, true) => &[STATUS, SCALE],
    };
    let mut declaration = Declaration::new(group.clone(), name.clone(), kind, plural.clone())
        .strategy(strategy::Custom(custom.clone()));
    declaration.list_kind = list_kind.into();
    declaration.singular = text(&names["singular"]);
    declaration.short_names = list(&names["shortNames"]);
    declaration.categories = list(&names["categories"]);
    declaration.namespaced = crd["spec"]["scope"] == "Namespaced";
    declaration.subresources = subresources;
    declaration.field_labels = custom.selectable.iter().map(|(label, _)| label.clone()).collect();
    declaration.name_rule = NameRule::Subdomain;
    declaration.generation = true;
    declaration.unconditional_update = false;
    declaration.custom = Some(custom);
    if version["name"] != storage["name"] {
        // Without a converter versions differ in their name and in what their schemas keep.
        let conversion = Conversion { to_stored: |value| value, from_stored: |value| value };
        declaration.stored_as = Some(StoredAs {
            group: group.into(),
            version: text(&storage["name"]).into(),
            plural: plural.into(),
            conversion,
        });
    }
    Ok(declaration.of_type(ty))
}

/// The warning of a deprecated version, in upstream's words unless the definition has its own.
fn deprecation(group: &str, kind: &str, version: &Value, versions: &[Value]) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    if let Some(own) = version["deprecationWarning"].as_str() {
        return Some(own.to_owned());
    }
    let name = str_at(version, "/name");
    let mut text = format!("{group}/{name} {kind} is deprecated");
    let mut newer: Vec<&str> = versions
        .iter()
        .filter(|v| v["served"] == true && v["deprecated"] != true)
        .map(|v| str_at(v, "/name"))
        .filter(|v| stability(v) >= stability(name) && preference(v, name) == Ordering::Less)
        .collect();
    newer.sort_by(|a, b| preference(a, b));
    if let Some(newest) = newer.first() {
        text.push_str(&format!("; use {group}/{newest} {kind}"));
    }
    Some(text)
}

/// 3 for `v1`, 2 for beta, 1 for alpha, 0 for names that are no versions.
fn stability(version: &str) -> u8 {
    parsed(version).map_or(0, |(stability, ..)| stability)
}

/// Stability, major, minor of a version such as `v2beta1`.
fn parsed(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|n| *n > 0 && !text.starts_with('+'));
    for (word, stability) in [("alpha", 1), ("beta", 2)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, number(major)?, number(minor)?));
        }
    }
    Some((3, number(rest)?, 0))
}

/// Which of two versions clients should use: stable before beta before alpha before others, newer before older.
pub(crate) fn preference(a: &str, b: &str) -> Ordering {
    match (parsed(a), parsed(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn widget() -> Value {
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"color": {"type": "string"}}}}}});
        json!({
            "metadata": {"name": "widgets.shop.example.com", "uid": "u"},
            "spec": {
                "group": "shop.example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
                          "shortNames": ["wi"], "categories": ["all"]},
                "versions": [
                    {"name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": schema},
                    {"name": "v1", "served": true, "storage": true, "schema": schema,
                     "selectableFields": [{"jsonPath": ".spec.color"}],
                     "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}}},
                ],
            },
        })
    }

    #[test]
    fn versions_are_served_by_preference_and_stored_as_one() {
        let crd = widget();
        let custom = build(&crd, &crd["spec"]["names"]).unwrap();
        let names: Vec<&str> = custom.versions.iter().map(|d| d.version.as_ref()).collect();
        assert_eq!(names, ["v1", "v1beta1"]);
        let (v1, beta) = (&custom.versions[0], &custom.versions[1]);
        assert_eq!(v1.storage(), beta.storage());
        assert!(v1.stored_as.is_none() && v1.isolates_status() && v1.subresource("scale").is_some());
        assert_eq!(v1.field_labels, ["spec.color"]);
        assert_eq!(v1.share(&json!({"spec": {"color": "red"}})).field("spec.color"), Some("red"));
        let warning = beta.custom.as_ref().unwrap().deprecation.clone();
        assert_eq!(
            warning.as_deref(),
            Some("shop.example.com/v1beta1 Widget is deprecated; use shop.example.com/v1 Widget")
        );
    }

    #[test]
    fn only_what_shapes_stored_objects_changes_their_storage() {
        let crd = widget();
        let before = build(&crd, &crd["spec"]["names"]).unwrap().storage_fingerprint;
        let mut columns = crd.clone();
        columns["spec"]["versions"][1]["additionalPrinterColumns"] =
            json!([{"name": "C", "type": "string", "jsonPath": ".spec.color"}]);
        assert_eq!(build(&columns, &columns["spec"]["names"]).unwrap().storage_fingerprint, before);
        let mut schema = crd.clone();
        schema["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["x"] =
            json!({"type": "string"});
        assert_ne!(build(&schema, &schema["spec"]["names"]).unwrap().storage_fingerprint, before);
    }

    #[test]
    fn versions_are_preferred_as_upstream_orders_them() {
        let mut versions = vec![
            "foo10",
            "v1",
            "v12alpha1",
            "v10",
            "v3beta1",
            "foo1",
            "v2",
            "v11alpha2",
            "v10beta3",
            "v11beta2",
        ];
        versions.sort_by(|a, b| preference(a, b));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]
        );
    }
}
