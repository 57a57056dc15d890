//! What every cluster has from its first second: namespaces, the API's own Service, DNS, roles, priority classes, and
//! who is served first under load.
//!
//! Idempotent and self-healing: each start creates what is missing and puts right what must be exactly so. What a
//! user may tune (the rules of a role) is only ever added to.

mod access;
mod controller_roles;
pub(crate) mod flow_control;

use std::net::IpAddr;

use serde_json::{Value, json};

use super::context::{Context, Target};
use super::generic::update::Race;
use super::kinds::rules::addresses::special_address;
use super::object::{items_at, meta_str};
use super::ownership::Tracking;
use super::{Registry, RegistryError};
use crate::authn::secret_tokens;
use crate::error::ApiError;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes everything. The store must be reachable.
pub(super) async fn ensure(registry: &Registry) -> Result<(), RegistryError> {
    for name in NAMESPACES {
        ensure_object(
            registry,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            keep,
        )
        .await?;
    }
    for (name, value, what) in [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": what});
        ensure_object(registry, class, keep).await?;
    }
    for object in access::objects() {
        ensure_object(registry, object, access::reconcile).await?;
    }
    let config = registry.config();
    let cidr = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": config.service_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>()}});
    ensure_object(registry, cidr, widen).await?;
    ensure_object(registry, kubernetes_service(registry), keep).await?;
    ensure_object(registry, endpoints(registry), own("subsets")).await?;
    ensure_object(registry, endpoint_slice(registry), |have, want| {
        have["endpoints"] = want["endpoints"].clone();
        have["ports"] = want["ports"].clone();
    })
    .await?;
    ensure_object(registry, dns_service(registry), keep).await?;
    ensure_object(registry, token_tracking(), keep).await?;
    for object in flow_control::objects() {
        ensure_object(registry, object, flow_control::reconcile).await?;
    }
    Ok(())
}

/// Leaves an object that exists alone.
fn keep(_have: &mut Value, _want: &Value) {}

/// Adds the range of a second family to the ranges of Services, as upstream does (KEP-1880, kubernetes/kubernetes#131263):
/// it takes no address from anybody. Any other difference stays, and is told.
fn widen(have: &mut Value, want: &Value) {
    let ranges = |object: &Value| -> Vec<String> {
        items_at(object, "/spec/cidrs").iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (had, wanted) = (ranges(have), ranges(want));
    if had == wanted {
        return;
    }
    match (had.as_slice(), wanted.as_slice()) {
        ([had], [wanted, second]) if had == wanted => {
            tracing::info!("the cluster's Services have the range {second} beside {had} from now on");
            have["spec"]["cidrs"] = want["spec"]["cidrs"].clone();
        }
        _ => tracing::warn!(
            "--service-cidr {} is not what the store's Services were given addresses of, {} (ServiceCIDR kubernetes): those \
             outside of it keep theirs; a second range can only be added behind the first",
            wanted.join(","),
            had.join(",")
        ),
    }
}

/// Puts one field right.
fn own(field: &'static str) -> fn(&mut Value, &Value) {
    match field {
        "subsets" => |have, want| have["subsets"] = want["subsets"].clone(),
        _ => keep,
    }
}

/// Creates the object, or lets `reconcile(have, want)` mend the one there is.
pub(crate) async fn ensure_object(
    registry: &Registry,
    want: Value,
    reconcile: fn(&mut Value, &Value),
) -> Result<(), RegistryError> {
    let name = meta_str(&want, "name").to_string();
    let what = format!("{} {name}", want["kind"].as_str().unwrap_or_default());
    let failed = |source: ApiError| RegistryError::Bootstrap { what: what.clone(), source: Box::new(source) };
    let api_version = want["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let definition = registry
        .definitions()
        .into_iter()
        .find(|d| d.group == group && d.version == version && want["kind"] == *d.kind)
        .ok_or_else(|| failed(ApiError::internal("no such kind")))?;
    let namespace = meta_str(&want, "namespace");
    let target = Target::named((!namespace.is_empty()).then_some(namespace), &name);
    let context = Context::system();
    let present = registry.load(&definition, namespace, &name).await.map_err(failed)?;
    if present.is_none() {
        let mut object = want.clone();
        penstock_schema::defaults::apply(&definition.ty, &mut object);
        match registry.create_object(&context, &definition, &target, Tracking::Changes, object).await {
            Ok(_) => return Ok(()),
            Err(e) if e.is_already_exists() => {}
            Err(e) => return Err(failed(e)),
        }
    }
    let mend = &mut |old: &Value, _: Option<&Value>| {
        let mut new = old.clone();
        reconcile(&mut new, &want);
        Ok(new)
    };
    let changes = Tracking::Changes;
    registry.modify(&context, &definition, &target, Race::Rebases, changes, mend).await.map_err(failed)?;
    Ok(())
}

/// The first address of the first service range.
fn api_address(registry: &Registry) -> Option<IpAddr> {
    Some(match registry.config().service_cidrs.first()?.network() {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + 1).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + 1).into()),
    })
}

