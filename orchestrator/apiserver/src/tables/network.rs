//! Columns of Services, endpoints, ingresses and policies.

use serde_json::{Value, json};

use super::cells::{NONE, age, labels, name, selector, text};
use super::{AGE, Column, Columns, NAME};
use crate::registry::object::{items_at, str_at};

pub(crate) const SERVICES: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Type", "How it is reached."),
        Column::text("Cluster-IP", "Its address inside the cluster."),
        Column::text("External-IP", "Its addresses outside."),
        Column::text("Port(s)", "Its ports."),
        AGE,
        Column::text("Selector", "Which pods serve it.").wide(),
    ],
    cells: |o, now| {
        vec![
            name(o),
            text(o, "/spec/type", ""),
            text(o, "/spec/clusterIP", NONE),
            external(o).into(),
            ports(o).into(),
            age(o, now),
            labels(o.pointer("/spec/selector")).into(),
        ]
    },
};

fn external(o: &Value) -> String {
    let listed: Vec<&str> = items_at(o, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match str_at(o, "/spec/type") {
        "ExternalName" => str_at(o, "/spec/externalName").to_string(),
        "LoadBalancer" => {
            let mut all: Vec<&str> = items_at(o, "/status/loadBalancer/ingress")
                .iter()
                .map(|i| if str_at(i, "/ip").is_empty() { str_at(i, "/hostname") } else { str_at(i, "/ip") })
                .collect();
            all.extend(listed);
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        _ if listed.is_empty() => NONE.into(),
        _ => listed.join(","),
    }
}

fn ports(o: &Value) -> String {
    let list: Vec<String> = items_at(o, "/spec/ports")
        .iter()
        .map(|p| {
            let (port, protocol) = (p["port"].as_i64().unwrap_or(0), p["protocol"].as_str().unwrap_or("TCP"));
            match p["nodePort"].as_i64().filter(|n| *n > 0) {
                Some(node_port) => format!("{port}:{node_port}/{protocol}"),
                None => format!("{port}/{protocol}"),
            }
        })
        .collect();
    if list.is_empty() { NONE.into() } else { list.join(",") }
}

/// How many endpoints a cell lists before it counts the rest.
const SHOWN_MAX: usize = 3;

fn shortened(all: Vec<String>) -> String {
    if all.is_empty() {
        return NONE.into();
    }
    if all.len() <= SHOWN_MAX {
        return all.join(",");
    }
    format!("{} + {} more...", all[..SHOWN_MAX].join(","), all.len() - SHOWN_MAX)
}

pub(crate) const ENDPOINTS: Columns = Columns {
    columns: &[NAME, Column::text("Endpoints", "Address and port of each."), AGE],
    cells: |o, now| {
        let mut all = Vec::new();
        for subset in items_at(o, "/subsets") {
            let ports = items_at(subset, "/ports");
            for address in items_at(subset, "/addresses") {
                let ip = str_at(address, "/ip");
                let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
                if ports.is_empty() {
                    all.push(ip.to_string());
                }
                for p in ports {
                    all.push(format!("{host}:{}", p["port"].as_i64().unwrap_or(0)));
                }
            }
        }
        vec![name(o), shortened(all).into(), age(o, now)]
    },
};

pub(crate) const ENDPOINT_SLICES: Columns = Columns {
    columns: &[
        NAME,
        Column::text("AddressType", "IPv4, IPv6 or FQDN."),
        Column::text("Ports", "Ports of every endpoint."),
        Column::text("Endpoints", "Addresses."),
        AGE,
    ],
    cells: |o, now| {
        let ports: Vec<String> = items_at(o, "/ports")
            .iter()
            .map(|p| p["port"].as_i64().map_or("*".to_string(), |n| n.to_string()))
            .collect();
        let addresses: Vec<String> = items_at(o, "/endpoints")
            .iter()
            .flat_map(|e| items_at(e, "/addresses"))
            .filter_map(|a| a.as_str().map(str::to_string))
            .collect();
        let ports = if ports.is_empty() { "<unset>".to_string() } else { shortened(ports) };
        let addresses = if addresses.is_empty() { "<unset>".to_string() } else { shortened(addresses) };
        vec![name(o), text(o, "/addressType", ""), ports.into(), addresses.into(), age(o, now)]
    },
};

pub(crate) const INGRESSES: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Class", "Who serves it."),
        Column::text("Hosts", "Names it answers for."),
        Column::text("Address", "Where it is reached."),
        Column::text("Ports", "80, and 443 with TLS."),
        AGE,
    ],
    cells: |o, now| {
        let mut hosts: Vec<String> = items_at(o, "/spec/rules")
            .iter()
            .map(|r| str_at(r, "/host"))
            .filter(|h| !h.is_empty())
            .map(str::to_string)
            .collect();
        let more = hosts.len().saturating_sub(SHOWN_MAX);
        hosts.truncate(SHOWN_MAX);
        let mut shown = if hosts.is_empty() { "*".to_string() } else { hosts.join(",") };
        if more > 0 {
            shown.push_str(&format!(" + {more} more..."));
        }
        let address: Vec<&str> = items_at(o, "/status/loadBalancer/ingress")
            .iter()
            .map(|i| if str_at(i, "/ip").is_empty() { str_at(i, "/hostname") } else { str_at(i, "/ip") })
            .collect();
        let ports = if items_at(o, "/spec/tls").is_empty() { "80" } else { "80, 443" };
        vec![
            name(o),
            text(o, "/spec/ingressClassName", NONE),
            shown.into(),
            address.join(",").into(),
            ports.into(),
            age(o, now),
        ]
    },
};

