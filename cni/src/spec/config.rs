//! The network configuration on standard input.
//!
//! It exists to turn what a runtime (or a stranger's tool) sends into the few fields that matter, with errors that
//! name the field. It must not know the environment or the agent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::{Code, Failure, Version};
use crate::protocol::{AttachmentId, Bandwidth, PortMapping};

/// Most bytes read from standard input. GC lists every attachment of the node, some 100 bytes each.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Where the agent listens when neither the configuration nor its conflist says.
const SOCKET_DEFAULT: &str = "/var/lib/penstock/cni.sock";

/// The fields the plugin acts on.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkConfig {
    /// The version results are written in.
    pub version: Version,
    /// `name`.
    pub name: String,
    /// `type`: the plugin's name; empty when a stranger's tool leaves it out.
    pub kind: String,
    /// `socket`: where the agent listens.
    pub socket: PathBuf,
    /// What only some verbs read, and only they may stumble over: a DEL must not fail for a bandwidth nobody can read.
    rest: Value,
}

/// What the runtime remembers of the ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Previous {
    /// The pod's addresses.
    pub addresses: Vec<IpNetwork>,
    /// MTU of each interface in the sandbox that has one in the result, by name.
    pub mtus: BTreeMap<String, u32>,
}

impl NetworkConfig {
    /// Reads the configuration. Fields nobody knows are ignored, as the specification asks.
    pub fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            Failure::new(Code::Undecodable, "the network configuration is not JSON")
                .details(error.to_string())
        })?;
        if !value.is_object() {
            return Err(invalid("the network configuration is not a JSON object"));
        }
        let version = match value.get("cniVersion") {
            Some(Value::String(text)) => Version::parse(text)?,
            // The specification gives 0.1.0 as the meaning of an absent version, which is not spoken here.
            Some(_) => return Err(invalid("cniVersion is not a string")),
            None => Version::parse("0.1.0")?,
        };
        let name = value.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
        if !is_network_name(&name) {
            return Err(invalid(format!("name {name:?} is not a network name")));
        }
        let socket = match value.get("socket") {
            None => PathBuf::from(SOCKET_DEFAULT),
            Some(Value::String(path)) if path.starts_with('/') => PathBuf::from(path),
            Some(other) => return Err(invalid(format!("socket {other} is not an absolute path"))),
        };
        Ok(Self {
            version,
            name,
            kind: value.get("type").and_then(Value::as_str).unwrap_or_default().to_string(),
            socket,
            rest: value,
        })
    }

    /// `runtimeConfig.portMappings`.
    pub fn port_mappings(&self) -> Result<Vec<PortMapping>, Failure> {
        port_mappings(&self.rest)
    }

    /// `runtimeConfig.bandwidth`.
    pub fn bandwidth(&self) -> Result<Bandwidth, Failure> {
        bandwidth(&self.rest)
    }

    /// `prevResult`, when there is one.
    pub fn previous(&self) -> Result<Option<Previous>, Failure> {
        self.rest.get("prevResult").filter(|v| !v.is_null()).map(previous).transpose()
    }

    /// `cni.dev/valid-attachments`, when it is there.
    pub fn valid_attachments(&self) -> Result<Option<Vec<AttachmentId>>, Failure> {
        // libcni writes the list under both keys, the second for plugins older than 1.1.
        let list =
            self.rest.get("cni.dev/valid-attachments").or_else(|| self.rest.get("cni.dev/attachments"));
        list.map(attachments).transpose()
    }
}

fn is_network_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn port_mappings(value: &Value) -> Result<Vec<PortMapping>, Failure> {
    let Some(mappings) = value.pointer("/runtimeConfig/portMappings").filter(|v| !v.is_null()) else {
        return Ok(Vec::new());
    };
    let unreadable = |error: serde_json::Error| {
        invalid("runtimeConfig.portMappings cannot be read").details(error.to_string())
    };
    let names = ["hostPort", "containerPort", "protocol", "hostIP"];
    let mappings: Vec<Value> = serde_json::from_value(mappings.clone()).map_err(unreadable)?;
    let mappings = mappings.into_iter().map(|mapping| serde_json::from_value(renamed(mapping, &names)));
    mappings.collect::<Result<_, _>>().map_err(unreadable)
}

fn bandwidth(value: &Value) -> Result<Bandwidth, Failure> {
    let Some(bandwidth) = value.pointer("/runtimeConfig/bandwidth").filter(|v| !v.is_null()) else {
        return Ok(Bandwidth::default());
    };
    let names = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"];
    serde_json::from_value(renamed(bandwidth.clone(), &names))
        .map_err(|error| invalid("runtimeConfig.bandwidth cannot be read").details(error.to_string()))
}

/// Keys spelled as `names` where they differ in case only. Go reads names in any case, and containerd's library writes
/// `HostPort` and `IngressRate` (`PortMapping` and `BandWidth` in containerd/go-cni have no names for JSON).
fn renamed(value: Value, names: &[&str]) -> Value {
    let Value::Object(map) = value else { return value };
    let name = |key: String| match names.iter().find(|name| name.eq_ignore_ascii_case(&key)) {
        Some(name) => (*name).to_string(),
        None => key,
    };
    Value::Object(map.into_iter().map(|(key, value)| (name(key), value)).collect())
}

