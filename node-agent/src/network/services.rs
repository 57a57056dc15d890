//! From changes of Services and slices to the kernel, to DNS, to ingress and to health checks.
//!
//! It exists to say when: the kernel first and at once, since connections wait for it; what comes meanwhile is taken
//! together, so that a rollout is a handful of map updates. It must not know the API's rules; `desired` does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use penstock_dataplane::{Applied, Choice, Forwarding, Listing, NodeFacts, ServiceChange, ServiceKey};
use penstock_fallback::Trouble;
use penstock_network::Attachment;
use penstock_process::memory;
use tokio::sync::{mpsc, watch};

use super::addresses::NodeAddresses;
use super::announce::Announcing;
use super::condition::Condition;
use super::health_checks::HealthChecks;
use super::ingress::Upstreams;
use super::metrics::Programming;
use super::names::Names;
use super::problems::{About, Problems, Source};
use super::programmed::Programmed;
use super::programs::Programs;
use super::proxy::{Kind, Proxy};
use super::proxy_health::ProxyHealth;
use crate::cluster::{Event, ObjectName, OwnNodeView, ServiceView, SliceView};
use crate::desired::{Problem, Services, compile_host_ports, service_name};
use crate::rotation::OwnEndpoints;

/// When to try again what the kernel refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many changes are taken together at most before they are acted on.
const TOGETHER_MAX: usize = 4096;
/// How many Services are written at once; of all of them, what is in between need not be in memory.
const SERVICES_AT_ONCE: usize = 2048;

/// One thing learnt.
#[derive(Debug)]
pub enum Change {
    /// About a Service.
    Service(Event<ServiceView>),
    /// About a slice.
    Slice(Event<SliceView>),
    /// About this node.
    Own(Event<OwnNodeView>),
}

/// What is kept up to date, and for which node.
pub struct Plane {
    /// Whether Services are served here, and not by somebody else beside this agent.
    pub serves: bool,
    pub node: String,
    pub node_ips: Vec<IpAddr>,
    /// Where NodePorts are served.
    pub node_addresses: NodeAddresses,
    pub dns_ips: Vec<IpAddr>,
    pub choice: Choice,
    pub forwarding: Forwarding,
    pub programs: Arc<Programs>,
    /// The bpf file system.
    pub bpffs: PathBuf,
    pub programmed: Programmed,
    /// Where it is noted which of this node's pods get new connections.
    pub endpoints: OwnEndpoints,
    pub condition: Condition,
    pub problems: Problems,
    /// What the proxy in user space does not serve.
    pub troubles: watch::Receiver<Arc<Vec<Trouble>>>,
    pub health_checks: HealthChecks,
    pub proxy_health: ProxyHealth,
    pub programming: Programming,
    pub zone: Names,
    /// Where ingress is served.
    pub upstreams: Option<Upstreams>,
    /// By which nodes addresses of load balancers are announced.
    pub announcing: Announcing,
    pub attachments: watch::Receiver<Arc<Vec<Attachment>>>,
}

/// What the kernel is to be told.
#[derive(Debug, Default)]
struct Pending {
    /// Services that changed since it was told.
    services: BTreeSet<ObjectName>,
    /// Whether it is to be told everything: at first, and after an error.
    whole: bool,
    /// Whether host ports may have changed.
    host_ports: bool,
}

