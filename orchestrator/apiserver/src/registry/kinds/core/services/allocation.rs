//! Addresses and node ports: what is free follows from the Services that exist, so no crash can leak or lose any.
//!
//! One lock serialises the allocations of this server; an `IPAddress` object made by compare-and-set claims each
//! address against other servers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use async_trait::async_trait;
use ipnetwork::IpNetwork;
use penstock_store::Revision;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use super::families::{self, family_of};
use super::ledger::{Held, Ledger};
use super::{is_headless, kind, may_have_node_ports, wants_address, wants_health_port, wants_node_ports};
use crate::error::{ApiError, FieldError};
use crate::registry::Registry;
use crate::registry::context::Context;
use crate::registry::generic::{Stored, now_text};
use crate::registry::object::{items_at, meta_str, str_at};
use crate::registry::strategy::Reservation;

/// What one write took, until it is stored.
pub(super) struct Taken {
    _turn: OwnedMutexGuard<Ledger>,
    claimed: Vec<String>,
    /// Addresses of the old form that the new one does not have.
    released: Vec<String>,
}

#[async_trait]
impl Reservation for Taken {
    async fn commit(self: Box<Self>, registry: &Registry) {
        for ip in &self.released {
            release(registry, ip).await;
        }
    }

    async fn cancel(self: Box<Self>, registry: &Registry) {
        for ip in &self.claimed {
            release(registry, ip).await;
        }
    }
}

/// Everything other Services have.
struct Used<'a> {
    ledger: &'a Ledger,
    /// What the Service itself has, which is no other's.
    own: Held,
}

impl Used<'_> {
    fn has_ip(&self, ip: &str) -> bool {
        self.ledger.has_ip(ip, &self.own)
    }

    fn has_port(&self, port: u16, protocol: &str) -> bool {
        self.ledger.has_port(&(port, protocol.to_owned()), &self.own)
    }

    /// Whether the port is taken by any protocol.
    fn has_number(&self, port: u16) -> bool {
        ["TCP", "UDP", "SCTP"].into_iter().any(|protocol| self.has_port(port, protocol))
    }
}

pub(super) fn held_by(service: &Value) -> Held {
    Held {
        ips: families::list(service, "clusterIPs").into_iter().map(canonical).collect(),
        ports: node_ports(service),
    }
}

