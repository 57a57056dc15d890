//! IngressClass: which controller serves the Ingresses that name it.

use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Fixed, Rule, at, when, within};
use crate::registry::kinds::rules::shapes::TYPED_REFERENCE;
use crate::registry::meta::names;
use crate::tables::network::INGRESS_CLASSES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("networking.k8s.io", "v1", "IngressClass", "ingressclasses")
        .columns(INGRESS_CLASSES)
        .cluster_scoped()
        .generation()
        .rules(RULES)
        .fixed(&[Fixed::Field("spec.controller")])
}

const RULES: &[Rule] = &[
    at("spec.controller", Check::Required("")),
    at("spec.controller", Check::BytesMax(250)),
    at("spec.controller", Check::Name(names::domain_prefixed_path)),
    within("spec.parameters", TYPED_REFERENCE),
    within(
        "spec.parameters",
        &[
            at("scope", Check::Required("")),
            at("scope", Check::OneOf(&["Cluster", "Namespace"])),
            when(
                "scope",
                &["Namespace"],
                &[
                    at("namespace", Check::Given("`parameters.scope` is set to 'Namespace'")),
                    at("namespace", Check::Text(names::label)),
                ],
            ),
            when(
                "scope",
                &["Cluster"],
                &[at("namespace", Check::Forbidden("`parameters.scope` is set to 'Cluster'"))],
            ),
        ],
    ),
];