pub(crate) const INGRESS_CLASSES: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Controller", "Who serves it."),
        Column::text("Parameters", "Its configuration."),
        AGE,
    ],
    cells: |o, now| {
        let parameters = match o.pointer("/spec/parameters") {
            None => NONE.to_string(),
            Some(p) => match str_at(p, "/apiGroup") {
                "" => format!("{}/{}", str_at(p, "/kind"), str_at(p, "/name")),
                group => format!("{}.{group}/{}", str_at(p, "/kind"), str_at(p, "/name")),
            },
        };
        vec![name(o), text(o, "/spec/controller", ""), parameters.into(), age(o, now)]
    },
};

pub(crate) const NETWORK_POLICIES: Columns = Columns {
    columns: &[NAME, Column::text("Pod-Selector", "Which pods it is about."), AGE],
    cells: |o, now| vec![name(o), selector(o.pointer("/spec/podSelector")).into(), age(o, now)],
};

pub(crate) const IP_ADDRESSES: Columns = Columns {
    columns: &[NAME, Column::text("ParentRef", "Who has it."), AGE],
    cells: |o, now| {
        let part = |f: &str| str_at(o, &format!("/spec/parentRef/{f}")).to_string();
        let parent: Vec<String> = [part("resource") + &dot(&part("group")), part("namespace"), part("name")]
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect();
        vec![name(o), parent.join("/").into(), age(o, now)]
    },
};

fn dot(group: &str) -> String {
    if group.is_empty() { String::new() } else { format!(".{group}") }
}

pub(crate) const SERVICE_CIDRS: Columns = Columns {
    columns: &[NAME, Column::text("CIDRs", "The ranges."), AGE],
    cells: |o, now| {
        let cidrs: Vec<&str> = items_at(o, "/spec/cidrs").iter().filter_map(Value::as_str).collect();
        vec![name(o), json!(cidrs.join(",")), age(o, now)]
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_shows_its_ports_and_addresses() {
        let o = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.7",
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
            "selector": {"app": "x"}}});
        let row = (SERVICES.cells)(&o, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(
            row,
            vec![
                json!("s"),
                json!("NodePort"),
                json!("10.96.0.7"),
                json!("<none>"),
                json!("80:30080/TCP,53/UDP"),
                json!("<unknown>"),
                json!("app=x")
            ]
        );
    }
}
