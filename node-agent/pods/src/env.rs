//! The environment of a container: service links, envFrom, env, and `$(NAME)` in them. Pure: what has to be fetched is
//! named by [`references`] and handed in.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Secret, Service};

use crate::desired::Desired;
use crate::fields::{self, Addresses, Allocatable};

/// Objects an environment is made from, by name; absent ones are absent here.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Of the pod's namespace.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Of the pod's namespace.
    pub secrets: BTreeMap<String, Secret>,
    /// Of the pod's namespace, and `default/kubernetes`.
    pub services: Vec<Service>,
}

/// Names of what has to be fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

/// Something the environment needs is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// The object is not there.
    #[error("{kind} \"{name}\" not found")]
    ObjectMissing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Name.
        name: String,
    },
    /// The object has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    KeyMissing {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Key.
        key: String,
    },
    /// A field path that does not exist.
    #[error("field {path} of variable {variable} is not supported")]
    FieldUnknown {
        /// Variable.
        variable: String,
        /// Path.
        path: String,
    },
}

/// See [`References`].
pub fn references(container: &Container) -> References {
    let mut found = References::default();
    for from in container.env_from.iter().flatten() {
        found.config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        found.secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        found.config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        found.secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    found
}

/// The whole environment, in the order it is to be set.
pub fn compile(
    desired: &Desired,
    container: &Container,
    sources: &Sources,
    addresses: &Addresses,
    node: &Allocatable,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Environment::default();
    let links = desired.spec().enable_service_links.unwrap_or(true);
    for (key, value) in service_links(&desired.namespace, &sources.services, links) {
        env.set(key, value);
    }
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match sources.config_maps.get(&reference.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        env.set(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => {
                    return Err(EnvError::ObjectMissing { kind: "configmap", name: reference.name.clone() });
                }
            }
        }
        if let Some(reference) = &from.secret_ref {
            match sources.secrets.get(&reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        env.set(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => {
                    return Err(EnvError::ObjectMissing { kind: "secret", name: reference.name.clone() });
                }
            }
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(desired, container, variable, sources, addresses, node, &env)? {
            env.set(variable.name.clone(), value);
        }
    }
    Ok(env.into_pairs())
}

fn value_of(
    desired: &Desired,
    container: &Container,
    variable: &EnvVar,
    sources: &Sources,
    addresses: &Addresses,
    node: &Allocatable,
    env: &Environment,
) -> Result<Option<String>, EnvError> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), |name| env.get(name))));
    };
    let namespace = desired.namespace.clone();
    if let Some(field) = &from.field_ref {
        let value = fields::pod_field(&desired.pod, &field.field_path, addresses);
        let missing =
            || EnvError::FieldUnknown { variable: variable.name.clone(), path: field.field_path.clone() };
        return value.map(Some).ok_or_else(missing);
    }
    if let Some(field) = &from.resource_field_ref {
        let other = field.container_name.as_ref().and_then(|n| desired.container(n)).map(|s| &s.container);
        let value = fields::resource_field(other.unwrap_or(container), field, node);
        let missing =
            || EnvError::FieldUnknown { variable: variable.name.clone(), path: field.resource.clone() };
        return value.map(Some).ok_or_else(missing);
    }
    if let Some(key) = &from.config_map_key_ref {
        let Some(map) = sources.config_maps.get(&key.name) else {
            return absent(
                key.optional,
                EnvError::ObjectMissing { kind: "configmap", name: key.name.clone() },
            );
        };
        let value = map.data.as_ref().and_then(|d| d.get(&key.key)).cloned();
        let missing = EnvError::KeyMissing {
            kind: "ConfigMap",
            namespace,
            name: key.name.clone(),
            key: key.key.clone(),
        };
        return value.map_or_else(|| absent(key.optional, missing), |v| Ok(Some(v)));
    }
    if let Some(key) = &from.secret_key_ref {
        let Some(secret) = sources.secrets.get(&key.name) else {
            return absent(key.optional, EnvError::ObjectMissing { kind: "secret", name: key.name.clone() });
        };
        let value = secret.data.as_ref().and_then(|d| d.get(&key.key));
        let value = value.map(|v| String::from_utf8_lossy(&v.0).into_owned());
        let missing =
            EnvError::KeyMissing { kind: "Secret", namespace, name: key.name.clone(), key: key.key.clone() };
        return value.map_or_else(|| absent(key.optional, missing), |v| Ok(Some(v)));
    }
    Ok(None)
}

