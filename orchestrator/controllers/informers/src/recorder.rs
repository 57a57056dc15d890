//! Events: what happened to an object, for people. Repeats raise a count, floods of similar messages are
//! folded into one, and an object that talks too much is silenced for a while.
//!
//! Recording never blocks a control loop: events go through a bounded queue, and are dropped when it is full.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::identity::object_reference;

const QUEUE_ENTRIES_MAX: usize = 2000;
const SERIES_ENTRIES_MAX: usize = 4096;
/// So many distinct messages with one reason on one object within the window become one event.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// Burst and refill of the allowance each object has.
const ALLOWANCE_BURST: f64 = 25.0;
const ALLOWANCE_PER_SECOND: f64 = 1.0 / 300.0;

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

struct Note {
    object: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
}

/// Records events of one component; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Note>,
}

impl Recorder {
    /// A recorder that writes under the component's name until `shutdown`.
    pub fn new(client: Client, component: &'static str, shutdown: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_ENTRIES_MAX);
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = write(client, component, receiver) => {}
            }
        });
        Self { sender }
    }

    /// A recorder that drops everything, for tests.
    pub fn silent() -> Self {
        Self { sender: mpsc::channel(1).0 }
    }

    /// Records that something happened to `object`.
    pub fn record<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.record_reference(object_reference(object), kind, reason, message);
    }

    /// The same for an object known by reference only.
    pub fn record_reference(
        &self,
        object: ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let mut message = message.into();
        // The API refuses more than 1024 characters.
        if message.len() > 1024 {
            let end = (0..=1021).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            message.truncate(end);
            message.push_str("...");
        }
        if self.sender.try_send(Note { object, kind, reason: reason.to_owned(), message }).is_err() {
            tracing::trace!(reason, "event dropped");
        }
    }
}

async fn write(client: Client, component: &'static str, mut receiver: mpsc::Receiver<Note>) {
    let mut series = Series::default();
    while let Some(note) = receiver.recv().await {
        let namespace = note.object.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let result = match series.admit(&note, Instant::now()) {
            Admission::Drop => continue,
            Admission::Create { identity, message } => {
                let event = new_event(&note, component, &namespace, &message);
                let name = event.metadata.name.clone().unwrap_or_default();
                series.remember(identity, name);
                api.create(&PostParams::default(), &event).await.map(drop)
            }
            Admission::Repeat { name, count, message } => {
                let patch = serde_json::json!({
                    "count": count, "message": message, "lastTimestamp": Time(Timestamp::now()),
                });
                api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
            }
        };
        if let Err(error) = result {
            // The event may have expired on the server: the next repeat starts anew.
            series.forget(&note);
            tracing::debug!(reason = %note.reason, %error, "event not written");
        }
    }
}

fn new_event(note: &Note, component: &str, namespace: &str, message: &str) -> Event {
    let now = Timestamp::now();
    let base = note.object.name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!(
                "{base}.{:x}",
                now.as_nanosecond() as u64 ^ (u64::from(rand::random::<u16>()))
            )),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        },
        involved_object: note.object.clone(),
        reason: Some(note.reason.clone()),
        message: Some(message.to_owned()),
        type_: Some(if note.kind == EventType::Normal { "Normal" } else { "Warning" }.to_owned()),
        source: Some(EventSource { component: Some(component.to_owned()), host: None }),
        reporting_component: Some(component.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        event_time: None::<MicroTime>,
        count: Some(1),
        ..Default::default()
    }
}

type Identity = (String, EventTypeName, String, String);
type EventTypeName = &'static str;

/// What has been written lately; oldest forgotten first.
#[derive(Default)]
struct Series {
    written: HashMap<Identity, (String, i32)>,
    order: VecDeque<Identity>,
    similar: HashMap<(String, String), (Instant, usize)>,
    allowance: HashMap<String, (Instant, f64)>,
}

enum Admission {
    Create { identity: Identity, message: String },
    Repeat { name: String, count: i32, message: String },
    Drop,
}

impl Series {
    fn admit(&mut self, note: &Note, now: Instant) -> Admission {
        let object = object_id(note);
        let plain = identity(note, &object, note.message.clone());
        let mut message = note.message.clone();
        let mut wanted = plain.clone();
        if !self.written.contains_key(&plain) {
            let similar = self.similar.entry((object.clone(), note.reason.clone())).or_insert((now, 0));
            if now.duration_since(similar.0) > SIMILAR_WINDOW {
                *similar = (now, 0);
            }
            similar.1 += 1;
            if similar.1 > SIMILAR_MAX {
                message = format!("(combined from similar events): {message}");
                wanted = identity(note, &object, String::new());
            }
        }
        if !self.allow(object, now) {
            return Admission::Drop;
        }
        match self.written.get_mut(&wanted) {
            Some((name, count)) => {
                *count += 1;
                Admission::Repeat { name: name.clone(), count: *count, message }
            }
            None => Admission::Create { identity: wanted, message },
        }
    }

    fn allow(&mut self, object: String, now: Instant) -> bool {
        if self.allowance.len() > SERIES_ENTRIES_MAX {
            self.allowance.clear();
            self.similar.clear();
        }
        let (since, tokens) = self.allowance.entry(object).or_insert((now, ALLOWANCE_BURST));
        let refill = now.duration_since(*since).as_secs_f64() * ALLOWANCE_PER_SECOND;
        *tokens = (*tokens + refill).min(ALLOWANCE_BURST);
        *since = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    fn remember(&mut self, identity: Identity, name: String) {
        if self.order.len() >= SERIES_ENTRIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.written.remove(&oldest);
        }
        self.order.push_back(identity.clone());
        self.written.insert(identity, (name, 1));
    }

    fn forget(&mut self, note: &Note) {
        let object = object_id(note);
        self.written.remove(&identity(note, &object, note.message.clone()));
        self.written.remove(&identity(note, &object, String::new()));
    }
}

fn object_id(note: &Note) -> String {
    let part = |field: &Option<String>| field.clone().unwrap_or_default();
    let object = &note.object;
    format!("{}/{}/{}/{}", part(&object.kind), part(&object.namespace), part(&object.name), part(&object.uid))
}

fn identity(note: &Note, object: &str, message: String) -> Identity {
    let kind = if note.kind == EventType::Normal { "Normal" } else { "Warning" };
    (object.to_owned(), kind, note.reason.clone(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> Note {
        Note {
            object: ObjectReference { name: Some("p".into()), ..Default::default() },
            kind: EventType::Normal,
            reason: "R".into(),
            message: message.into(),
        }
    }

    fn write_one(series: &mut Series, message: &str, now: Instant) -> &'static str {
        match series.admit(&note(message), now) {
            Admission::Create { identity, .. } => {
                series.remember(identity, "e".into());
                "create"
            }
            Admission::Repeat { .. } => "repeat",
            Admission::Drop => "drop",
        }
    }

    #[test]
    fn repeats_count_and_floods_fold_and_end() {
        let mut series = Series::default();
        let now = Instant::now();
        assert_eq!(write_one(&mut series, "same", now), "create");
        assert_eq!(write_one(&mut series, "same", now), "repeat");
        let outcomes: Vec<_> = (0..40).map(|i| write_one(&mut series, &format!("m{i}"), now)).collect();
        assert_eq!(outcomes.iter().filter(|o| **o == "create").count(), SIMILAR_MAX, "then one folded event");
        assert_eq!(outcomes.last(), Some(&"drop"), "and then silence");
        assert_ne!(write_one(&mut series, "later", now + Duration::from_secs(301)), "drop");
    }
}