pub(super) async fn reserve(
    registry: &Registry,
    context: &Context,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<Taken, ApiError> {
    let mut turn = registry.allocations().lock_owned().await;
    turn.follow(registry).await?;
    // Only a Service that is there already has something.
    let own = old.and_then(|_| turn.held_by(meta_str(new, "uid"))).cloned().unwrap_or_default();
    let used = Used { ledger: &turn, own };
    let mut claimed = Vec::new();
    let had: Vec<String> = old
        .map(|o| {
            items_at(o, "/spec/clusterIPs").iter().filter_map(|v| v.as_str().map(str::to_string)).collect()
        })
        .unwrap_or_default();
    let configured: Vec<&'static str> =
        registry.config().service_cidrs.iter().map(|range| family_of(range.network())).collect();
    let settled = families::settle(new, old, &configured)
        .map_err(|errors| ApiError::invalid("", "Service", meta_str(new, "name"), errors));
    let result = match settled {
        Ok(()) => take(registry, context, new, &had, &used, &mut claimed).await,
        Err(e) => Err(e),
    };
    let mut taken = Taken { _turn: turn, claimed, released: Vec::new() };
    if let Err(e) = result {
        Box::new(taken).cancel(registry).await;
        return Err(e);
    }
    let has: Vec<&str> = items_at(new, "/spec/clusterIPs").iter().filter_map(Value::as_str).collect();
    taken.released = had.into_iter().filter(|ip| ip != "None" && !has.contains(&ip.as_str())).collect();
    Ok(taken)
}

async fn take(
    registry: &Registry,
    context: &Context,
    new: &mut Value,
    had: &[String],
    used: &Used<'_>,
    claimed: &mut Vec<String>,
) -> Result<(), ApiError> {
    if wants_address(new) {
        let mut ips: Vec<String> = families::list(new, "clusterIPs").into_iter().map(str::to_owned).collect();
        let wanted: Vec<String> = families::list(new, "ipFamilies").into_iter().map(str::to_owned).collect();
        for (i, family) in wanted.iter().enumerate() {
            let asked = ips.get(i).cloned().unwrap_or_default();
            if !asked.is_empty() && had.contains(&asked) {
                continue;
            }
            let ip = take_address(registry, context, new, family, &asked, used).await?;
            if !context.dry_run {
                claimed.push(ip.clone());
            }
            match ips.get_mut(i) {
                Some(place) => *place = ip,
                None => ips.push(ip),
            }
        }
        new["spec"]["clusterIP"] = ips.first().map_or(Value::Null, |ip| ip.as_str().into());
        new["spec"]["clusterIPs"] = json!(ips);
    } else if is_headless(new) {
        new["spec"]["clusterIPs"] = json!(["None"]);
    }
    take_ports(registry, new, used)
}

async fn take_address(
    registry: &Registry,
    context: &Context,
    service: &Value,
    family: &str,
    asked: &str,
    used: &Used<'_>,
) -> Result<String, ApiError> {
    let refuse = |why: String| {
        let value = if asked.is_empty() { Value::Null } else { json!([asked]) };
        let error = FieldError::invalid("spec.clusterIPs", value, why);
        ApiError::invalid("", "Service", meta_str(service, "name"), vec![error])
    };
    let ranges = &registry.config().service_cidrs;
    let range = ranges.iter().find(|range| family_of(range.network()) == family).copied();
    let range = range.ok_or_else(|| refuse(format!("{family} is not configured on this cluster")))?;
    if !asked.is_empty() {
        let inside = asked.parse::<IpAddr>().is_ok_and(|ip| is_usable(range, ip));
        if !inside {
            return Err(refuse(format!(
                "failed to allocate IP {asked}: the provided IP is not in the valid range. The range of valid IPs is {range}"
            )));
        }
        let ip = canonical(asked);
        if used.has_ip(&ip) || !claim(registry, context, service, &ip).await? {
            return Err(refuse(format!("failed to allocate IP {asked}: provided IP is already allocated")));
        }
        return Ok(asked.to_string());
    }
    let size = usable(range);
    // The lowest addresses are for those who ask for one by name.
    let reserved = (size / 16).clamp(16.min(size / 2), 256);
    let start = rand::rng().random_range(reserved..size.max(reserved + 1));
    let is_dns = |ip: &str| registry.config().cluster_dns.iter().any(|dns| dns.to_string() == ip);
    let upper = (start..size).chain(reserved..start);
    for offset in upper.chain(0..reserved) {
        let ip = nth(range, offset).to_string();
        if used.has_ip(&ip) || is_dns(&ip) || offset == 0 {
            continue;
        }
        if claim(registry, context, service, &ip).await? {
            return Ok(ip);
        }
    }
    Err(ApiError::internal(format!("failed to allocate a serviceIP: range {range} is full")))
}

/// How many addresses of a range Services can have: without network and broadcast, at most 65,535.
fn usable(range: IpNetwork) -> u32 {
    let bits = match range {
        IpNetwork::V4(v4) => 32 - u32::from(v4.prefix()),
        IpNetwork::V6(v6) => 128 - u32::from(v6.prefix()),
    };
    (1u32 << bits.min(16)).saturating_sub(2).max(1)
}

/// The usable address at `offset` (0 is the first after the network's own).
fn nth(range: IpNetwork, offset: u32) -> IpAddr {
    match range {
        IpNetwork::V4(v4) => {
            let base = u32::from(v4.network());
            IpAddr::V4((base + 1 + offset).into())
        }
        IpNetwork::V6(v6) => {
            let base = u128::from(v6.network());
            IpAddr::V6((base + 1 + u128::from(offset)).into())
        }
    }
}

fn is_usable(range: IpNetwork, ip: IpAddr) -> bool {
    range.contains(ip) && ip != range.network() && (ip.is_ipv6() || ip != range.broadcast())
}

/// The one spelling under which an address is claimed: an IPv6 address has many.
fn canonical(ip: &str) -> String {
    ip.parse::<IpAddr>().map_or_else(|_| ip.to_owned(), |ip| ip.to_string())
}

/// Claims an address against other servers. False when somebody who exists has it.
async fn claim(registry: &Registry, context: &Context, service: &Value, ip: &str) -> Result<bool, ApiError> {
    if context.dry_run {
        return Ok(true);
    }
    let Some(definition) = registry.find("networking.k8s.io", "v1", "ipaddresses") else {
        return Ok(true);
    };
    let mut object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": ip,
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": now_text(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": if ip.contains(':') { "IPv6" } else { "IPv4" },
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "group": "",
            "resource": "services",
            "namespace": meta_str(service, "namespace"),
            "name": meta_str(service, "name"),
        }},
    });
    match registry.put(&definition, "", ip, &mut object, Revision(0)).await? {
        Stored::Done(_) => Ok(true),
        Stored::Raced(None) => Ok(false),
        Stored::Raced(Some(record)) => {
            let (other, at) = registry.open_record(&definition, &record).await?;
            let services = registry.find("", "v1", "services").ok_or_else(ApiError::no_such_path)?;
            let (namespace, name) =
                (str_at(&other, "/spec/parentRef/namespace"), str_at(&other, "/spec/parentRef/name"));
            let owner = registry.load(&services, namespace, name).await?;
            let is_held = owner.is_some_and(|(s, _)| {
                families::list(&s, "clusterIPs").into_iter().any(|held| canonical(held) == ip)
            });
            // A claim whose write never came: left by a server that died, or by one that is about to write. The
            // second has half a minute.
            let age = jiff::Timestamp::now()
                - meta_str(&other, "creationTimestamp").parse::<jiff::Timestamp>().unwrap_or_default();
            if is_held || age.get_seconds() < 30 {
                return Ok(false);
            }
            Ok(matches!(registry.put(&definition, "", ip, &mut object, at).await?, Stored::Done(_)))
        }
    }
}

