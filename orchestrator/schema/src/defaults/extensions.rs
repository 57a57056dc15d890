//! Custom resource definitions and aggregated API services.

use super::{Hook, Object, child, fill, fill_zero, text};

pub(super) const HOOKS: &[(&str, Hook)] = &[
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionSpec",
        definition,
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.ServiceReference",
        |o| fill(o, "port", 443),
    ),
    (
        "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.ServiceReference",
        |o| fill(o, "port", 443),
    ),
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
