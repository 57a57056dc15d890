//! CRI v1 over a unix socket.
//!
//! The channel is lazy: a runtime that is not there yet, or restarts, costs failed calls and nothing else; the next
//! call dials again. Every call has a deadline. What the wire types mean is in [`convert`]; where events come from is
//! in [`events`]. This module must not retry on its own: only the caller knows whether a repeat is wanted.

mod convert;
mod events;
mod image_view;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use k8s_cri::v1 as pb;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tokio::sync::broadcast;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

use crate::types::*;
use crate::{EventReceiver, Runtime, RuntimeError, StreamOptions};

/// Largest answer we accept; also bounds the output of a synchronous exec.
const MESSAGE_BYTES_MAX: usize = 33 * 1024 * 1024;
/// Events kept for a slow receiver.
const EVENTS_MAX: usize = 1024;
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
const SANDBOX_TIMEOUT: Duration = Duration::from_secs(240);
const PULL_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// A client of one runtime. Cheap to share by `Arc`.
pub struct Cri {
    endpoint: String,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    channel: Channel,
    events: broadcast::Sender<RuntimeEvent>,
    events_flow: Arc<AtomicBool>,
    events_task: tokio::task::JoinHandle<()>,
}

impl Cri {
    /// A client for `unix:///path`. Succeeds whether or not the runtime is up: only a malformed endpoint is an error.
    pub async fn connect(endpoint: &str) -> Result<Self, RuntimeError> {
        let bad = || RuntimeError::BadEndpoint { endpoint: endpoint.to_string() };
        let path = endpoint.strip_prefix("unix://").or_else(|| endpoint.starts_with('/').then_some(endpoint));
        let path = PathBuf::from(path.filter(|p| p.starts_with('/')).ok_or_else(bad)?);
        let channel = Endpoint::from_static("http://runtime.invalid")
            .connect_timeout(Duration::from_secs(5))
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }));
        let (sender, _) = broadcast::channel(EVENTS_MAX);
        let flow = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(events::relay(channel.clone(), sender.clone(), flow.clone()));
        Ok(Self {
            endpoint: endpoint.to_string(),
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            channel,
            events: sender,
            events_flow: flow,
            events_task: task,
        })
    }

    /// One call with its deadline, its failure sorted.
    async fn call<T>(
        &self,
        call: &'static str,
        deadline: Duration,
        future: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RuntimeError> {
        match tokio::time::timeout(deadline, future).await {
            Err(_) => Err(RuntimeError::Timeout { call, seconds: deadline.as_secs() }),
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.sort(call, deadline, status)),
        }
    }

    fn sort(&self, call: &'static str, deadline: Duration, status: Status) -> RuntimeError {
        let message = status.message().to_string();
        match status.code() {
            Code::NotFound => RuntimeError::NotFound { what: message },
            Code::Unavailable | Code::Cancelled => {
                RuntimeError::Unavailable { endpoint: self.endpoint.clone(), message }
            }
            Code::DeadlineExceeded => RuntimeError::Timeout { call, seconds: deadline.as_secs() },
            Code::Unimplemented => RuntimeError::Unsupported { call },
            // containerd answers Unknown with the text for things that vanish while it looks at them.
            Code::Unknown if message.ends_with(": not found") => RuntimeError::NotFound { what: message },
            _ => RuntimeError::Failed { call, message },
        }
    }
}

impl Drop for Cri {
    fn drop(&mut self) {
        self.events_task.abort();
    }
}

/// Gone already is as good as done.
fn gone_is_done(result: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}

fn missing(call: &'static str) -> RuntimeError {
    RuntimeError::Failed { call, message: "the runtime answered without the body asked for".to_string() }
}

// === impl Runtime ===