fn kubernetes_service(registry: &Registry) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "clusterIP": api_address(registry).map(|ip| ip.to_string()), "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP",
                "targetPort": registry.config().advertise_port}]}})
}

/// Where other hosts reach this server; none when it only serves its own, and endpoints may not say so.
fn advertised(registry: &Registry) -> Option<IpAddr> {
    Some(registry.config().advertise_address).filter(|ip| special_address(*ip).is_none())
}

fn endpoints(registry: &Registry) -> Value {
    let port = registry.config().advertise_port;
    let subsets: Vec<Value> = advertised(registry)
        .into_iter()
        .map(|ip| {
            json!({"addresses": [{"ip": ip.to_string()}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}]})
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": subsets})
}

fn endpoint_slice(registry: &Registry) -> Value {
    let config = registry.config();
    let endpoints: Vec<Value> = advertised(registry)
        .into_iter()
        .map(|ip| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}}))
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if config.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": [{"name": "https", "port": config.advertise_port, "protocol": "TCP"}]})
}

/// Since when the use of tokens in Secrets is noted, for whoever removes unused ones.
fn token_tracking() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"},
        "data": {"since": secret_tokens::today()}})
}

/// Served on every node by its agent, so it selects no pods, and no service proxy is to refuse it for that.
fn dns_service(registry: &Registry) -> Value {
    let addresses: Vec<String> = registry.config().cluster_dns.iter().map(ToString::to_string).collect();
    json!({"apiVersion": "v1", "kind": "Service",
    "metadata": {"name": "kube-dns", "namespace": "kube-system",
        "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
            "service.kubernetes.io/service-proxy-name": "node-agent"}},
    "spec": {"type": "ClusterIP", "clusterIP": addresses.first(), "clusterIPs": addresses,
        "sessionAffinity": "None",
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
        ]}})
}

/// Whether a rule of `want` is missing from `have`.
pub(super) fn missing_rules(have: &Value, want: &Value) -> Vec<Value> {
    let had = items_at(have, "/rules");
    items_at(want, "/rules").iter().filter(|r| !had.contains(r)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_range_is_added_and_nothing_else_is_changed() {
        let object = |cidrs: &[&str]| json!({"spec": {"cidrs": cidrs}});
        let (one, other, six) = ("10.96.0.0/16", "10.97.0.0/16", "fd00:96::/112");
        for (had, wanted, has) in [
            (&[one][..], &[one, six][..], &[one, six][..]),
            (&[one], &[one], &[one]),
            (&[one], &[six, one], &[one]),
            (&[one], &[other, six], &[one]),
            (&[one, six], &[one], &[one, six]),
        ] {
            let mut have = object(had);
            widen(&mut have, &object(wanted));
            assert_eq!(have, object(has), "{had:?} with {wanted:?}");
        }
    }
}
