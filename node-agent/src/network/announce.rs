//! From Services and Nodes to the addresses this node may announce, and word of those it does.
//!
//! It exists to bring together what others know: which addresses there are, which nodes live, whether the programs serve
//! already. Word is an annotation on the Node, written when something changed; the election itself never asks the API
//! server. It must not know how a holder is found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use penstock_announce::{Announcer, Answerer, Held, NodeName, Timing, Wanted};
use penstock_dataplane::{Announcements, DataplaneError, Station};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::programs::Programs;
use crate::cluster::{Event, NodeView, ObjectName, StationView};
use crate::desired::Announced;

/// The Node's annotation that says which addresses it announces, and since when.
const ANNOTATION: &str = "penstock.io/announces";
/// An annotation is not to fill the object it is on.
const SAID_MAX: usize = 1024;
/// Pause after word could not be left.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Pause between attempts to announce at all.
const REOPEN_AFTER: Duration = Duration::from_secs(5);

/// What is known so far; clones share it.
#[derive(Clone, Default)]
pub struct Announcing {
    known: Arc<Mutex<Known>>,
    wanted: watch::Sender<Option<Arc<Wanted>>>,
}

#[derive(Debug, Default)]
struct Known {
    services: BTreeMap<ObjectName, Announced>,
    nodes: BTreeMap<String, StationView>,
    nodes_listed: bool,
    /// Whether the kernel serves what is known of Services.
    is_served: bool,
}

/// A Node as the two see it who watch them.
pub fn views(node: Node) -> (NodeView, StationView) {
    let station = StationView::from(&node);
    (node.into(), station)
}

// === impl Announcing ===

impl Announcing {
    /// Says what Services are now; `None` for one that has nothing to announce.
    pub fn set<'a>(&self, services: impl Iterator<Item = (&'a ObjectName, Option<Announced>)>) {
        self.change(|known| {
            let mut differs = false;
            for (name, announced) in services {
                differs |= known.services.get(name) != announced.as_ref();
                match announced {
                    Some(announced) => drop(known.services.insert(name.clone(), announced)),
                    None => drop(known.services.remove(name)),
                }
            }
            differs
        });
    }

    /// Says that the kernel serves the Services, after all of them were set.
    pub fn served(&self) {
        self.change(|known| !std::mem::replace(&mut known.is_served, true));
    }

    /// Hands what is learnt of Nodes to both who want it, until the watch ends.
    pub async fn follow_nodes(
        self,
        mut events: mpsc::Receiver<Event<(NodeView, StationView)>>,
        routes: mpsc::Sender<Event<NodeView>>,
    ) {
        while let Some(event) = events.recv().await {
            let event = match event {
                Event::Is(name, (view, station)) => {
                    self.see_node(&name, station);
                    Event::Is(name, view)
                }
                Event::Gone(name) => {
                    self.change(|known| known.nodes.remove(&name.name).is_some());
                    Event::Gone(name)
                }
                Event::Listing => Event::Listing,
                Event::All(all) => {
                    self.change(|known| {
                        let before = known.nodes.len();
                        known.nodes.retain(|name, _| {
                            all.contains(&ObjectName { namespace: String::new(), name: name.clone() })
                        });
                        !std::mem::replace(&mut known.nodes_listed, true) || known.nodes.len() != before
                    });
                    Event::All(all)
                }
            };
            if routes.send(event).await.is_err() {
                return;
            }
        }
    }

    fn see_node(&self, name: &ObjectName, station: StationView) {
        // A Node's status changes all the time; this of it hardly ever.
        self.change(|known| {
            let differs = known.nodes.get(&name.name) != Some(&station);
            known.nodes.insert(name.name.clone(), station);
            differs
        });
    }

    /// Changes what is known, and says what follows if it is different.
    fn change(&self, change: impl FnOnce(&mut Known) -> bool) {
        let mut known = self.known.lock();
        if change(&mut known) && known.nodes_listed && known.is_served {
            let wanted = plan_wanted(&known.services, &known.nodes);
            self.wanted.send_if_modified(|before| {
                let differs = before.as_deref() != Some(&wanted);
                *before = Some(Arc::new(wanted));
                differs
            });
        }
    }

    /// Announces until `shutdown`, in a thread of its own, once the programs are loaded.
    pub async fn run(
        self,
        programs: Arc<Programs>,
        announcer: Announcer,
        client: kube::Client,
        shutdown: CancellationToken,
    ) {
        let Some(dataplane) = shutdown.run_until_cancelled(programs.wait()).await else { return };
        let held = watch::Sender::new(Held::default());
        tokio::spawn(leave_word(client, announcer.node.clone(), held.subscribe(), shutdown.clone()));
        let mut said = false;
        while !shutdown.is_cancelled() {
            let outcome = match dataplane.announcements() {
                Ok(map) => {
                    let (wanted, held, stop) = (self.wanted.subscribe(), held.clone(), shutdown.clone());
                    in_thread(announcer.clone(), map, wanted, held, stop).await
                }
                Err(error) => Err(error.into()),
            };
            if let Err(error) = outcome
                && !std::mem::replace(&mut said, true)
            {
                tracing::error!("load-balancer addresses are not announced by this node: {error:#}");
            }
            shutdown.run_until_cancelled(tokio::time::sleep(REOPEN_AFTER)).await;
        }
    }
}