fn previous(result: &Value) -> Result<Previous, Failure> {
    let list = |name: &str| result.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let addresses = list("ips").iter().map(|ip| {
        let text = ip.get("address").and_then(Value::as_str).unwrap_or_default();
        text.parse().map_err(|_| invalid(format!("prevResult has the address {text:?}")))
    });
    let in_sandbox = |i: &&Value| i.get("sandbox").and_then(Value::as_str).is_some_and(|s| !s.is_empty());
    let mtus = list("interfaces").iter().filter(in_sandbox).filter_map(|interface| {
        let mtu = interface.get("mtu").and_then(Value::as_u64).filter(|mtu| *mtu > 0)?;
        Some((interface.get("name")?.as_str()?.to_string(), u32::try_from(mtu).ok()?))
    });
    Ok(Previous { addresses: addresses.collect::<Result<_, _>>()?, mtus: mtus.collect() })
}

fn attachments(list: &Value) -> Result<Vec<AttachmentId>, Failure> {
    let entries = match list {
        // Go writes an empty list as null.
        Value::Null => return Ok(Vec::new()),
        Value::Array(entries) => entries,
        _ => return Err(invalid("cni.dev/valid-attachments is not a list")),
    };
    entries
        .iter()
        .map(|entry| match (entry.get("containerID"), entry.get("ifname")) {
            (Some(Value::String(container)), Some(Value::String(interface))) => {
                Ok(AttachmentId { container: container.clone(), interface: interface.clone() })
            }
            _ => Err(invalid("an entry of cni.dev/valid-attachments lacks containerID or ifname")),
        })
        .collect()
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<NetworkConfig, Failure> {
        NetworkConfig::parse(value.to_string().as_bytes())
    }

    #[test]
    fn what_a_runtime_sends_is_understood() {
        let config = parse(json!({
            "cniVersion": "1.1.0", "name": "penstock", "type": "cni", "socket": "/run/x.sock", "unknown": {"a": 1},
            "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}],
                "bandwidth": {"ingressRate": 1000000, "ingressBurst": 4294967295u32}},
            "prevResult": {"ips": [{"address": "10.1.2.3/32"}],
                "interfaces": [{"name": "host", "mtu": 9000}, {"name": "eth0", "sandbox": "/n", "mtu": 1450}]},
            "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}],
        }))
        .unwrap();
        assert_eq!(config.socket, PathBuf::from("/run/x.sock"));
        assert_eq!(config.port_mappings().unwrap()[0].host_port, 80);
        let bandwidth = config.bandwidth().unwrap();
        assert_eq!((bandwidth.ingress_rate, bandwidth.egress_rate), (1_000_000, 0));
        let previous = config.previous().unwrap().unwrap();
        assert_eq!(previous.addresses, ["10.1.2.3/32".parse::<IpNetwork>().unwrap()]);
        assert_eq!(previous.mtus, BTreeMap::from([("eth0".into(), 1450)]));
        assert_eq!(config.valid_attachments().unwrap().unwrap()[0].container, "a");
    }

    #[test]
    fn what_containerd_sends_is_understood_in_its_spelling() {
        let config = parse(json!({
            "cniVersion": "1.0.0", "name": "penstock", "type": "penstock",
            "runtimeConfig": {
                "portMappings": [{"HostPort": 9090, "ContainerPort": 8080, "Protocol": "udp", "HostIP": "10.0.0.1"}],
                "bandwidth": {"IngressRate": 16_000_000, "IngressBurst": 1, "EgressRate": 8_000_000, "EgressBurst": 2}},
        }))
        .unwrap();
        let port = &config.port_mappings().unwrap()[0];
        assert_eq!((port.host_port, port.container_port), (9090, 8080));
        assert_eq!((port.protocol.as_str(), port.host_ip.as_str()), ("udp", "10.0.0.1"));
        let Bandwidth { ingress_rate, ingress_burst, egress_rate, egress_burst } =
            config.bandwidth().unwrap();
        let all = (ingress_rate, ingress_burst, egress_rate, egress_burst);
        assert_eq!(all, (16_000_000, 1, 8_000_000, 2));
    }

    #[test]
    fn an_absent_gc_list_is_not_an_empty_one() {
        let absent = parse(json!({"cniVersion": "1.1.0", "name": "n"})).unwrap();
        assert_eq!(absent.valid_attachments().unwrap(), None);
        let empty =
            parse(json!({"cniVersion": "1.1.0", "name": "n", "cni.dev/valid-attachments": null})).unwrap();
        assert_eq!(empty.valid_attachments().unwrap(), Some(vec![]));
    }

    #[test]
    fn each_fault_has_the_code_the_specification_gives_it() {
        let code = |value| parse(value).unwrap_err().code;
        assert_eq!(NetworkConfig::parse(b"{").unwrap_err().code, Code::Undecodable);
        assert_eq!(code(json!([])), Code::InvalidConfig);
        assert_eq!(code(json!({"name": "n"})), Code::IncompatibleVersion);
        assert_eq!(code(json!({"cniVersion": "1.1.0"})), Code::InvalidConfig);
        assert_eq!(code(json!({"cniVersion": "1.1.0", "name": "n", "socket": "x"})), Code::InvalidConfig);
        let wrong = json!({"cniVersion": "1.1.0", "name": "n", "cni.dev/valid-attachments": [1],
            "runtimeConfig": {"bandwidth": {"egressRate": -1}, "portMappings": 7}, "prevResult": {"ips": [{}]}});
        let wrong = parse(wrong).unwrap();
        assert_eq!(wrong.bandwidth().unwrap_err().code, Code::InvalidConfig);
        assert_eq!(wrong.port_mappings().unwrap_err().code, Code::InvalidConfig);
        assert_eq!(wrong.previous().unwrap_err().code, Code::InvalidConfig);
        assert_eq!(wrong.valid_attachments().unwrap_err().code, Code::InvalidConfig);
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(config) = NetworkConfig::parse(&bytes) {
                let _ = (config.bandwidth(), config.port_mappings(), config.previous(), config.valid_attachments());
            }
        }
    }
}
