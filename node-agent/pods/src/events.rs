//! Events: what happened to a pod, told to the API server. Best effort: a full queue drops, a failed write is logged.
//! Repeats within a pod raise the count of the event already there.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;

use crate::desired::Desired;

const QUEUE_MAX: usize = 1024;
const KNOWN_MAX: usize = 4096;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

struct Note {
    object: ObjectReference,
    warning: bool,
    reason: String,
    message: String,
}

impl Recorder {
    /// Starts the task that writes; it ends with the last recorder.
    pub fn start(client: kube::Client, node: String) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(write(client, node, notes));
        Self { queue }
    }

    /// Something went as it should.
    pub fn normal(
        &self,
        desired: &Desired,
        container: Option<&str>,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.note(desired, container, false, reason, message.into());
    }

    /// Something did not.
    pub fn warning(
        &self,
        desired: &Desired,
        container: Option<&str>,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.note(desired, container, true, reason, message.into());
    }

    fn note(&self, desired: &Desired, container: Option<&str>, warning: bool, reason: &str, message: String) {
        let field = container.and_then(|name| desired.container(name)).map(|spec| {
            let list = match spec.role {
                crate::desired::Role::App => "containers",
                crate::desired::Role::Init | crate::desired::Role::Sidecar => "initContainers",
                crate::desired::Role::Ephemeral => "ephemeralContainers",
            };
            format!("spec.{list}{{{}}}", spec.container.name)
        });
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(desired.name.clone()),
            namespace: Some(desired.namespace.clone()),
            uid: Some(desired.uid.clone()),
            field_path: field,
            resource_version: None,
        };
        // A full queue means the API server is slower than what happens here; the newest news is lost.
        let _ = self.queue.try_send(Note { object, warning, reason: reason.to_string(), message });
    }
}

async fn write(client: kube::Client, node: String, mut notes: mpsc::Receiver<Note>) {
    let mut known: HashMap<String, (String, i32)> = HashMap::new();
    while let Some(note) = notes.recv().await {
        let namespace = note.object.namespace.clone().unwrap_or_default();
        let key =
            format!("{:?}/{:?}/{}/{}", note.object.uid, note.object.field_path, note.reason, note.message);
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let now = Timestamp::now();
        if let Some((name, count)) = known.get_mut(&key) {
            *count += 1;
            let patch = serde_json::json!({"count": *count, "lastTimestamp": Time(now)});
            if api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
                continue;
            }
        }
        let pod = note.object.name.clone().unwrap_or_default();
        let name = format!("{pod}.{:x}", now.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace),
                ..Default::default()
            },
            involved_object: note.object,
            reason: Some(note.reason),
            message: Some(note.message.chars().take(1024).collect()),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_string()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some("kubelet".into()), host: Some(node.clone()) }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(node.clone()),
            ..Default::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                if known.len() >= KNOWN_MAX {
                    known.clear();
                }
                known.insert(key, (name, 1));
            }
            Err(error) => tracing::debug!(%error, "event not written"),
        }
    }
}