/// Runs the election where nothing else runs.
async fn in_thread(
    announcer: Announcer,
    map: Announcements,
    mut wanted: watch::Receiver<Option<Arc<Wanted>>>,
    held: watch::Sender<Held>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    wanted.mark_changed();
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("announce".into()).spawn(move || {
        let ran =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from);
        let ran = ran.and_then(|runtime| {
            let map = Map(map);
            Ok(runtime.block_on(penstock_announce::run(announcer, map, wanted, held, shutdown))?)
        });
        let _ = done.send(ran);
    })?;
    outcome.await.unwrap_or_else(|_| Err(anyhow::anyhow!("the thread panicked")))
}

/// Says on the Node what it announces, as soon as it can be said.
async fn leave_word(
    client: kube::Client,
    node: NodeName,
    mut held: watch::Receiver<Held>,
    shutdown: CancellationToken,
) {
    let nodes: Api<Node> = Api::all(client);
    held.mark_changed();
    while let Some(Ok(())) = shutdown.run_until_cancelled(held.changed()).await {
        loop {
            let patch = word(&held.borrow_and_update());
            match nodes.patch_metadata(&node, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => break,
                Err(error) => tracing::debug!(%error, "the Node does not say yet what it announces"),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(RETRY_AFTER)).await.is_none() {
                return;
            }
        }
    }
}

fn word(held: &Held) -> serde_json::Value {
    let said: BTreeMap<String, String> = held
        .iter()
        .take(SAID_MAX)
        .map(|(address, since)| {
            let since = k8s_openapi::jiff::Timestamp::try_from(*since).unwrap_or_default();
            (address.to_string(), format!("{since:.3}"))
        })
        .collect();
    let said = (!said.is_empty()).then(|| json!(said).to_string());
    json!({ "metadata": { "annotations": { ANNOTATION: said } } })
}

/// Who may announce what. Nodes that are not ready or excluded may not; if none is ready, the cluster knows less than the
/// network, and readiness is not asked for.
fn plan_wanted(services: &BTreeMap<ObjectName, Announced>, nodes: &BTreeMap<String, StationView>) -> Wanted {
    let of = |which: &dyn Fn(&StationView) -> bool| -> BTreeSet<NodeName> {
        let found = nodes.iter().filter(|(_, node)| node.address.is_some() && !node.excluded && which(node));
        found.map(|(name, _)| NodeName::from(name.as_str())).collect()
    };
    let mut able = of(&|node| node.ready);
    if able.is_empty() {
        able = of(&|_| true);
    }
    let able = Arc::new(able);
    let mut addresses: BTreeMap<IpAddr, Arc<BTreeSet<NodeName>>> = BTreeMap::new();
    for service in services.values() {
        let may = match &service.nodes {
            None => able.clone(),
            Some(only) => Arc::new(able.iter().filter(|node| only.contains(&***node)).cloned().collect()),
        };
        for address in &service.addresses {
            // Services that share an address are all to be reached by its holder.
            addresses
                .entry(*address)
                .and_modify(|shared| {
                    if !Arc::ptr_eq(shared, &may) {
                        *shared = Arc::new(shared.intersection(&may).cloned().collect());
                    }
                })
                .or_insert_with(|| may.clone());
        }
    }
    let nodes = nodes.iter().filter_map(|(name, node)| Some((NodeName::from(name.as_str()), node.address?)));
    Wanted { nodes: nodes.collect(), addresses }
}

