//! Where container events come from: containerd's own event service on the same socket (every containerd has it),
//! else CRI's event stream. Without either the agent polls, so nothing here may be the only path to the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use containerd_client::events::{TaskExit, TaskOom, TaskStart};
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use k8s_cri::v1 as pb;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use prost::Message;
use tokio::sync::broadcast;
use tonic::transport::Channel;

use crate::{RuntimeEvent, RuntimeEventKind};

/// A socket of this machine costs little to try, and without events pods are polled.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// Relays events for ever; the caller aborts the task.
pub(super) async fn relay(channel: Channel, out: broadcast::Sender<RuntimeEvent>, flowing: Arc<AtomicBool>) {
    let mut pause = RECONNECT_MIN;
    loop {
        let mut result = relay_containerd(&channel, &out, &flowing).await;
        if matches!(&result, Err(status) if status.code() == tonic::Code::Unimplemented) {
            result = relay_cri(&channel, &out, &flowing).await;
        }
        if flowing.swap(false, Ordering::Relaxed) {
            pause = RECONNECT_MIN;
            tracing::warn!(error = ?result.err(), "container runtime events ended; subscribing again");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

fn resync(out: &broadcast::Sender<RuntimeEvent>) {
    // A send fails only when nobody listens.
    let _ = out.send(RuntimeEvent { id: String::new(), kind: RuntimeEventKind::Resync });
}

async fn relay_containerd(
    channel: &Channel,
    out: &broadcast::Sender<RuntimeEvent>,
    flowing: &AtomicBool,
) -> Result<(), tonic::Status> {
    let filters = ["/tasks/start", "/tasks/exit", "/tasks/oom"]
        .map(|topic| format!("namespace==k8s.io,topic==\"{topic}\""))
        .to_vec();
    let mut stream =
        EventsClient::new(channel.clone()).subscribe(SubscribeRequest { filters }).await?.into_inner();
    flowing.store(true, Ordering::Relaxed);
    resync(out);
    while let Some(envelope) = stream.message().await? {
        let Some(any) = envelope.event else { continue };
        if let Some(event) = decode_containerd(&envelope.topic, &any.value) {
            let _ = out.send(event);
        }
    }
    Ok(())
}

fn decode_containerd(topic: &str, bytes: &[u8]) -> Option<RuntimeEvent> {
    let (id, kind) = match topic {
        "/tasks/start" => (TaskStart::decode(bytes).ok()?.container_id, RuntimeEventKind::Started),
        "/tasks/oom" => (TaskOom::decode(bytes).ok()?.container_id, RuntimeEventKind::OutOfMemory),
        "/tasks/exit" => {
            let exit = TaskExit::decode(bytes).ok()?;
            // A different id is a process that was exec'ed into the container.
            if exit.id != exit.container_id {
                return None;
            }
            (exit.container_id, RuntimeEventKind::Exited)
        }
        _ => return None,
    };
    Some(RuntimeEvent { id, kind })
}

async fn relay_cri(
    channel: &Channel,
    out: &broadcast::Sender<RuntimeEvent>,
    flowing: &AtomicBool,
) -> Result<(), tonic::Status> {
    let mut client = RuntimeServiceClient::new(channel.clone());
    let mut stream = client.get_container_events(pb::GetEventsRequest {}).await?.into_inner();
    flowing.store(true, Ordering::Relaxed);
    resync(out);
    while let Some(event) = stream.message().await? {
        let kind = match event.container_event_type() {
            pb::ContainerEventType::ContainerStartedEvent => RuntimeEventKind::Started,
            pb::ContainerEventType::ContainerStoppedEvent => RuntimeEventKind::Exited,
            pb::ContainerEventType::ContainerCreatedEvent | pb::ContainerEventType::ContainerDeletedEvent => {
                continue;
            }
        };
        let _ = out.send(RuntimeEvent { id: event.container_id, kind });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_of_an_exec_is_not_the_exit_of_its_container() {
        let exit = |id: &str| {
            TaskExit { container_id: "c".into(), id: id.into(), ..Default::default() }.encode_to_vec()
        };
        assert_eq!(decode_containerd("/tasks/exit", &exit("exec-1")), None);
        let whole = decode_containerd("/tasks/exit", &exit("c"));
        assert_eq!(whole, Some(RuntimeEvent { id: "c".into(), kind: RuntimeEventKind::Exited }));
    }

    #[test]
    fn bytes_that_are_no_event_are_dropped() {
        assert_eq!(decode_containerd("/tasks/exit", &[0xff, 0xff, 0xff]), None);
        assert_eq!(decode_containerd("/images/create", &[]), None);
    }
}
