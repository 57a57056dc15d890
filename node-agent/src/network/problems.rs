//! What is wrong with Services, told to their owners as events.
//!
//! It exists so that each problem is told once a cluster and not once a node: an event's name follows from what it says,
//! and who finds it there leaves it at that. What lasts is told again when the event may have expired. It must not know
//! what can be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::cluster::ObjectName;
use crate::desired::Problem;

/// Problems waiting to be told; more at once are told later.
const QUEUE_MAX: usize = 256;
/// How often what lasts is told again. Events are kept for an hour.
const TELL_AGAIN_EVERY: Duration = Duration::from_secs(20 * 60);
/// As much as an event's message may have.
const MESSAGE_MAX: usize = 1024;
const COMPONENT: &str = "penstock-service-proxy";
const CONFLICT: u16 = 409;

/// Who found it: each replaces only what it said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The Service and its slices as they were written.
    Objects,
    /// What the kernel's maps have of it.
    Maps,
    /// Its health check port.
    Health,
    /// The proxy in user space.
    Userspace,
}

/// Which Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    pub name: ObjectName,
    pub uid: String,
}

/// What is wrong now; clones share it.
#[derive(Clone)]
pub struct Problems {
    known: Arc<Mutex<BTreeMap<(ObjectName, Source), Known>>>,
    queue: mpsc::Sender<(About, Problem)>,
}

#[derive(Debug, Default)]
struct Known {
    uid: String,
    problems: BTreeSet<Problem>,
}

impl Problems {
    /// Nothing is wrong yet, and what tells of it as a future.
    pub fn new(client: kube::Client, node: String) -> (Self, impl Future<Output = ()> + use<>) {
        let (queue, notes) = mpsc::channel(QUEUE_MAX);
        let problems = Self { known: Arc::default(), queue };
        let telling = tell(client, node, problems.clone(), notes);
        (problems, telling)
    }

    /// Says what is wrong with a Service, as one source sees it; an empty list when nothing is.
    pub fn set(&self, about: About, source: Source, problems: impl IntoIterator<Item = Problem>) {
        let now: BTreeSet<_> = problems.into_iter().collect();
        let mut known = self.known.lock();
        let key = (about.name.clone(), source);
        let before = known.remove(&key).filter(|before| before.uid == about.uid).unwrap_or_default();
        for problem in now.difference(&before.problems) {
            let Problem { reason, message } = problem;
            tracing::warn!("Service {}/{}: {reason}: {message}", about.name.namespace, about.name.name);
            // A full queue means that much is wrong; it is told again later.
            let _ = self.queue.try_send((about.clone(), problem.clone()));
        }
        if !now.is_empty() {
            known.insert(key, Known { uid: about.uid, problems: now });
        }
    }

    /// Says that a Service is gone.
    pub fn forget(&self, name: &ObjectName) {
        let mut known = self.known.lock();
        for source in [Source::Objects, Source::Maps, Source::Health, Source::Userspace] {
            known.remove(&(name.clone(), source));
        }
    }

    fn all(&self) -> Vec<(About, Problem)> {
        let known = self.known.lock();
        let each = known.iter().flat_map(|((name, _), known)| {
            let about = About { name: name.clone(), uid: known.uid.clone() };
            known.problems.iter().map(move |problem| (about.clone(), problem.clone()))
        });
        each.collect()
    }
}

async fn tell(
    client: kube::Client,
    node: String,
    problems: Problems,
    mut notes: mpsc::Receiver<(About, Problem)>,
) {
    let mut again = tokio::time::interval(TELL_AGAIN_EVERY);
    loop {
        let notes = tokio::select! {
            note = notes.recv() => match note {
                Some(note) => vec![note],
                None => return,
            },
            _ = again.tick() => problems.all(),
        };
        for (about, problem) in notes {
            let event = event_of(&about, problem, &node, Timestamp::now());
            let api: Api<Event> = Api::namespaced(client.clone(), &about.name.namespace);
            match api.create(&PostParams::default(), &event).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == CONFLICT => {}
                Err(error) => {
                    let ObjectName { namespace, name } = &about.name;
                    tracing::debug!(%error, "no event about Service {namespace}/{name}; it is tried again later");
                }
            }
        }
    }
}

/// The event that tells of a problem. Equal problems make one event, whichever node sees them.
fn event_of(about: &About, problem: Problem, node: &str, now: Timestamp) -> Event {
    let ObjectName { namespace, name } = &about.name;
    let mut hash = Fnv::default();
    for part in [about.uid.as_str(), problem.reason, &problem.message] {
        hash.write(part.as_bytes());
        hash.write(&[0]);
    }
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:016x}", hash.finish())),
            namespace: Some(namespace.clone()),
            ..Default::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: Some(about.uid.clone()).filter(|uid| !uid.is_empty()),
            ..Default::default()
        },
        reason: Some(problem.reason.to_owned()),
        message: Some(problem.message.chars().take(MESSAGE_MAX).collect()),
        type_: Some("Warning".to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some(COMPONENT.into()), host: Some(node.to_owned()) }),
        reporting_component: Some(COMPONENT.into()),
        reporting_instance: Some(node.to_owned()),
        ..Default::default()
    }
}

/// FNV-1a, which is the same in every build on every node; the standard library's hash need not be.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
impl Problems {
    /// Problems that nobody is told of.
    pub fn untold() -> Self {
        Self { known: Arc::default(), queue: mpsc::channel(QUEUE_MAX).0 }
    }

    /// What a source says is wrong.
    pub fn known(&self, name: &ObjectName, source: Source) -> BTreeSet<Problem> {
        let known = self.known.lock();
        known.get(&(name.clone(), source)).map(|known| known.problems.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(uid: &str) -> About {
        About { name: ObjectName { namespace: "a".into(), name: "web".into() }, uid: uid.into() }
    }

    fn problem(message: &str) -> Problem {
        Problem { reason: "AddressConflict", message: message.into() }
    }

    #[test]
    fn two_nodes_make_one_event_and_another_problem_or_service_another() {
        let name = |about: &About, message: &str, node: &str| {
            event_of(about, problem(message), node, Timestamp::now()).metadata.name.unwrap()
        };
        let first = name(&about("u"), "no", "node-1");
        assert_eq!(first, name(&about("u"), "no", "node-2"));
        assert_ne!(first, name(&about("u"), "yes", "node-1"));
        assert_ne!(first, name(&about("v"), "no", "node-1"), "a Service made anew is told anew");
    }

    #[test]
    fn what_is_known_is_queued_once_and_each_source_replaces_its_own() {
        let (queue, mut notes) = mpsc::channel(8);
        let problems = Problems { known: Arc::default(), queue };
        problems.set(about("u"), Source::Maps, [problem("one"), problem("two")]);
        problems.set(about("u"), Source::Maps, [problem("one"), problem("two")]);
        problems.set(about("u"), Source::Objects, [problem("three")]);
        problems.set(about("u"), Source::Maps, [problem("two")]);
        let told = std::iter::from_fn(|| notes.try_recv().ok()).map(|(_, it)| it.message).collect::<Vec<_>>();
        assert_eq!(told, ["one", "two", "three"]);
        assert_eq!(problems.all().len(), 2);
        problems.set(about("v"), Source::Maps, [problem("two")]);
        assert!(notes.try_recv().is_ok(), "another object is told of");
        problems.forget(&about("v").name);
        assert!(problems.all().is_empty());
    }
}
