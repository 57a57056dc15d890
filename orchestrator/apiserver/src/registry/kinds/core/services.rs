//! Service: a stable address for a changing set of pods. Addresses and node ports are allocated here.

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::error::{ApiError, FieldError};
use crate::registry::Registry;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS, Subresource};
use crate::registry::meta::NameRule;
use crate::registry::object::{items_at, str_at};
use crate::registry::strategy::{Reservation, Strategy};
use crate::tables::network::SERVICES;

mod allocation;
mod families;
mod ledger;
mod validation;

pub(crate) use ledger::Ledger;

const PROXY: Subresource = Subresource {
    name: "proxy",
    group: "",
    version: "v1",
    kind: "ServiceProxyOptions",
    verbs: &["create", "delete", "get", "patch", "update"],
};

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "Service", "services")
        .short(&["svc"])
        .categories(&["all"])
        .name_rule(NameRule::Label)
        .create_on_update()
        .returns_deleted()
        .columns(SERVICES)
        .subresources(&[PROXY, STATUS])
        .fields(&["spec.clusterIP", "spec.type"], |o| {
            vec![
                ("spec.clusterIP", str_at(o, "/spec/clusterIP").to_string()),
                ("spec.type", str_at(o, "/spec/type").to_string()),
            ]
        })
        .strategy(Service)
}

struct Service;

pub(super) fn kind(service: &Value) -> &str {
    match str_at(service, "/spec/type") {
        "" => "ClusterIP",
        kind => kind,
    }
}

pub(super) fn is_headless(service: &Value) -> bool {
    str_at(service, "/spec/clusterIP") == "None"
}

/// Has (or is to get) an address of its own.
pub(super) fn wants_address(service: &Value) -> bool {
    kind(service) != "ExternalName" && !is_headless(service)
}

/// Of a type that may have node ports: such a Service keeps those it has, also where it is to get no more.
pub(super) fn may_have_node_ports(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

/// To be given node ports for the ports that name none.
pub(super) fn wants_node_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&json!(false)),
        _ => false,
    }
}

/// Reached from outside the cluster, so that it has a policy for that.
pub(super) fn is_external(service: &Value) -> bool {
    may_have_node_ports(service)
        || (wants_address(service) && !items_at(service, "/spec/externalIPs").is_empty())
}

pub(super) fn wants_health_port(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && str_at(service, "/spec/externalTrafficPolicy") == "Local"
}

#[async_trait]
impl Strategy for Service {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({"loadBalancer": {}});
        settle(new);
    }

    fn prepare_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        allocation::keep_allocated(new, old);
        families::trim_second(new, old);
        drop_stale(new, old);
        settle(new);
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        validation::validate(new)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        validation::validate_update(new, old)
    }

    fn prepare_status(&self, _context: &Context, new: &mut Value, _old: &Value) {
        let serves = kind(new) == "LoadBalancer";
        if let Some(balancer) = new.pointer_mut("/status/loadBalancer").and_then(Value::as_object_mut) {
            if !serves {
                // What is no load balancer has no addresses of one; who wrote them saw an older type.
                balancer.remove("ingress");
            }
            for ingress in balancer.get_mut("ingress").and_then(Value::as_array_mut).into_iter().flatten() {
                if !str_at(ingress, "/ip").is_empty() && ingress.get("ipMode").is_none() {
                    ingress["ipMode"] = "VIP".into();
                }
            }
        }
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        validation::validate_status(new)
    }

    async fn reserve(
        &self,
        registry: &Registry,
        context: &Context,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<Option<Box<dyn Reservation>>, ApiError> {
        Ok(Some(Box::new(allocation::reserve(registry, context, new, old).await?)))
    }

    async fn after_delete(&self, registry: &Registry, old: &Value) {
        for ip in items_at(old, "/spec/clusterIPs").iter().filter_map(Value::as_str) {
            allocation::release(registry, ip).await;
        }
    }
}

/// `clusterIP` and `clusterIPs` say the same.
fn settle(service: &mut Value) {
    if !service["spec"].is_object() {
        return;
    }
    let ip = str_at(service, "/spec/clusterIP").to_string();
    let first = str_at(service, "/spec/clusterIPs/0").to_string();
    if kind(service) == "ExternalName" {
        return;
    }
    let spec = &mut service["spec"];
    if !ip.is_empty() && first.is_empty() {
        spec["clusterIPs"] = json!([ip]);
    }
    if spec.get("internalTrafficPolicy").is_none() {
        spec["internalTrafficPolicy"] = "Cluster".into();
    }
}

/// A change of type takes with it what only the old type had, unless the updater changed that too.
fn drop_stale(new: &mut Value, old: &Value) {
    let (was, is) = (kind(old).to_string(), kind(new).to_string());
    let unchanged = |f: &str| new.pointer(&format!("/spec/{f}")) == old.pointer(&format!("/spec/{f}"));
    let mut gone: Vec<&str> = Vec::new();
    if was != "ExternalName" && is == "ExternalName" {
        gone.extend(
            ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]
                .into_iter()
                .filter(|f| unchanged(f)),
        );
    }
    if was == "ExternalName" && is != "ExternalName" && unchanged("externalName") {
        gone.push("externalName");
    }
    if was == "LoadBalancer" && is != "LoadBalancer" {
        gone.extend(
            ["allocateLoadBalancerNodePorts", "loadBalancerClass"].into_iter().filter(|f| unchanged(f)),
        );
    }
    if wants_health_port(old) && !wants_health_port(new) && unchanged("healthCheckNodePort") {
        gone.push("healthCheckNodePort");
    }
    if is_external(old) && !is_external(new) && unchanged("externalTrafficPolicy") {
        gone.push("externalTrafficPolicy");
    }
    if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
        for field in gone {
            spec.remove(field);
        }
    }
    if may_have_node_ports(old) && !may_have_node_ports(new) {
        let had: Vec<Value> = items_at(old, "/spec/ports").iter().map(|p| p["nodePort"].clone()).collect();
        if let Some(ports) = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut) {
            for port in ports.iter_mut().filter_map(Value::as_object_mut) {
                if port.get("nodePort").is_some_and(|n| had.contains(n)) {
                    port.remove("nodePort");
                }
            }
        }
    }
}