/// Runs until the watches end. Writes to the kernel where it runs, so not among other tasks: to hand each change to
/// another thread and to be woken when it is done costs more than most changes.
pub async fn run(mut plane: Plane, mut changes: mpsc::Receiver<Change>) {
    let mut services = Services::new(plane.choice, plane.forwarding);
    let mut host_ports: BTreeMap<(String, String), ServiceChange> = BTreeMap::new();
    let mut pending = Pending { whole: true, ..Pending::default() };
    let (mut served_by, mut troubled) = (None, BTreeSet::new());
    let began = Timestamp::now();
    loop {
        let waited_for = if pending.is_due() { None } else { served_by };
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => plane.see(&mut services, change),
                None => return,
            },
            Ok(()) = plane.attachments.changed() => pending.host_ports = true,
            Ok(()) = plane.node_addresses.changed() => pending.whole = true,
            // The programs came late, or refused what was desired.
            () = plane.programs.wait_for_other_than(waited_for), if services.is_complete() => {}
            Ok(()) = plane.troubles.changed() => {}
        }
        for _ in 0..TOGETHER_MAX {
            match changes.try_recv() {
                Ok(change) => plane.see(&mut services, change),
                Err(_) => break,
            }
        }
        if !services.is_complete() {
            continue;
        }
        let dirty = services.take_dirty();
        pending.services.extend(dirty.iter().cloned());
        plane.proxy_health.set_leaving(services.own().leaving);
        if pending.is_due() {
            plane.proxy_health.waits();
        }
        // Asked before the kernel knows: who asks is to hear of an endpoint that goes as early as can be.
        if plane.serves {
            plane.check(&services, &dirty);
        }
        let (mut served, mut whole_is_told) = (false, false);
        if let Some(proxy) = plane.programs.proxy() {
            // Who just came knows nothing, or what an earlier agent knew.
            pending.whole |= served_by.is_some_and(|kind| kind != proxy.kind());
            let mut told = Vec::new();
            if pending.host_ports || pending.whole {
                told = plane.host_ports(&mut host_ports, pending.whole);
            }
            let up_to = services.seen_up_to();
            let facts = plane.facts();
            let whole = pending.whole;
            let started = Instant::now();
            let is_due = pending.is_due() || !told.is_empty();
            match plane.tell(&proxy, &services, &pending, &facts, told).await {
                Ok(left) => {
                    if is_due {
                        plane.programming.done(started.elapsed());
                    }
                    // What changed before was another agent's to bring.
                    let changed_at = services.take_changed_at().into_iter();
                    plane.programming.arrived(changed_at.filter(|at| *at > began));
                    pending = left;
                    whole_is_told = whole;
                    plane.programmed.note(up_to);
                    plane.proxy_health.updated(Timestamp::now());
                    if served_by.replace(proxy.kind()) != Some(proxy.kind()) {
                        plane.programs.relieve_other_than(proxy.kind(), &plane.bpffs).await;
                    }
                    plane.note_troubles(&services, &mut troubled);
                    served = proxy.kind() == Kind::Programs;
                }
                Err(()) => {
                    plane.programming.failed();
                    pending = Pending { whole: true, ..Pending::default() };
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
        plane.name(&services, &dirty);
        if served {
            plane.announcing.served();
        }
        if whole_is_told {
            // The first lists, and what was made of all they hold, took several times what is kept.
            tokio::task::spawn_blocking(memory::give_back);
        }
    }
}

// === impl Pending ===

impl Pending {
    /// Whether there is something to tell without anything new.
    fn is_due(&self) -> bool {
        self.whole || !self.services.is_empty()
    }
}

// === impl Plane ===

impl Plane {
    fn see(&self, services: &mut Services, change: Change) {
        match change {
            Change::Service(event) => services.see_service(event),
            Change::Slice(mut event) => {
                self.endpoints.see(&mut event);
                services.see_slice(event);
            }
            Change::Own(event) => services.see_own(event),
        }
    }

    fn facts(&mut self) -> NodeFacts {
        let node_addresses = self.node_addresses.borrow_and_update().to_vec();
        NodeFacts { node_addresses, never_translated: self.dns_ips.iter().copied().collect() }
    }

    /// What is different about host ports now, or all of them.
    fn host_ports(
        &mut self,
        known: &mut BTreeMap<(String, String), ServiceChange>,
        whole: bool,
    ) -> Vec<ServiceChange> {
        let attachments = self.attachments.borrow_and_update().clone();
        let now = compile_host_ports(&attachments, &self.node_ips);
        let now = now.into_iter().map(|pod| ((pod.namespace.clone(), pod.name.clone()), pod));
        let now: BTreeMap<_, _> = now.collect();
        let gone = known.keys().filter(|name| !now.contains_key(name));
        let gone = gone.map(|(namespace, name)| ServiceChange {
            namespace: namespace.clone(),
            name: name.clone(),
            ports: BTreeMap::new(),
        });
        let mut changes: Vec<_> = gone.collect();
        changes.extend(
            now.iter().filter(|(name, pod)| whole || known.get(*name) != Some(*pod)).map(|it| it.1.clone()),
        );
        *known = now;
        changes
    }

    /// Has the kernel know what is pending, and `told` with it. Returns what had no room before and has now, which may be so
    /// because the maps became larger.
    async fn tell(
        &self,
        proxy: &Proxy,
        services: &Services,
        pending: &Pending,
        facts: &NodeFacts,
        mut told: Vec<ServiceChange>,
    ) -> Result<Pending, ()> {
        let names: Box<dyn Iterator<Item = &ObjectName> + Send> = match pending.whole {
            _ if !self.serves => Box::new(std::iter::empty()),
            true => Box::new(services.names()),
            false => Box::new(pending.services.iter()),
        };
        let mut names = names.peekable();
        if names.peek().is_none() && told.is_empty() && !pending.whole {
            return Ok(Pending::default());
        }
        loop {
            told.extend(names.by_ref().take(SERVICES_AT_ONCE).map(|name| services.compile(name, &self.node)));
            let is_last = names.peek().is_none();
            let listing = if is_last && pending.whole { Listing::Complete } else { Listing::Unfinished };
            let told_of: BTreeSet<_> =
                told.iter().map(|it| (it.namespace.clone(), it.name.clone())).collect();
            let applied = proxy.apply(std::mem::take(&mut told), facts, listing).await?;
            self.note_conflicts(services, told_of, &applied);
            if is_last {
                if !applied.unplaced.is_empty() && self.programs.grow().await {
                    // Host ports are told again with everything else.
                    let whole = applied.unplaced.iter().any(|key| key.name.contains('/'));
                    let services = applied.unplaced.into_iter().map(object_name).collect();
                    return Ok(Pending { services, whole, ..Pending::default() });
                }
                let shortage = shortage(&applied.unplaced);
                if let (Some(message), true) = (&shortage, self.condition.set_shortage(shortage.clone())) {
                    tracing::warn!("{message}");
                }
                // Host ports, whose names are no object's, are told again when they change.
                let waiting = applied.unplaced.into_iter().filter(|key| !key.name.contains('/'));
                let waiting = waiting.filter(|_| applied.has_room);
                return Ok(Pending { services: waiting.map(object_name).collect(), ..Pending::default() });
            }
        }
    }

    /// Notes which addresses of these Services, and of those that changes affected, lead elsewhere, and what has no room.
    fn note_conflicts(&self, services: &Services, told_of: BTreeSet<(String, String)>, applied: &Applied) {
        let mut wrong: BTreeMap<(String, String), Vec<Problem>> =
            told_of.into_iter().chain(applied.affected.iter().cloned()).map(|name| (name, vec![])).collect();
        for (loser, address, port) in &applied.conflicts {
            if loser.name.contains('/') {
                tracing::warn!("{loser} is not reached by {address} port {port}: a Service has it");
            }
            let name = (loser.namespace.clone(), loser.name.clone());
            wrong.entry(name).or_default().push(Problem::conflict(*address, *port));
        }
        for key in &applied.unplaced {
            if let Some(wrong) = wrong.get_mut(&(key.namespace.clone(), key.name.clone())) {
                wrong.push(Problem::no_room(&self.node));
            }
        }
        for ((namespace, name), wrong) in wrong {
            let name = ObjectName { namespace, name };
            if let Some(uid) = services.uid(&name) {
                self.problems.set(About { uid: uid.to_owned(), name }, Source::Maps, wrong);
            }
        }
    }

    /// Notes what the proxy in user space does not serve; `troubled` are the Services that had something before.
    fn note_troubles(&mut self, services: &Services, troubled: &mut BTreeSet<ObjectName>) {
        let mut wrong: BTreeMap<_, Vec<Problem>> =
            std::mem::take(troubled).into_iter().map(|name| (name, vec![])).collect();
        for trouble in self.troubles.borrow_and_update().iter() {
            let ServiceKey { namespace, name, .. } = trouble.service.clone();
            let name = ObjectName { namespace, name };
            wrong.entry(name.clone()).or_default().push(Problem::not_served(&self.node, trouble));
            troubled.insert(name);
        }
        for (name, wrong) in wrong {
            if let Some(uid) = services.uid(&name) {
                self.problems.set(About { uid: uid.to_owned(), name }, Source::Userspace, wrong);
            }
        }
    }

    /// Has those who ask after endpoints, and those who wrote Services, know these.
    fn check(&self, services: &Services, dirty: &BTreeSet<ObjectName>) {
        for name in dirty {
            let uid = services.uid(name).unwrap_or_default();
            self.health_checks.set(name, uid, services.compile_health(name, &self.node));
            match services.uid(name) {
                Some(uid) => {
                    let about = About { name: name.clone(), uid: uid.to_owned() };
                    self.problems.set(about, Source::Objects, services.problems(name));
                }
                None => self.problems.forget(name),
            }
        }
    }

    /// Has DNS, ingress and whoever announces addresses know these Services.
    fn name(&self, services: &Services, dirty: &BTreeSet<ObjectName>) {
        self.zone.set(dirty.iter().map(|name| (service_name(name), services.compile_record(name))));
        self.announcing.set(dirty.iter().map(|name| (name, services.compile_announced(name))));
        if let Some(upstreams) = &self.upstreams {
            dirty.iter().for_each(|name| upstreams.set(name, services.compile_upstream(name)));
            upstreams.all_listed();
        }
    }
}

fn object_name(key: ServiceKey) -> ObjectName {
    ObjectName { namespace: key.namespace, name: key.name }
}

/// What to tell about service ports for which there is no room.
fn shortage(unplaced: &[ServiceKey]) -> Option<String> {
    let first = unplaced.first()?;
    Some(format!(
        "{} service ports do not fit, wholly or in part, such as {first}: start the node agent with a larger \
         --services-max or --service-addresses-max, or remove Services",
        unplaced.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_with_the_flags_that_help() {
        assert_eq!(shortage(&[]), None);
        let told = shortage(&[ServiceKey::new("a", "web", "http")]).unwrap();
        for part in ["1 service ports", "a/web:http", "--services-max", "--service-addresses-max"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
