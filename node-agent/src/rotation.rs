//! When a pod that ends gets no new connections any more, on any node.
//!
//! It exists so that rollouts lose nothing: a pod is told to stop only when every node has taken it out of rotation, as
//! far as that can be known within the time its owner waits. This is where the halves meet: what the slices say of this
//! node's pods, what this node's kernel has, and what the others' have. See docs/adr/0022.

mod ask;
mod endpoints;
mod groups;
mod nodes;
mod peers;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use penstock_identity::Credentials;
use penstock_pods::{Answer, Question};

use crate::network::{Programmed, Programs};

pub use endpoints::OwnEndpoints;
pub use nodes::Nodes;

use ask::Https;
use peers::Peers;

/// What was sent to the pod an instant before the last node took it out is still on its way, or being answered.
const UNDER_WAY: Duration = Duration::from_millis(250);
/// A proxy beside the agents says to nobody how far it is. From when every node has heard of the change it gets this long:
/// kube-proxy gathers changes for a second (`--nftables-min-sync-period`, `--iptables-min-sync-period`).
const BESIDE: Duration = Duration::from_millis(2_500);

/// What the network half knows, for the pods half to ask.
#[derive(Clone)]
pub struct Rotation {
    pub endpoints: OwnEndpoints,
    pub nodes: Nodes,
    pub programmed: Programmed,
    pub programs: Arc<Programs>,
    peers: Arc<Peers>,
    /// How long after the last node heard of it connections may still be sent to who left.
    under_way: Duration,
}

impl Rotation {
    /// Nothing is known yet. `credentials` say as whom this node speaks; `serves`, whether agents serve Services, and not somebody
    /// beside them.
    pub fn new(node: &str, credentials: &Credentials, serves: bool) -> anyhow::Result<Self> {
        let nodes = Nodes::default();
        let ask = Arc::new(Https::new(credentials, nodes.clone())?);
        Ok(Self {
            endpoints: OwnEndpoints::default(),
            programmed: Programmed::default(),
            programs: Arc::default(),
            peers: Arc::new(Peers::new(node, nodes.clone(), ask)),
            nodes,
            under_way: if serves { UNDER_WAY } else { BESIDE },
        })
    }
}

#[async_trait]
impl penstock_pods::Rotation for Rotation {
    async fn left(&self, uid: &str) -> bool {
        let Some(up_to) = self.endpoints.left(uid).await else { return false };
        // Without a proxy this node sends nothing anywhere; the others may.
        if self.programs.proxy().is_some() {
            self.programmed.reached(up_to).await;
        }
        self.peers.reached(up_to).await;
        tokio::time::sleep(self.under_way).await;
        true
    }

    async fn answer(&self, question: &Question) -> Option<Answer> {
        self.programs.proxy()?;
        let Question { up_to, nodes, within } = question;
        let own = async { tokio::time::timeout(*within, self.programmed.reached(*up_to)).await.is_ok() };
        let (_, behind) = tokio::join!(own, self.peers.behind(*up_to, nodes, *within));
        Some(Answer { up_to: self.programmed.up_to(), behind })
    }
}