pub(super) async fn release(registry: &Registry, ip: &str) {
    let ip = &canonical(ip);
    let Some(definition) = registry.find("networking.k8s.io", "v1", "ipaddresses") else {
        return;
    };
    if let Ok(Some((_, at))) = registry.load(&definition, "", ip).await
        && let Err(e) = registry.remove(&definition, "", ip, at).await
    {
        tracing::warn!(ip, error = %e, "an address claim was not released; it is taken over when needed");
    }
}

/// The TCP node ports of the ports themselves.
fn node_port_numbers(service: &Value) -> BTreeSet<i64> {
    let ports = items_at(service, "/spec/ports").iter();
    let tcp = ports.filter(|port| port["protocol"].as_str().unwrap_or("TCP") == "TCP");
    tcp.filter_map(|port| port["nodePort"].as_i64()).collect()
}

fn node_ports(service: &Value) -> Vec<(u16, String)> {
    let mut all: Vec<(u16, String)> = items_at(service, "/spec/ports")
        .iter()
        .filter_map(|p| {
            let n = u16::try_from(p["nodePort"].as_i64()?).ok().filter(|n| *n > 0)?;
            Some((n, p["protocol"].as_str().unwrap_or("TCP").to_string()))
        })
        .collect();
    if let Some(n) = service
        .pointer("/spec/healthCheckNodePort")
        .and_then(Value::as_i64)
        .and_then(|n| u16::try_from(n).ok())
        && n > 0
    {
        all.push((n, "TCP".into()));
    }
    all
}

