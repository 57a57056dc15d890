//! From NetworkPolicies, namespaces and pods to the kernel; and the gate at which a pod waits for its own.
//!
//! It exists to say when: a change at once, what comes meanwhile together; pods are watched only while there is a policy, for they are
//! many. A pod that starts is let go on when what selects it is in force, or is refused, and tried again, when that takes
//! too long. It must not know what a policy means; `penstock_policy` does.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc as answers;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use penstock_dataplane::{Dataplane, PoliciesWritten};
use penstock_network::{PodLink, PodRanges};
use penstock_policy::{Labels, NamedPort, Planner, Pod, PodName, Policy, Protocol};
use tokio::sync::{mpsc, watch as state_of};
use tokio::task::JoinHandle;

use super::EVENTS_MAX;
use super::programs::Programs;
use crate::cluster::{Event, ObjectName, PeerView, Seen, policy_view, watch};

/// How long a pod waits at its start. The runtime asks again after a refusal.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// When to try again what the kernel refused, or what had no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many changes are taken together at most before they are acted on.
const TOGETHER_MAX: usize = 4096;
/// Links that come and go and were not taken note of yet.
const ARRIVALS_MAX: usize = 1024;

/// The pods that serve a cluster's DNS elsewhere, whose place the node's own server takes: policies name them by this label.
const DNS_NAMESPACE: &str = "kube-system";
const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");
/// No pod has such a name.
const DNS_NAME: &str = ":cluster-dns";
const DNS_PORT: u16 = 53;

/// Where pods wait; clones share it.
#[derive(Clone)]
pub struct Gate {
    arrivals: mpsc::Sender<Arrival>,
}

/// A link that came or went.
#[derive(Debug)]
pub enum Arrival {
    /// With whoever waits for it, if somebody does.
    Came(u32, PodName, Option<answers::Sender<Result<(), String>>>),
    Went(u32),
    /// All that are there came.
    AllCame,
}

/// A gate, and what comes through it.
pub fn gate() -> (Gate, mpsc::Receiver<Arrival>) {
    let (arrivals, come) = mpsc::channel(ARRIVALS_MAX);
    (Gate { arrivals }, come)
}

/// One thing learnt.
#[derive(Debug)]
enum Change {
    Policy(Event<Policy>),
    Namespace(Event<Labels>),
    Pod(Event<PeerView>),
}

/// Who has the kernel know policies.
pub struct Enforcing {
    pub client: kube::Client,
    pub node: String,
    pub dns_ips: Vec<IpAddr>,
    pub programs: Arc<Programs>,
    /// Known when every link that is there was handed to the programs, if they were there.
    pub ranges: state_of::Receiver<Option<PodRanges>>,
}

/// What is known, and who waits.
struct State {
    planner: Planner,
    policies_listed: bool,
    namespaces_listed: bool,
    pods_listed: bool,
    links_listed: bool,
    /// The watch of pods, while there is a policy.
    pods: Option<JoinHandle<()>>,
    waiting: Vec<Waiting>,
    /// Whether the planner knows what the maps hold.
    recovered: bool,
    /// Whether something may have to be written.
    due: bool,
    /// What had no room was told of.
    told: bool,
}

/// Somebody at the gate.
struct Waiting {
    pod: PodName,
    until: Instant,
    tells: answers::Sender<Result<(), String>>,
}

// === impl Gate ===

impl Gate {
    /// Takes note of a pod's link. A pod that starts waits until the policies that select it are in force. To be called where
    /// one may block.
    pub fn admit(&self, link: &PodLink) -> Result<(), String> {
        let pod = PodName::new(link.namespace.as_str(), link.pod.as_str());
        let (tells, told) = answers::channel();
        let arrival = Arrival::Came(link.ifindex, pod, link.begins.then_some(tells));
        if self.arrivals.blocking_send(arrival).is_err() || !link.begins {
            // The agent is about to end, or nobody waits: what is in force stays.
            return Ok(());
        }
        match told.recv_timeout(WAIT_MAX) {
            Ok(outcome) => outcome,
            Err(_) => Err(format!(
                "the network policies of {}/{} are not known after {} seconds: is the API server reached?",
                link.namespace,
                link.pod,
                WAIT_MAX.as_secs()
            )),
        }
    }

    /// Takes note that all links that are there came: tables of others are nobody's.
    pub async fn all_came(&self) {
        let _ = self.arrivals.send(Arrival::AllCame).await;
    }

    /// Takes note that a link is gone. To be called where one may block.
    pub fn forget(&self, link: u32) {
        let _ = self.arrivals.blocking_send(Arrival::Went(link));
    }
}

// === impl Enforcing ===