#[async_trait]
impl Runtime for Cri {
    async fn version(&self) -> Result<Version, RuntimeError> {
        let request = pb::VersionRequest { version: "v1".to_string() };
        let answer =
            self.call("Version", CALL_TIMEOUT, self.runtime.clone().version(Request::new(request))).await?;
        Ok(Version { name: answer.runtime_name, version: answer.runtime_version })
    }

    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        let request = pb::StatusRequest { verbose: false };
        let answer =
            self.call("Status", Duration::from_secs(10), self.runtime.clone().status(request)).await?;
        Ok(convert::status(answer))
    }

    async fn run_sandbox(&self, config: &SandboxConfig, handler: &str) -> Result<String, RuntimeError> {
        let request = pb::RunPodSandboxRequest {
            config: Some(convert::sandbox_config(config)),
            runtime_handler: handler.to_string(),
        };
        let answer = self
            .call("RunPodSandbox", SANDBOX_TIMEOUT, self.runtime.clone().run_pod_sandbox(request))
            .await?;
        Ok(answer.pod_sandbox_id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let request = pb::StopPodSandboxRequest { pod_sandbox_id: id.to_string() };
        let mut client = self.runtime.clone();
        let call = self.call("StopPodSandbox", CALL_TIMEOUT, client.stop_pod_sandbox(request));
        gone_is_done(call.await.map(|_| ()))
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let request = pb::RemovePodSandboxRequest { pod_sandbox_id: id.to_string() };
        let mut client = self.runtime.clone();
        let call = self.call("RemovePodSandbox", CALL_TIMEOUT, client.remove_pod_sandbox(request));
        gone_is_done(call.await.map(|_| ()))
    }

    async fn sandbox_status(&self, id: &str) -> Result<SandboxStatus, RuntimeError> {
        let request = pb::PodSandboxStatusRequest { pod_sandbox_id: id.to_string(), verbose: false };
        let answer = self
            .call("PodSandboxStatus", CALL_TIMEOUT, self.runtime.clone().pod_sandbox_status(request))
            .await?;
        answer.status.map(convert::sandbox_status).ok_or_else(|| missing("PodSandboxStatus"))
    }

    async fn list_sandboxes(&self, labels: &[(String, String)]) -> Result<Vec<SandboxInfo>, RuntimeError> {
        let filter =
            pb::PodSandboxFilter { label_selector: labels.iter().cloned().collect(), ..Default::default() };
        let request = pb::ListPodSandboxRequest { filter: Some(filter) };
        let answer =
            self.call("ListPodSandbox", CALL_TIMEOUT, self.runtime.clone().list_pod_sandbox(request)).await?;
        Ok(answer.items.into_iter().map(convert::sandbox_info).collect())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
        sandbox_config: &SandboxConfig,
    ) -> Result<String, RuntimeError> {
        let request = pb::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_string(),
            config: Some(convert::container_config(config)),
            sandbox_config: Some(convert::sandbox_config(sandbox_config)),
        };
        let answer = self
            .call("CreateContainer", CALL_TIMEOUT, self.runtime.clone().create_container(request))
            .await?;
        Ok(answer.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let request = pb::StartContainerRequest { container_id: id.to_string() };
        self.call("StartContainer", CALL_TIMEOUT, self.runtime.clone().start_container(request)).await?;
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        // Whole seconds on the wire; a fraction is rounded up so that the process gets at least what it was promised.
        let seconds = grace.as_millis().div_ceil(1000) as i64;
        let request = pb::StopContainerRequest { container_id: id.to_string(), timeout: seconds };
        let mut client = self.runtime.clone();
        let call = self.call("StopContainer", CALL_TIMEOUT + grace, client.stop_container(request));
        gone_is_done(call.await.map(|_| ()))
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let request = pb::RemoveContainerRequest { container_id: id.to_string() };
        let mut client = self.runtime.clone();
        let call = self.call("RemoveContainer", CALL_TIMEOUT, client.remove_container(request));
        gone_is_done(call.await.map(|_| ()))
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerInfo>, RuntimeError> {
        let filter = pb::ContainerFilter {
            pod_sandbox_id: filter.sandbox.clone().unwrap_or_default(),
            label_selector: filter.labels.iter().cloned().collect(),
            ..Default::default()
        };
        let request = pb::ListContainersRequest { filter: Some(filter) };
        let answer =
            self.call("ListContainers", CALL_TIMEOUT, self.runtime.clone().list_containers(request)).await?;
        Ok(answer.containers.into_iter().map(convert::container_info).collect())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        let request = pb::ContainerStatusRequest { container_id: id.to_string(), verbose: false };
        let answer = self
            .call("ContainerStatus", CALL_TIMEOUT, self.runtime.clone().container_status(request))
            .await?;
        answer.status.map(convert::container_status).ok_or_else(|| missing("ContainerStatus"))
    }

    async fn update_resources(&self, id: &str, resources: &LinuxResources) -> Result<(), RuntimeError> {
        let request = pb::UpdateContainerResourcesRequest {
            container_id: id.to_string(),
            linux: Some(convert::resources(resources)),
            ..Default::default()
        };
        let mut client = self.runtime.clone();
        self.call("UpdateContainerResources", CALL_TIMEOUT, client.update_container_resources(request))
            .await?;
        Ok(())
    }

    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let request = pb::ReopenContainerLogRequest { container_id: id.to_string() };
        self.call("ReopenContainerLog", CALL_TIMEOUT, self.runtime.clone().reopen_container_log(request))
            .await?;
        Ok(())
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let request = pb::ExecSyncRequest {
            container_id: id.to_string(),
            cmd: command.to_vec(),
            timeout: timeout.as_millis().div_ceil(1000) as i64,
        };
        let deadline = if timeout.is_zero() { CALL_TIMEOUT } else { timeout + Duration::from_secs(15) };
        let answer = self.call("ExecSync", deadline, self.runtime.clone().exec_sync(request)).await?;
        Ok(ExecOutput { stdout: answer.stdout, stderr: answer.stderr, exit_code: answer.exit_code })
    }

    async fn exec_url(
        &self,
        id: &str,
        command: &[String],
        streams: StreamOptions,
    ) -> Result<String, RuntimeError> {
        let request = pb::ExecRequest {
            container_id: id.to_string(),
            cmd: command.to_vec(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        Ok(self.call("Exec", CALL_TIMEOUT, self.runtime.clone().exec(request)).await?.url)
    }

    async fn attach_url(&self, id: &str, streams: StreamOptions) -> Result<String, RuntimeError> {
        let request = pb::AttachRequest {
            container_id: id.to_string(),
            stdin: streams.stdin,
            tty: streams.tty,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        Ok(self.call("Attach", CALL_TIMEOUT, self.runtime.clone().attach(request)).await?.url)
    }

    async fn port_forward_url(&self, sandbox: &str, ports: &[u16]) -> Result<String, RuntimeError> {
        let request = pb::PortForwardRequest {
            pod_sandbox_id: sandbox.to_string(),
            port: ports.iter().map(|p| i32::from(*p)).collect(),
        };
        Ok(self.call("PortForward", CALL_TIMEOUT, self.runtime.clone().port_forward(request)).await?.url)
    }

    async fn list_stats(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStats>, RuntimeError> {
        let filter = pb::ContainerStatsFilter {
            pod_sandbox_id: filter.sandbox.clone().unwrap_or_default(),
            label_selector: filter.labels.iter().cloned().collect(),
            ..Default::default()
        };
        let request = pb::ListContainerStatsRequest { filter: Some(filter) };
        let answer = self
            .call("ListContainerStats", CALL_TIMEOUT, self.runtime.clone().list_container_stats(request))
            .await?;
        Ok(answer.stats.into_iter().map(convert::stats).collect())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        let request =
            pb::ImageStatusRequest { image: Some(convert::image_spec(reference)), ..Default::default() };
        match self.call("ImageStatus", CALL_TIMEOUT, self.images.clone().image_status(request)).await {
            Ok(answer) => Ok(answer.image.map(convert::image)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        let request = pb::ListImagesRequest { filter: None };
        let answer = self.call("ListImages", CALL_TIMEOUT, self.images.clone().list_images(request)).await?;
        Ok(answer.images.into_iter().map(convert::image).collect())
    }

    async fn pull_image(
        &self,
        reference: &str,
        auth: Option<&ImageAuth>,
        sandbox_config: Option<&SandboxConfig>,
    ) -> Result<String, RuntimeError> {
        let request = pb::PullImageRequest {
            image: Some(convert::image_spec(reference)),
            auth: auth.map(convert::auth),
            sandbox_config: sandbox_config.map(convert::sandbox_config),
        };
        Ok(self.call("PullImage", PULL_TIMEOUT, self.images.clone().pull_image(request)).await?.image_ref)
    }

    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError> {
        let request = pb::RemoveImageRequest { image: Some(convert::image_spec(reference)) };
        let mut client = self.images.clone();
        let call = self.call("RemoveImage", CALL_TIMEOUT, client.remove_image(request));
        gone_is_done(call.await.map(|_| ()))
    }

    async fn view_image(&self, image_id: &str, key: &str) -> Result<Vec<FsMount>, RuntimeError> {
        let view = async { image_view::view(&self.channel, image_id, key).await.map(tonic::Response::new) };
        self.call("View", CALL_TIMEOUT, view).await
    }

    async fn release_image_view(&self, key: &str) -> Result<(), RuntimeError> {
        let release = async { image_view::release(&self.channel, key).await.map(tonic::Response::new) };
        gone_is_done(self.call("Remove", CALL_TIMEOUT, release).await)
    }

    async fn image_fs(&self) -> Result<Vec<FsUsage>, RuntimeError> {
        let mut client = self.images.clone();
        let call = self.call("ImageFsInfo", CALL_TIMEOUT, client.image_fs_info(pb::ImageFsInfoRequest {}));
        Ok(call.await?.image_filesystems.into_iter().map(convert::fs_usage).collect())
    }

    fn events(&self) -> EventReceiver {
        self.events.subscribe()
    }

    fn has_events(&self) -> bool {
        self.events_flow.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_that_is_no_unix_path_is_refused() {
        for bad in ["tcp://127.0.0.1:1", "unix://relative", ""] {
            assert!(matches!(Cri::connect(bad).await, Err(RuntimeError::BadEndpoint { .. })), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_runtime_that_is_away_is_unavailable_and_not_an_error_of_connect() {
        let cri = Cri::connect("unix:///nonexistent/runtime.sock").await.unwrap();
        assert!(cri.version().await.unwrap_err().is_unavailable());
        assert!(!cri.has_events());
    }
}
