//! Whether this node takes a pod that was bound to it. Pure.
//!
//! The scheduler asks the same questions first; a pod whose `nodeName` somebody wrote past it, or that two schedulers
//! bound at once, is only noticed here. A pod that cannot run beside the others is refused for good, as by other
//! kubelets: its phase becomes `Failed`, and whoever owns it makes another.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerPort, PodStatus};

use crate::desired::{Desired, Origin, Role};
use crate::ledger::Amounts;
use crate::{resources, worker};

/// What a node can hold together.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// CPU and memory.
    pub amounts: Amounts,
    /// Pods.
    pub pods: usize,
}

/// Why a pod is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `NodePorts`, or `OutOf` and what is short, as other kubelets say.
    pub reason: String,
    /// What is short or taken, and by whom.
    pub message: String,
}

/// Whether a pod must be asked about: it is new, wants to run, and nobody took it before. Pods from manifests are this
/// machine's own.
pub fn is_new(desired: &Desired) -> bool {
    let started = desired.pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
    desired.origin == Origin::Api && !started && !desired.is_terminal() && !desired.is_deleting()
}

/// Why `desired` cannot run beside `others`, those of the node's pods that have not ended.
pub fn refuse<'a>(
    desired: &Desired,
    others: impl Iterator<Item = &'a Desired>,
    room: &Room,
) -> Option<Refusal> {
    let wanted = host_ports(desired);
    let asked = worker::given(desired);
    let (mut count, mut taken) = (0_usize, Amounts::default());
    for other in others.filter(|other| other.uid != desired.uid) {
        count += 1;
        let given = worker::given(other);
        taken.cpu_milli = taken.cpu_milli.saturating_add(given.cpu_milli);
        taken.memory_bytes = taken.memory_bytes.saturating_add(given.memory_bytes);
        let theirs = host_ports(other);
        if let Some(port) = wanted.iter().find(|port| theirs.iter().any(|t| t.collides(port))) {
            let message =
                format!("host port {port} is taken on this node by pod {}/{}", other.namespace, other.name);
            return Some(Refusal { reason: "NodePorts".into(), message });
        }
    }
    let short = |name: &str, asked: i64, taken: i64, capacity: i64, unit: &str| {
        (asked > 0 && asked.saturating_add(taken) > capacity).then(|| Refusal {
            reason: format!("OutOf{name}"),
            message: format!(
                "this node has not enough {name}: {asked}{unit} asked for, {taken}{unit} of {capacity}{unit} taken"
            ),
        })
    };
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let Amounts { cpu_milli, memory_bytes } = room.amounts;
    short("pods", 1, number(count), number(room.pods), "")
        .or_else(|| short("cpu", asked.cpu_milli, taken.cpu_milli, cpu_milli, "m"))
        .or_else(|| short("memory", asked.memory_bytes, taken.memory_bytes, memory_bytes, ""))
}

/// The last status of a refused pod: no container of it is ever told.
pub fn refused_status(desired: &Desired, refusal: &Refusal) -> PodStatus {
    PodStatus {
        phase: Some("Failed".into()),
        reason: Some(refusal.reason.clone()),
        message: Some(format!("Pod was rejected: {}", refusal.message)),
        qos_class: Some(resources::qos(desired.spec()).name().to_string()),
        observed_generation: desired.pod.metadata.generation,
        ..desired.pod.status.clone().unwrap_or_default()
    }
}

/// A port of the node that a container asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct HostPort {
    port: i32,
    protocol: String,
    /// Empty for every address.
    address: String,
}

impl HostPort {
    fn collides(&self, other: &Self) -> bool {
        let meet = self.address.is_empty() || other.address.is_empty() || self.address == other.address;
        self.port == other.port && self.protocol == other.protocol && meet
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { port, protocol, address } = self;
        match address.as_str() {
            "" => write!(f, "{port}/{protocol}"),
            address => write!(f, "{port}/{protocol} of {address}"),
        }
    }
}

