//! The proxy in user space, when it is wanted: started, told which clients are pods of this node, and told of to people, in
//! the node's condition and by an Event of the Node.
//!
//! It exists so that a node that cannot load the eBPF programs serves Services and says what it does not do. It must not
//! know how it serves.

use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use penstock_fallback::{Fallback, Limits, Trouble};
use penstock_network::{Network, PodRanges};
use tokio_util::sync::CancellationToken;

use super::condition::Condition;

/// Troubles named in the condition; of the others it has the number.
const NAMED_MAX: usize = 3;
/// As much as an event's message may have.
const MESSAGE_MAX: usize = 1024;
/// Events of objects without a namespace live here, as upstream's do.
const NODE_EVENTS: &str = "default";
const COMPONENT: &str = "penstock-service-proxy";
/// Of the reason why the programs do not load, which may hold a verifier's whole log, this much is told.
const REASON_CHARS_MAX: usize = 400;

/// Why the proxy in user space serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// It was asked for.
    Chosen,
    /// The programs could not be loaded.
    NotLoaded(String),
}

/// Starts it in the node's network namespace.
pub fn start(services_max: u32, uplink: u32) -> anyhow::Result<Arc<Fallback>> {
    let fallback = Fallback::start(Limits { services_max, ..Limits::default() })
        .context("starting the userspace proxy")?;
    if let Err(error) = answer_for_own_addresses_only(uplink) {
        tracing::warn!("the node may answer ARP for load-balancer addresses that others announce: {error:#}");
    }
    Ok(fallback)
}

/// Addresses of Services are the node's own while it serves them; on the network they are not its to claim.
/// `arp_ignore` 1: answer only for addresses of the interface that is asked (Documentation/networking/ip-sysctl).
fn answer_for_own_addresses_only(uplink: u32) -> anyhow::Result<()> {
    let name = nix::net::if_::if_indextoname(uplink).context("the uplink has no name")?;
    let path = format!("/proc/sys/net/ipv4/conf/{}/arp_ignore", name.to_string_lossy());
    let known = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    if known.trim() != "0" {
        return Ok(());
    }
    std::fs::write(&path, "1").with_context(|| format!("writing {path}"))
}

/// Whom to look after, why it is needed, and who is to hear of it.
pub struct StandIn {
    pub fallback: Arc<Fallback>,
    pub because: Because,
    pub network: Arc<Network>,
    pub client: kube::Client,
    pub node: String,
    pub condition: Condition,
}

impl StandIn {
    /// Keeps it informed, and others of it, until it is relieved.
    pub async fn look_after(self, relieved: CancellationToken) {
        relieved.run_until_cancelled(self.watch()).await;
        self.condition.set_degraded(None);
    }

    async fn watch(&self) {
        let (mut range, mut troubles) = (self.network.pod_ranges(), self.fallback.troubles());
        let retrying = self.fallback.retry();
        tokio::pin!(retrying);
        let begins = message(&self.because, &[]);
        tracing::warn!("{begins}");
        // Beside: the API server may be away, and what comes next must not wait for it.
        tokio::spawn(write_event(self.client.clone(), self.node.clone(), begins));
        loop {
            let inside = range.borrow_and_update().iter().flat_map(PodRanges::all).collect();
            self.fallback.set_inside(inside);
            let now = troubles.borrow_and_update().clone();
            self.condition.set_degraded(Some((reason(&self.because), message(&self.because, &now))));
            tokio::select! {
                Ok(()) = range.changed() => {}
                Ok(()) = troubles.changed() => {}
                () = &mut retrying => return,
            }
        }
    }
}

fn reason(because: &Because) -> &'static str {
    match because {
        Because::Chosen => "UserspaceChosen",
        Because::NotLoaded(_) => "EbpfNotLoaded",
    }
}

/// What the node's condition says.
fn message(because: &Because, troubles: &[Trouble]) -> String {
    let why = match because {
        Because::Chosen => "it was asked for with --service-proxy=userspace".to_owned(),
        Because::NotLoaded(error) => {
            let mut short: String = error.chars().take(REASON_CHARS_MAX).collect();
            if short.len() < error.len() {
                short.push_str(" ... (all of it is in the agent's log)");
            }
            format!("the eBPF programs could not be loaded: {short}")
        }
    };
    let todo = match because {
        Because::Chosen => "Start the agent without the flag to serve them by eBPF.",
        Because::NotLoaded(_) => "The agent tries again every 15 seconds; mend what is named above.",
    };
    let mut text = format!(
        "Services are served by the userspace proxy, because {why}. ClusterIPs, NodePorts, external and load-balancer \
         addresses work over TCP and UDP, slower; backends see this node's address instead of the client's, and \
         connections end when the agent does. What does not work on this node: SCTP, masquerading of what pods send out \
         of the cluster, announcing load-balancer addresses, counting and dropping by the programs. {todo}"
    );
    if !troubles.is_empty() {
        let named: Vec<_> = troubles.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        text.push_str(&format!(" Not served: {} addresses: {}", troubles.len(), named.join("; ")));
        if troubles.len() > NAMED_MAX {
            text.push_str("; and others");
        }
        text.push('.');
    }
    text
}

/// Best effort: the condition says the same.
async fn write_event(client: kube::Client, node: String, message: String) {
    let found = Api::<Node>::all(client.clone()).get(&node).await.ok();
    let object = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(node.clone()),
        uid: found.and_then(|node| node.metadata.uid),
        ..ObjectReference::default()
    };
    let now = Timestamp::now();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{node}.{:x}", now.as_nanosecond())),
            namespace: Some(NODE_EVENTS.into()),
            ..ObjectMeta::default()
        },
        involved_object: object,
        reason: Some("ServiceProxyDegraded".into()),
        message: Some(message.chars().take(MESSAGE_MAX).collect()),
        type_: Some("Warning".into()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some(COMPONENT.into()), host: Some(node.clone()) }),
        reporting_component: Some(COMPONENT.into()),
        reporting_instance: Some(node),
        ..Event::default()
    };
    let written = Api::<Event>::namespaced(client, NODE_EVENTS).create(&PostParams::default(), &event).await;
    if let Err(error) = written {
        tracing::debug!(%error, "an event is not written");
    }
}

#[cfg(test)]
mod tests {
    use penstock_dataplane::{Protocol, ServiceKey};
    use penstock_fallback::Why;

    use super::*;

    fn trouble(port: u16) -> Trouble {
        Trouble {
            service: ServiceKey::new("demo", "web", "http"),
            address: ([10, 240, 0, 11], port).into(),
            protocol: Protocol::Tcp,
            why: Why::InUse,
        }
    }

    #[test]
    fn the_condition_says_why_what_does_not_work_and_what_to_do() {
        let text = message(&Because::NotLoaded("no eBPF object at /x: build it".into()), &[trouble(30080)]);
        for part in ["no eBPF object at /x", "masquerading", "SCTP", "mend", "demo/web:http", "30080/TCP"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = message(&Because::NotLoaded("x".repeat(100_000)), &[]);
        assert!(text.len() < 2_000 && text.contains("agent's log"), "{}", text.len());
        let many: Vec<_> = (0..100).map(trouble).collect();
        assert!(message(&Because::Chosen, &many).contains("100 addresses"));
    }
}
