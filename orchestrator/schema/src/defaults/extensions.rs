//! Custom resource definitions and aggregated API services.

use serde_json::json;

use super::{Hook, Object, child, fill, fill_zero, is_empty_list, text};
use crate::Value;

pub(super) const HOOKS: &[(&str, Hook)] = &[
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition", stored_versions),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionSpec", definition),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.ServiceReference", |o| fill(o, "port", 443)),
    ("io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.ServiceReference", |o| fill(o, "port", 443)),
];

fn definition(spec: &mut Object) {
    if let Some(names) = child(spec, "names") {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            fill_zero(names, "singular", kind.to_lowercase());
            fill_zero(names, "listKind", format!("{kind}List"));
        }
    }
    if let Some(conversion) = child(spec, "conversion") {
        fill_zero(conversion, "strategy", "None");
    }
}

/// The version that is stored now has been stored, once objects exist.
fn stored_versions(crd: &mut Object) {
    let versions = crd.get("spec").and_then(|s| s.get("versions")).and_then(Value::as_array);
    let stored = versions
        .and_then(|versions| versions.iter().find(|v| v["storage"] == true))
        .map(|v| v["name"].clone());
    if let Some(name) = stored.filter(Value::is_string)
        && let Some(status) = child(crd, "status")
        && is_empty_list(status, "storedVersions")
    {
        status.insert("storedVersions".into(), json!([name]));
    }
}
