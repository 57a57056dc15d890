//! The result of an ADD, in whichever version the runtime asked for.
//!
//! It exists so that the version's differences are in one function. It must not know how an attachment came to be.

use serde_json::{Map, Value, json};

use super::Version;
use crate::protocol::{Attached, Link};

/// The `Result` object: two interfaces (the node's end first), addresses on the second, routes, empty DNS.
///
/// DNS stays empty on purpose: the kubelet writes a pod's resolv.conf by the pod's dnsPolicy.
pub fn render_add(version: Version, netns: &str, attached: &Attached) -> Value {
    let ips: Vec<Value> = attached
        .addresses
        .iter()
        .map(|address| {
            let mut ip = json!({
                "interface": 1, "address": address.address.to_string(), "gateway": address.gateway.to_string(),
            });
            if version.addresses_name_their_family() {
                ip["version"] = Value::from(if address.address.is_ipv4() { "4" } else { "6" });
            }
            ip
        })
        .collect();
    let routes: Vec<Value> = attached
        .routes
        .iter()
        .map(|route| {
            let mut object = Map::new();
            object.insert("dst".into(), route.destination.to_string().into());
            if let Some(gateway) = route.gateway {
                object.insert("gw".into(), gateway.to_string().into());
            }
            Value::Object(object)
        })
        .collect();
    json!({
        "cniVersion": version.as_str(),
        "interfaces": [interface(version, &attached.host, None), interface(version, &attached.pod, Some(netns))],
        "ips": ips,
        "routes": routes,
        "dns": {},
    })
}

fn interface(version: Version, link: &Link, sandbox: Option<&str>) -> Value {
    let mut object = json!({ "name": link.name, "mac": link.mac });
    if let Some(sandbox) = sandbox {
        object["sandbox"] = Value::from(sandbox);
    }
    if version.is_1_1() {
        object["mtu"] = Value::from(link.mtu);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Address, Route};

    fn attached() -> Attached {
        let link = |name: &str| Link { name: name.into(), mac: "02:00:00:00:00:01".into(), mtu: 1450 };
        Attached {
            host: link("pst0"),
            pod: link("eth0"),
            addresses: vec![Address {
                address: "10.244.0.2/32".parse().unwrap(),
                gateway: "169.254.1.1".parse().unwrap(),
            }],
            routes: vec![Route { destination: "0.0.0.0/0".parse().unwrap(), gateway: None }],
        }
    }

    #[test]
    fn only_old_versions_name_the_family_and_only_1_1_the_mtu() {
        let old = render_add(Version::parse("0.4.0").unwrap(), "/n", &attached());
        assert_eq!(old["ips"][0]["version"], "4");
        assert!(old["interfaces"][1].get("mtu").is_none());
        let new = render_add(Version::newest(), "/n", &attached());
        assert!(new["ips"][0].get("version").is_none());
        assert_eq!(
            new["interfaces"][1],
            json!({"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/n", "mtu": 1450})
        );
        assert_eq!(new["ips"][0]["interface"], 1);
    }
}