impl Enforcing {
    /// Runs until nobody comes any more. Writes to the kernel where it runs, so not among other tasks.
    pub async fn run(mut self, mut arrivals: mpsc::Receiver<Arrival>) {
        let (events, mut changes) = mpsc::channel(EVENTS_MAX);
        let policies = Api::<NetworkPolicy>::all(self.client.clone());
        let following =
            tokio::spawn(watch(policies, "NetworkPolicies", policy_view, Change::Policy, events.clone()));
        let namespaces = Api::<core::Namespace>::all(self.client.clone());
        let labels = |it: core::Namespace| it.metadata.labels.unwrap_or_default();
        let naming = tokio::spawn(watch(namespaces, "Namespaces", labels, Change::Namespace, events.clone()));
        let mut state = State {
            planner: Planner::default(),
            policies_listed: false,
            namespaces_listed: false,
            pods_listed: false,
            links_listed: false,
            pods: None,
            waiting: Vec::new(),
            recovered: false,
            due: true,
            told: false,
        };
        state.planner.set_pod(PodName::new(DNS_NAMESPACE, DNS_NAME), Some(dns(&self.dns_ips)));
        loop {
            let is_loaded = self.programs.get().is_some();
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => state.see(change),
                    None => break,
                },
                arrival = arrivals.recv() => match arrival {
                    Some(arrival) => state.arrive(arrival),
                    None => break,
                },
                Ok(()) = self.ranges.changed() => {
                    // Where the programs come later the links are handed to them again, and then all came.
                    state.links_listed |= is_loaded && self.ranges.borrow_and_update().is_some();
                }
                _ = self.programs.wait(), if !is_loaded => state.due = true,
                () = tokio::time::sleep(RETRY_AFTER), if is_loaded && state.is_complete() && state.due => {}
            }
            for _ in 0..TOGETHER_MAX {
                match (changes.try_recv(), arrivals.try_recv()) {
                    (Err(_), Err(_)) => break,
                    (change, arrival) => {
                        change.into_iter().for_each(|it| state.see(it));
                        arrival.into_iter().for_each(|it| state.arrive(it));
                    }
                }
            }
            state.watch_pods(&self.client, &events);
            if state.is_complete()
                && let Some(dataplane) = self.programs.get()
            {
                self.write(&mut state, &dataplane).await;
            }
        }
        following.abort();
        naming.abort();
        state.pods.into_iter().for_each(|it| it.abort());
    }

    async fn write(&self, state: &mut State, dataplane: &Dataplane) {
        let began = Instant::now();
        let written = state.write(dataplane);
        state.due = written.is_err();
        match written {
            Ok((operations, written)) => {
                if operations > 0 {
                    tracing::debug!(operations, took = ?began.elapsed(), "network policies are in force");
                }
                state.let_go();
                if written == PoliciesWritten::default() {
                    state.told &= operations == 0;
                } else if self.programs.grow().await {
                    // What found no room is said again.
                    (state.recovered, state.due) = (false, true);
                } else if !std::mem::replace(&mut state.told, true) {
                    self.tell_shortage(&written).await;
                }
            }
            Err(error) => {
                tracing::error!("network policies are not all in force: {error}");
                state.recovered = false;
                for waiting in state.waiting.drain(..) {
                    let _ = waiting
                        .tells
                        .send(Err(format!("its network policies could not be put in force: {error}")));
                }
            }
        }
    }

    /// Tells of what has no room, as an event of the node.
    async fn tell_shortage(&self, written: &PoliciesWritten) {
        let message = format!(
            "network policies allow less than they say: {} addresses of pods and {} ranges have no room in the kernel's maps, \
             {} pods have too much to look up. Use fewer and wider rules",
            written.unplaced.len(),
            written.unplaced_blocks.len(),
            written.too_large.len()
        );
        tracing::error!("{message}");
        let now = Timestamp::now();
        let event = core::Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:016x}", self.node, now.as_nanosecond() as u64)),
                namespace: Some("default".to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: core::ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(self.node.clone()),
                ..core::ObjectReference::default()
            },
            reason: Some("NetworkPoliciesIncomplete".to_owned()),
            message: Some(message),
            type_: Some("Warning".to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(core::EventSource {
                component: Some("penstock-network-policy".to_owned()),
                host: Some(self.node.clone()),
            }),
            ..core::Event::default()
        };
        let events: Api<core::Event> = Api::namespaced(self.client.clone(), "default");
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::debug!(%error, "no event about network policies");
        }
    }
}

// === impl State ===

impl State {
    /// Whether all is known that policies need.
    fn is_complete(&self) -> bool {
        self.policies_listed
            && self.namespaces_listed
            && self.links_listed
            && (self.pods_listed || !self.planner.has_policies())
    }