fn absent(optional: Option<bool>, error: EnvError) -> Result<Option<String>, EnvError> {
    if optional == Some(true) { Ok(None) } else { Err(error) }
}

/// Replaces `$(NAME)`; `$$` is a dollar; names nobody knows stay as they are.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

fn screaming(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// The variables that tell where services are, as Docker links once did.
fn service_links(namespace: &str, services: &[Service], all: bool) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for service in services {
        let (Some(name), Some(spec)) = (service.metadata.name.as_deref(), service.spec.as_ref()) else {
            continue;
        };
        let home = service.metadata.namespace.as_deref().unwrap_or_default();
        let is_api = home == "default" && name == "kubernetes";
        if !(is_api || all && home == namespace) {
            continue;
        }
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let name = screaming(name);
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
        let scheme = |p: &k8s_openapi::api::core::v1::ServicePort| {
            p.protocol.as_deref().unwrap_or("TCP").to_lowercase()
        };
        out.push((format!("{name}_SERVICE_HOST"), ip.to_string()));
        out.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
        for port in ports {
            if let Some(label) = port.name.as_deref().filter(|n| !n.is_empty()) {
                out.push((format!("{name}_SERVICE_PORT_{}", screaming(label)), port.port.to_string()));
            }
        }
        out.push((format!("{name}_PORT"), format!("{}://{host}:{}", scheme(first), first.port)));
        for port in ports {
            let prefix = format!("{name}_PORT_{}_{}", port.port, scheme(port).to_uppercase());
            out.push((prefix.clone(), format!("{}://{host}:{}", scheme(port), port.port)));
            out.push((format!("{prefix}_PROTO"), scheme(port)));
            out.push((format!("{prefix}_PORT"), port.port.to_string()));
            out.push((format!("{prefix}_ADDR"), ip.to_string()));
        }
    }
    out
}

/// Insertion order kept, later values win.
#[derive(Default)]
struct Environment {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Environment {
    fn set(&mut self, key: String, value: String) {
        if self.values.insert(key.clone(), value).is_none() {
            self.order.push(key);
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    fn into_pairs(mut self) -> Vec<(String, String)> {
        self.order.into_iter().filter_map(|key| self.values.remove_entry(&key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Origin;

    fn compiled(container: serde_json::Value, sources: &Sources) -> Result<Vec<(String, String)>, EnvError> {
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [container]}});
        let desired = Desired::new(serde_json::from_value(pod).unwrap(), Origin::Api).unwrap();
        let container = desired.specs[0].container.clone();
        compile(&desired, &container, sources, &Addresses::default(), &Allocatable::default())
    }

    #[test]
    fn variables_expand_in_order_and_unknown_ones_stay() {
        let env = serde_json::json!({"name": "c", "env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(NONE)-$$(A)-$"}]});
        let pairs = compiled(env, &Sources::default()).unwrap();
        assert_eq!(pairs[1].1, "1-$(NONE)-$(A)-$");
    }

    #[test]
    fn a_missing_key_is_named_unless_it_is_optional() {
        let with = |optional: bool| {
            serde_json::json!({"name": "c", "env": [{"name": "A", "valueFrom":
                {"configMapKeyRef": {"name": "m", "key": "k", "optional": optional}}}]})
        };
        let mut sources = Sources::default();
        assert_eq!(compiled(with(true), &sources), Ok(vec![]));
        assert_eq!(
            compiled(with(false), &sources),
            Err(EnvError::ObjectMissing { kind: "configmap", name: "m".into() })
        );
        sources.config_maps.insert("m".into(), ConfigMap::default());
        let error = compiled(with(false), &sources).unwrap_err();
        assert_eq!(error.to_string(), "couldn't find key k in ConfigMap n/m");
    }

    #[test]
    fn services_are_announced_as_links() {
        let service = serde_json::json!({"metadata": {"name": "my-db", "namespace": "n"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "sql", "port": 5432}]}});
        let sources =
            Sources { services: vec![serde_json::from_value(service).unwrap()], ..Default::default() };
        let pairs: BTreeMap<_, _> =
            compiled(serde_json::json!({"name": "c"}), &sources).unwrap().into_iter().collect();
        assert_eq!(pairs["MY_DB_SERVICE_HOST"], "10.96.0.7");
        assert_eq!(pairs["MY_DB_SERVICE_PORT_SQL"], "5432");
        assert_eq!(pairs["MY_DB_PORT_5432_TCP"], "tcp://10.96.0.7:5432");
    }
}
