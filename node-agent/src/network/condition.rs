//! The Node's condition `NetworkUnavailable`: true, with the reason, until every part works. And `ServicesIncomplete`: true
//! while there are Services for which the kernel's maps have no room. And `ServiceProxyDegraded`: true while Services are
//! served by the proxy in user space.
//!
//! It exists so that a person finds out with `kubectl describe node` what is missing, and the scheduler keeps pods
//! away from a node without a network. It must not know what the parts do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Pause after a patch that failed: the server is away, or the node is not registered yet.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The eBPF programs.
    Dataplane,
    /// The node's range, and what depends on it.
    PodNetwork,
}

/// The condition; clones share it.
#[derive(Clone)]
pub struct Condition {
    nodes: Api<Node>,
    node: String,
    state: Arc<State>,
}

struct State {
    parts: Mutex<BTreeMap<Part, Result<(), String>>>,
    serves: bool,
    /// What the kernel does not have.
    lacks: Mutex<Vec<&'static str>>,
    /// What does not fit into the maps, and what to do.
    shortage: Mutex<Option<String>>,
    /// Why Services are not served by the programs, and what follows from that.
    degraded: Mutex<Option<(&'static str, String)>>,
    changed: Notify,
}

impl Condition {
    /// Nothing is known to work yet. `serves` says whether Services are served here at all.
    pub fn new(client: kube::Client, node: &str, serves: bool) -> Self {
        let parts =
            BTreeMap::from([(Part::PodNetwork, Err("the node has no range of pod addresses yet".into()))]);
        let state = State {
            parts: Mutex::new(parts),
            serves,
            lacks: Mutex::default(),
            shortage: Mutex::default(),
            degraded: Mutex::default(),
            changed: Notify::new(),
        };
        let state = Arc::new(state);
        Self { nodes: Api::all(client), node: node.to_string(), state }
    }

    /// Notes how a part is. Whether that is news.
    pub fn set(&self, part: Part, outcome: Result<(), String>) -> bool {
        let mut parts = self.state.parts.lock();
        let news = parts.get(&part) != Some(&outcome);
        if news {
            parts.insert(part, outcome);
            self.state.changed.notify_one();
        }
        news
    }

    /// Notes what the kernel does not have and is done without.
    pub fn set_lacks(&self, lacks: Vec<&'static str>) {
        *self.state.lacks.lock() = lacks;
        self.state.changed.notify_one();
    }

    /// Notes what does not fit into the maps; none when all does. Whether that is news.
    pub fn set_shortage(&self, shortage: Option<String>) -> bool {
        let mut known = self.state.shortage.lock();
        let news = *known != shortage;
        if news {
            *known = shortage;
            self.state.changed.notify_one();
        }
        news
    }

    /// Notes why Services are served by the proxy in user space, as a word and as a text; none when they are not.
    pub fn set_degraded(&self, degraded: Option<(&'static str, String)>) {
        let mut known = self.state.degraded.lock();
        if *known != degraded {
            *known = degraded;
            self.state.changed.notify_one();
        }
    }

    /// Keeps the Node's condition as it is noted here.
    pub async fn run(self) {
        let mut written = None;
        loop {
            let (status, reason, message) =
                summary(&self.state.parts.lock(), self.state.serves, &self.state.lacks.lock());
            let shortage = self.state.shortage.lock().clone();
            let degraded = self.state.degraded.lock().clone();
            let now = (status, reason, message, shortage, degraded);
            if written.as_ref() != Some(&now) {
                let degraded = now.4.as_ref().map(|(reason, message)| (*reason, message.as_str()));
                match self.write(now.0, now.1, &now.2, now.3.as_deref(), degraded).await {
                    Ok(()) => written = Some(now),
                    Err(error) => {
                        tracing::debug!(%error, "the node's condition is not written yet");
                        tokio::time::sleep(RETRY_AFTER).await;
                        continue;
                    }
                }
            }
            self.state.changed.notified().await;
        }
    }

    async fn write(
        &self,
        status: &str,
        reason: &str,
        message: &str,
        shortage: Option<&str>,
        degraded: Option<(&str, &str)>,
    ) -> kube::Result<()> {
        let (short, short_reason, short_message) = match shortage {
            Some(shortage) => ("True", "LimitReached", shortage),
            None => ("False", "AllServed", "every Service has room in the kernel's maps"),
        };
        let (slow, slow_reason, slow_message) = match degraded {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", "Ebpf", "Services are not served by the userspace proxy"),
        };
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::now());
        let patch: Value = json!({ "status": { "conditions": [{
            "type": "NetworkUnavailable", "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }, {
            "type": "ServicesIncomplete", "status": short, "reason": short_reason, "message": short_message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }, {
            "type": "ServiceProxyDegraded", "status": slow, "reason": slow_reason, "message": slow_message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }]}});
        self.nodes.patch_status(&self.node, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }
}

fn summary(
    parts: &BTreeMap<Part, Result<(), String>>,
    serves: bool,
    lacks: &[&str],
) -> (&'static str, &'static str, String) {
    let missing = parts.iter().find_map(|(part, outcome)| Some((*part, outcome.as_ref().err()?)));
    match missing {
        None => {
            let mut message = match serves {
                true => "pods have addresses, routes and Services".to_owned(),
                false => "pods have addresses and routes; Services are left to another proxy".to_owned(),
            };
            if !lacks.is_empty() {
                message.push_str(&format!("; this kernel has {}", lacks.join("; ")));
            }
            ("False", "PenstockNetworkReady", message)
        }
        Some((Part::Dataplane, why)) => ("True", "DataPlaneNotLoaded", why.clone()),
        Some((Part::PodNetwork, why)) => ("True", "PodNetworkNotReady", why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missing_part_makes_the_network_unavailable_and_is_named() {
        let mut parts =
            BTreeMap::from([(Part::PodNetwork, Ok(())), (Part::Dataplane, Err("no object".into()))]);
        assert_eq!(
            summary(&parts, true, &["no such thing"]),
            ("True", "DataPlaneNotLoaded", "no object".to_string())
        );
        parts.insert(Part::Dataplane, Ok(()));
        assert_eq!(summary(&parts, true, &[]).0, "False");
    }

    #[test]
    fn what_the_kernel_does_not_have_is_said_where_the_network_works() {
        let parts = BTreeMap::from([(Part::PodNetwork, Ok(())), (Part::Dataplane, Ok(()))]);
        let (status, _, message) = summary(&parts, true, &["no wheels: it walks", "no wings"]);
        assert_eq!(status, "False");
        assert!(message.ends_with("; this kernel has no wheels: it walks; no wings"), "{message}");
        let (_, _, message) = summary(&parts, false, &[]);
        assert!(message.contains("left to another proxy"), "{message}");
    }
}