    fn see(&mut self, change: Change) {
        self.due = true;
        let planner = &mut self.planner;
        match change {
            Change::Policy(Event::Is(name, policy)) => planner.set_policy(pod_name(name), Some(policy)),
            Change::Policy(Event::Gone(name)) => planner.set_policy(pod_name(name), None),
            Change::Policy(Event::All(all)) => {
                self.policies_listed = true;
                for gone in others(planner.policies(), all) {
                    planner.set_policy(gone, None);
                }
            }
            Change::Namespace(Event::Is(name, labels)) => planner.set_namespace(name.name, Some(labels)),
            Change::Namespace(Event::Gone(name)) => planner.set_namespace(name.name, None),
            Change::Namespace(Event::All(all)) => {
                self.namespaces_listed = true;
                let all: BTreeSet<_> = all.into_iter().map(|it| it.name).collect();
                let gone: Vec<_> = planner.namespaces().filter(|it| !all.contains(*it)).cloned().collect();
                gone.into_iter().for_each(|it| planner.set_namespace(it, None));
            }
            Change::Pod(_) if self.pods.is_none() => {}
            Change::Pod(Event::Is(name, PeerView(pod))) => planner.set_pod(pod_name(name), pod),
            Change::Pod(Event::Gone(name)) => planner.set_pod(pod_name(name), None),
            Change::Pod(Event::All(all)) => {
                self.pods_listed = true;
                forget_pods(planner, all);
            }
            Change::Policy(Event::Listing)
            | Change::Namespace(Event::Listing)
            | Change::Pod(Event::Listing) => {}
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        self.due = true;
        match arrival {
            Arrival::Came(link, pod, waits) => {
                self.planner.set_link(link, Some(pod.clone()));
                let until = Instant::now() + WAIT_MAX;
                self.waiting.extend(waits.map(|tells| Waiting { pod, until, tells }));
            }
            Arrival::Went(link) => self.planner.set_link(link, None),
            Arrival::AllCame => self.links_listed = true,
        }
    }

    /// Pods are watched while there is a policy.
    fn watch_pods(&mut self, client: &kube::Client, events: &mpsc::Sender<Change>) {
        if self.planner.has_policies() && self.pods.is_none() {
            let pods = Api::<Seen<core::Pod, PeerView>>::all(client.clone());
            let watching = watch(pods, "Pods", Seen::into_view, Change::Pod, events.clone());
            self.pods = Some(tokio::spawn(watching));
        } else if self.policies_listed
            && !self.planner.has_policies()
            && let Some(watching) = self.pods.take()
        {
            watching.abort();
            self.pods_listed = false;
            forget_pods(&mut self.planner, BTreeSet::new());
        }
    }

    /// Has the maps hold what they should. Returns how much was to be written, and what had no room.
    fn write(&mut self, dataplane: &Dataplane) -> Result<(usize, PoliciesWritten), String> {
        let failed = |error| format!("{:#}", anyhow::Error::from(error));
        if !self.recovered {
            self.planner.doubt(dataplane.observe_policies().map_err(failed)?);
            self.recovered = true;
        }
        let operations = self.planner.plan();
        let written = dataplane.write_policies(&operations).map_err(failed)?;
        Ok((operations.len(), written))
    }

    /// Lets those go on that have nothing to wait for any more.
    fn let_go(&mut self) {
        let planner = &self.planner;
        let now = Instant::now();
        self.waiting.retain(|Waiting { pod, until, tells }| {
            let is_ready = planner.knows(pod) || !planner.has_policies_in(&pod.namespace);
            if is_ready {
                let _ = tells.send(Ok(()));
            }
            // Whoever waited as long has given up.
            !is_ready && *until > now
        });
    }
}

/// The node's own DNS server, as the pods that policies expect in its place.
fn dns(addresses: &[IpAddr]) -> Pod {
    let port = |name: &str, protocol| NamedPort { name: name.to_owned(), protocol, port: DNS_PORT };
    Pod {
        labels: [(DNS_LABEL.0.to_owned(), DNS_LABEL.1.to_owned())].into(),
        addresses: addresses.to_vec(),
        ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
    }
}

fn pod_name(name: ObjectName) -> PodName {
    PodName { namespace: name.namespace, name: name.name }
}

/// Those that are not among all.
fn others<'a>(known: impl Iterator<Item = &'a PodName>, all: BTreeSet<ObjectName>) -> Vec<PodName> {
    let all: BTreeSet<_> = all.into_iter().map(pod_name).collect();
    known.filter(|it| !all.contains(*it)).cloned().collect()
}

fn forget_pods(planner: &mut Planner, but: BTreeSet<ObjectName>) {
    for gone in others(planner.pods(), but) {
        if gone.name != DNS_NAME {
            planner.set_pod(gone, None);
        }
    }
}