fn take_ports(registry: &Registry, service: &mut Value, used: &Used<'_>) -> Result<(), ApiError> {
    if !may_have_node_ports(service) {
        return Ok(());
    }
    let gives = wants_node_ports(service);
    let (low, high) = registry.config().node_ports;
    let name = meta_str(service, "name").to_string();
    let mut own: BTreeSet<(u16, String)> = node_ports(service).into_iter().collect();
    let mut errors = Vec::new();
    let range = format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
    let check = |n: u16, protocol: &str, path: String, errors: &mut Vec<FieldError>| {
        if !(low..=high).contains(&n) {
            errors.push(FieldError::invalid(path, i64::from(n), range.as_str()));
        } else if used.has_port(n, protocol) {
            errors.push(FieldError::invalid(path, i64::from(n), "provided port is already allocated"));
        }
    };
    let free = |own: &BTreeSet<(u16, String)>| -> Option<u16> {
        let taken = |n: u16| used.has_number(n) || own.iter().any(|(port, _)| *port == n);
        let start = rand::rng().random_range(low..=high);
        (start..=high).chain(low..start).find(|n| !taken(*n))
    };
    let full = || ApiError::internal("failed to allocate a nodePort: range is full");
    if let Some(ports) = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut) {
        // The same port by another protocol gets the same number.
        let mut by_port: Vec<(i64, String, u16)> = Vec::new();
        for (i, p) in ports.iter_mut().enumerate() {
            let protocol = p["protocol"].as_str().unwrap_or("TCP").to_string();
            let port = p["port"].as_i64().unwrap_or(0);
            let node_port = match p["nodePort"].as_i64().filter(|n| *n > 0) {
                Some(n) => {
                    let n = u16::try_from(n).unwrap_or(0);
                    check(n, &protocol, format!("spec.ports[{i}].nodePort"), &mut errors);
                    n
                }
                None if !gives => continue,
                None => {
                    let sibling = by_port
                        .iter()
                        .find(|(n, other, node_port)| {
                            *n == port && *other != protocol && !used.has_port(*node_port, &protocol)
                        })
                        .map(|(_, _, n)| *n);
                    let n = match sibling {
                        Some(n) => n,
                        None => free(&own).ok_or_else(full)?,
                    };
                    p["nodePort"] = json!(n);
                    n
                }
            };
            own.insert((node_port, protocol.clone()));
            by_port.push((port, protocol, node_port));
        }
    }
    if wants_health_port(service) {
        match service.pointer("/spec/healthCheckNodePort").and_then(Value::as_i64).filter(|n| *n > 0) {
            Some(n) => {
                // `own` has it already from the object; a port of the Service must not.
                let path = "spec.healthCheckNodePort";
                if node_port_numbers(service).contains(&n) {
                    errors.push(FieldError::invalid(path, n, "provided port is already allocated"));
                }
                check(u16::try_from(n).unwrap_or(0), "TCP", "spec.healthCheckNodePort".into(), &mut errors);
            }
            None => service["spec"]["healthCheckNodePort"] = json!(free(&own).ok_or_else(full)?),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "Service", &name, errors)) }
}

/// An update that leaves out what the server had filled in means "as before".
pub(super) fn keep_allocated(new: &mut Value, old: &Value) {
    if !new["spec"].is_object() {
        return;
    }
    if wants_address(old) && kind(new) != "ExternalName" {
        if str_at(new, "/spec/clusterIP").is_empty() {
            new["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
        }
        if items_at(new, "/spec/clusterIPs").is_empty()
            && new["spec"]["clusterIP"] == old["spec"]["clusterIP"]
        {
            new["spec"]["clusterIPs"] = old["spec"]["clusterIPs"].clone();
        }
    }
    if may_have_node_ports(old) && may_have_node_ports(new) {
        let before = items_at(old, "/spec/ports").to_vec();
        let said: BTreeSet<i64> =
            items_at(new, "/spec/ports").iter().filter_map(|p| p["nodePort"].as_i64()).collect();
        if let Some(ports) = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut) {
            for p in ports {
                if p["nodePort"].as_i64().unwrap_or(0) != 0 {
                    continue;
                }
                let same = |b: &&Value| b["port"] == p["port"] && b["protocol"] == p["protocol"];
                if let Some(n) = before.iter().find(same).and_then(|b| b["nodePort"].as_i64())
                    && !said.contains(&n)
                {
                    p["nodePort"] = json!(n);
                }
            }
        }
    }
    if wants_health_port(old)
        && wants_health_port(new)
        && new.pointer("/spec/healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0) == 0
    {
        new["spec"]["healthCheckNodePort"] = old["spec"]["healthCheckNodePort"].clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_neither_its_network_nor_its_broadcast_address() {
        let range: IpNetwork = "10.96.0.0/24".parse().unwrap();
        assert_eq!(usable(range), 254);
        assert_eq!(nth(range, 0).to_string(), "10.96.0.1");
        assert_eq!(nth(range, 253).to_string(), "10.96.0.254");
        assert!(!is_usable(range, "10.96.0.0".parse().unwrap()));
        assert!(!is_usable(range, "10.96.0.255".parse().unwrap()));
    }

    #[test]
    fn a_load_balancer_that_wants_no_more_node_ports_keeps_those_it_has() {
        let old = json!({"spec": {"type": "LoadBalancer",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let mut new = json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "ports": [{"port": 80, "protocol": "TCP"}]}});
        keep_allocated(&mut new, &old);
        assert_eq!(new["spec"]["ports"], old["spec"]["ports"]);
    }

    #[test]
    fn an_update_keeps_what_it_does_not_mention() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        keep_allocated(&mut new, &old);
        assert_eq!(new, old);
    }
}