/// The programs' map as the one who answers.
struct Map(Announcements);

// === impl Map ===

impl Answerer for Map {
    type Error = DataplaneError;

    fn put(&mut self, address: IpAddr, ifindex: u32, mac: [u8; 6]) -> Result<(), DataplaneError> {
        self.0.put(address, Station { ifindex, mac })
    }

    fn remove(&mut self, address: IpAddr) -> Result<(), DataplaneError> {
        self.0.remove(address)
    }

    fn renew(&mut self, lease: Duration) -> Result<(), DataplaneError> {
        self.0.renew(lease)
    }

    fn list(&self) -> Result<Vec<IpAddr>, DataplaneError> {
        Ok(self.0.list()?.into_iter().map(|(address, _)| address).collect())
    }
}

/// Who this node is to the others.
pub fn announcer(node: &str, node_ip: IpAddr, port: u16, ifindex: u32) -> Announcer {
    Announcer { node: node.into(), node_ip, port, ifindex, timing: Timing::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn station(last: u8, ready: bool, excluded: bool) -> StationView {
        StationView { address: Some([10, 240, 0, last].into()), ready, excluded }
    }

    fn service(nodes: Option<&[&str]>) -> Announced {
        let nodes = nodes.map(|nodes| nodes.iter().map(|node| (*node).to_owned()).collect());
        Announced { addresses: vec![[10, 240, 0, 200].into()], nodes }
    }

    fn may(services: &[Announced], nodes: &[(&str, StationView)]) -> Vec<String> {
        let name = |at: usize| ObjectName { namespace: "a".into(), name: at.to_string() };
        let services = services.iter().enumerate().map(|(at, it)| (name(at), it.clone())).collect();
        let nodes = nodes.iter().map(|(name, node)| ((*name).to_owned(), node.clone())).collect();
        let wanted = plan_wanted(&services, &nodes);
        let address = IpAddr::from([10, 240, 0, 200]);
        wanted.addresses[&address].iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nodes_that_are_ready_and_not_excluded_may_announce() {
        let nodes = [
            ("a", station(11, true, false)),
            ("b", station(12, false, false)),
            ("c", station(13, true, true)),
            ("d", StationView { ready: true, ..StationView::default() }),
        ];
        assert_eq!(may(&[service(None)], &nodes), ["a"]);
    }

    #[test]
    fn if_no_node_is_ready_readiness_is_not_asked_for() {
        let nodes = [("a", station(11, false, false)), ("b", station(12, false, true))];
        assert_eq!(may(&[service(None)], &nodes), ["a"]);
    }

    #[test]
    fn with_the_local_policy_only_nodes_with_endpoints_may() {
        let nodes = [("a", station(11, true, false)), ("b", station(12, true, false))];
        assert_eq!(may(&[service(Some(&["b", "gone"]))], &nodes), ["b"]);
        assert_eq!(may(&[service(Some(&["b"])), service(None)], &nodes), ["b"], "whoever shares the address");
        assert!(may(&[service(Some(&[]))], &nodes).is_empty());
    }

    #[test]
    fn word_says_what_is_held_since_when_or_takes_itself_back() {
        let since = std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let held = Held::from([([10, 240, 0, 200].into(), since)]);
        let said = word(&held)["metadata"]["annotations"][ANNOTATION].clone();
        assert_eq!(said, r#"{"10.240.0.200":"1970-01-01T00:00:01.500Z"}"#);
        assert!(word(&Held::default())["metadata"]["annotations"][ANNOTATION].is_null());
    }
}
