//! Ingresses and IngressClasses, cut down to what routing uses. Pure.
//!
//! It exists so that defaults and old spellings of the API are dealt with in one place. It must not decide whose an
//! Ingress is.

use k8s_openapi::api::networking::v1 as networking;
use penstock_ingress::{Backend, Class, Ingress, Path, PathKind, Port, Rule};

/// The annotation that named an Ingress's class before `spec.ingressClassName` did.
const CLASS: &str = "kubernetes.io/ingress.class";
/// The annotation that makes a class the one of Ingresses without a class.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// What routing uses of an Ingress.
pub fn ingress_view(ingress: networking::Ingress) -> Ingress {
    let metadata = ingress.metadata;
    let spec = ingress.spec.unwrap_or_default();
    let old_class = metadata.annotations.and_then(|mut annotations| annotations.remove(CLASS));
    Ingress {
        class: spec.ingress_class_name.or(old_class),
        created_seconds: metadata.creation_timestamp.map_or(i64::MAX, |time| time.0.as_second()),
        default_backend: spec.default_backend.and_then(backend),
        rules: spec.rules.unwrap_or_default().into_iter().map(rule).collect(),
        asks_for_tls: spec.tls.is_some_and(|tls| !tls.is_empty()),
    }
}

/// What routing uses of an IngressClass.
pub fn class_view(class: networking::IngressClass) -> Class {
    let annotations = class.metadata.annotations.unwrap_or_default();
    Class {
        controller: class.spec.and_then(|spec| spec.controller).unwrap_or_default(),
        is_default: annotations.get(DEFAULT_CLASS).is_some_and(|value| value == "true"),
    }
}

fn rule(rule: networking::IngressRule) -> Rule {
    let paths = rule.http.map(|http| http.paths).unwrap_or_default();
    Rule { host: rule.host.unwrap_or_default(), paths: paths.into_iter().filter_map(path).collect() }
}

fn path(path: networking::HTTPIngressPath) -> Option<Path> {
    let kind = match path.path_type.as_str() {
        "Exact" => PathKind::Exact,
        "Prefix" | "ImplementationSpecific" => PathKind::Prefix,
        // A later version's: read as anything known, it would match what nobody meant.
        _ => return None,
    };
    Some(Path { kind, path: path.path.unwrap_or_default(), backend: backend(path.backend)? })
}

fn backend(backend: networking::IngressBackend) -> Option<Backend> {
    if let Some(service) = backend.service {
        let port = service.port?;
        let number = port.number.and_then(|number| u16::try_from(number).ok());
        let port = number.map(Port::Number).or(port.name.map(Port::Name))?;
        return Some(Backend::Service { name: service.name, port });
    }
    backend.resource.map(|resource| Backend::Resource { kind: resource.kind, name: resource.name })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ingress(value: Value) -> Ingress {
        ingress_view(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn an_ingress_keeps_its_rules_and_ports_by_name_and_number() {
        let view = ingress(json!({
            "metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:01:00Z"},
            "spec": {
                "ingressClassName": "penstock",
                "defaultBackend": {"resource": {"kind": "Bucket", "name": "b"}},
                "tls": [{"hosts": ["a.test"]}],
                "rules": [{"host": "a.test", "http": {"paths": [
                    {"pathType": "Exact", "path": "/x", "backend": {"service": {"name": "s", "port": {"name": "http"}}}},
                    {"pathType": "ImplementationSpecific", "backend": {"service": {"name": "s", "port": {"number": 80}}}},
                    {"pathType": "Regex", "path": "/y", "backend": {"service": {"name": "s", "port": {"number": 80}}}},
                ]}}, {"host": "bare.test"}],
            },
        }));
        let to = |port| Backend::Service { name: "s".into(), port };
        let paths = vec![
            Path { kind: PathKind::Exact, path: "/x".into(), backend: to(Port::Name("http".into())) },
            Path { kind: PathKind::Prefix, path: String::new(), backend: to(Port::Number(80)) },
        ];
        assert_eq!(
            view,
            Ingress {
                class: Some("penstock".into()),
                created_seconds: 60,
                default_backend: Some(Backend::Resource { kind: "Bucket".into(), name: "b".into() }),
                rules: vec![
                    Rule { host: "a.test".into(), paths },
                    Rule { host: "bare.test".into(), paths: vec![] },
                ],
                asks_for_tls: true,
            }
        );
    }

    #[test]
    fn the_old_annotation_names_a_class_where_the_field_does_not() {
        let old = json!({"annotations": {CLASS: "old"}});
        assert_eq!(ingress(json!({"metadata": old, "spec": {}})).class.as_deref(), Some("old"));
        let both = json!({"metadata": old, "spec": {"ingressClassName": "new"}});
        assert_eq!(ingress(both).class.as_deref(), Some("new"));
    }

    #[test]
    fn a_class_is_the_default_by_annotation() {
        let class = |value: &str| {
            let metadata = json!({"name": "a", "annotations": {DEFAULT_CLASS: value}});
            class_view(
                serde_json::from_value(json!({"metadata": metadata, "spec": {"controller": "c"}})).unwrap(),
            )
        };
        assert_eq!(class("true"), Class { controller: "c".into(), is_default: true });
        assert!(!class("false").is_default);
    }
}