/// Of apps and sidecars, whose ports are open as long as the pod runs.
fn host_ports(desired: &Desired) -> BTreeSet<HostPort> {
    let lasting = desired.specs.iter().filter(|s| matches!(s.role, Role::App | Role::Sidecar));
    let ports = lasting.flat_map(|s| s.container.ports.iter().flatten());
    ports.filter_map(host_port).collect()
}

fn host_port(port: &ContainerPort) -> Option<HostPort> {
    let address = port.host_ip.as_deref().unwrap_or_default();
    let everywhere = matches!(address, "" | "0.0.0.0" | "::");
    Some(HostPort {
        port: port.host_port.filter(|port| *port > 0)?,
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        address: if everywhere { String::new() } else { address.to_string() },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ROOM: Room = Room { amounts: Amounts { cpu_milli: 1000, memory_bytes: 1000 }, pods: 3 };

    fn pod(name: &str, ports: Value, requests: Value) -> Desired {
        let object = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"containers": [{"name": "c", "ports": ports, "resources": {"requests": requests}}]},
        });
        Desired::new(serde_json::from_value(object).unwrap(), Origin::Api).unwrap()
    }

    fn with_port(name: &str, port: Value) -> Desired {
        pod(name, json!([port]), json!({}))
    }

    fn reason(desired: &Desired, others: &[Desired]) -> Option<String> {
        refuse(desired, others.iter(), &ROOM).map(|refusal| refusal.reason)
    }

    #[test]
    fn a_port_that_another_pod_has_is_refused_with_its_owner_named() {
        let other = with_port("first", json!({"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}));
        let port = |extra: Value| {
            let mut port = json!({"containerPort": 80, "hostPort": 8080});
            port.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            with_port("second", port)
        };
        let same = refuse(&port(json!({})), [&other].into_iter(), &ROOM).unwrap();
        assert_eq!(same.reason, "NodePorts");
        assert!(same.message.contains("8080/TCP") && same.message.contains("shop/first"), "{same:?}");
        let others = [other];
        assert_eq!(reason(&port(json!({"protocol": "UDP"})), &others), None);
        assert_eq!(reason(&port(json!({"hostPort": 8081})), &others), None);
        assert_eq!(reason(&port(json!({"hostIP": "10.0.0.1"})), &others).unwrap(), "NodePorts");
        let narrow =
            [with_port("third", json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.2"}))];
        assert_eq!(reason(&port(json!({"hostIP": "10.0.0.1"})), &narrow), None);
        assert_eq!(reason(&port(json!({"hostIP": "0.0.0.0"})), &narrow).unwrap(), "NodePorts");
    }

    #[test]
    fn what_does_not_fit_beside_the_others_is_refused_by_the_name_of_what_is_short() {
        let small = |name: &str| pod(name, json!([]), json!({"cpu": "400m", "memory": "300"}));
        let others = [small("a"), small("b")];
        assert_eq!(reason(&pod("c", json!([]), json!({"cpu": "300m"})), &others).unwrap(), "OutOfcpu");
        assert_eq!(reason(&pod("c", json!([]), json!({"memory": "401"})), &others).unwrap(), "OutOfmemory");
        assert_eq!(reason(&pod("c", json!([]), json!({"cpu": "200m", "memory": "400"})), &others), None);
        let three = [small("a"), pod("b", json!([]), json!({})), pod("d", json!([]), json!({}))];
        assert_eq!(reason(&pod("c", json!([]), json!({})), &three).unwrap(), "OutOfpods");
        let overfull = [pod("a", json!([]), json!({"cpu": "5"}))];
        assert_eq!(reason(&pod("c", json!([]), json!({})), &overfull), None, "asks for nothing");
    }

    #[test]
    fn a_pod_is_asked_about_once() {
        let mut desired = pod("a", json!([]), json!({}));
        assert!(is_new(&desired));
        let status = json!({"phase": "Pending", "startTime": "2026-01-01T00:00:00Z"});
        desired.pod.status = Some(serde_json::from_value(status).unwrap());
        assert!(!is_new(&desired), "taken before the agent started again");
        let refusal = Refusal { reason: "NodePorts".into(), message: "taken".into() };
        desired.pod.status = Some(refused_status(&desired, &refusal));
        assert!(!is_new(&desired) && desired.is_terminal());
    }
}
