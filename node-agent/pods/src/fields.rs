//! Fields of a pod as text, for environment variables and downward-API files. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// What the node can give; the value of limits that are not set.
#[derive(Debug, Clone, Default)]
pub struct Allocatable {
    /// Thousandths.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Bytes.
    pub storage_bytes: i64,
}

/// Facts about the pod that its object may not hold yet.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// The node's, the first one first.
    pub hosts: Vec<String>,
    /// The pod's, the primary one first.
    pub pod: Vec<String>,
}

/// A field by its path, or `None` when there is no such field.
pub fn pod_field(pod: &Pod, path: &str, addresses: &Addresses) -> Option<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref()?;
    if let Some((map, key)) = subscript(path) {
        let from = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return None,
        };
        return Some(from.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => addresses.hosts.first().cloned().unwrap_or_default(),
        "status.hostIPs" => addresses.hosts.join(","),
        "status.podIP" => addresses.pod.first().cloned().unwrap_or_default(),
        "status.podIPs" => addresses.pod.join(","),
        _ => return None,
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let quoted = key.strip_prefix('\'').and_then(|k| k.strip_suffix('\''));
    Some((map, quoted.or_else(|| key.strip_prefix('"').and_then(|k| k.strip_suffix('"')))?))
}

/// `key="value"` lines; values are escaped as in Go string literals.
fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={}", quote(value));
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A request or limit, divided and rounded up; limits that are not set read as what the node can give.
pub fn resource_field(
    container: &Container,
    selector: &ResourceFieldSelector,
    node: &Allocatable,
) -> Option<String> {
    let (kind, name) = selector.resource.split_once('.')?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref()).and_then(|l| l.get(name));
    let value = match kind {
        "limits" => limits.cloned().or_else(|| node_amount(node, name)),
        "requests" => {
            let requests = resources.and_then(|r| r.requests.as_ref()).and_then(|l| l.get(name));
            requests.or(limits).cloned()
        }
        _ => return None,
    };
    let value = value.unwrap_or(Quantity("0".into()));
    quantity::divide(&value, selector.divisor.as_ref()).map(|v| v.to_string())
}

fn node_amount(node: &Allocatable, name: &str) -> Option<Quantity> {
    match name {
        "cpu" => Some(Quantity(format!("{}m", node.cpu_milli))),
        "memory" => Some(Quantity(node.memory_bytes.to_string())),
        "ephemeral-storage" => Some(Quantity(node.storage_bytes.to_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "labels": {"a": "x \"y\"\n", "b": "2"}},
            "spec": {"containers": []}
        }))
        .unwrap()
    }

    #[test]
    fn fields_are_found_by_path_and_by_subscript() {
        let addresses =
            Addresses { hosts: vec!["10.0.0.1".into(), "fd00::1".into()], pod: vec!["10.244.0.2".into()] };
        let field = |path| pod_field(&pod(), path, &addresses);
        assert_eq!(field("metadata.name").as_deref(), Some("p"));
        assert_eq!(field("metadata.labels['b']").as_deref(), Some("2"));
        assert_eq!(field("metadata.annotations['none']").as_deref(), Some(""));
        assert_eq!(field("status.hostIP").as_deref(), Some("10.0.0.1"));
        assert_eq!(field("status.hostIPs").as_deref(), Some("10.0.0.1,fd00::1"));
        assert_eq!(field("status.podIP").as_deref(), Some("10.244.0.2"));
        assert_eq!(field("metadata.labels").as_deref(), Some("a=\"x \\\"y\\\"\\n\"\nb=\"2\""));
        assert_eq!(field("spec.what"), None);
    }

    #[test]
    fn a_limit_that_is_not_set_reads_as_the_nodes() {
        let node = Allocatable { cpu_milli: 1500, memory_bytes: 1 << 20, storage_bytes: 0 };
        let selector =
            |resource: &str| ResourceFieldSelector { resource: resource.into(), ..Default::default() };
        let of = |resource| resource_field(&Container::default(), &selector(resource), &node);
        assert_eq!(of("limits.cpu").as_deref(), Some("2"));
        assert_eq!(of("limits.memory").as_deref(), Some("1048576"));
        assert_eq!(of("requests.memory").as_deref(), Some("0"));
    }
}
