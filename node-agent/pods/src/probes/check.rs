//! One question to one container: exec, HTTP, TCP or gRPC. Also runs lifecycle hooks, which are the same requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, GRPCAction, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use penstock_runtime::{Runtime, RuntimeError};
use tokio::net::TcpStream;

use crate::server::tls;

const BODY_BYTES_MAX: usize = 10 * 1024;

/// What a container answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As hoped.
    Success,
    /// Not as hoped, in words.
    Failure(String),
    /// The question could not be put (runtime away); counts as nothing.
    Unknown,
}

/// How to reach a container.
#[derive(Clone)]
pub struct Checker {
    /// For exec.
    pub runtime: Arc<dyn Runtime>,
    /// For exec.
    pub container_id: String,
    /// The pod's address, for everything else.
    pub address: Option<String>,
}

impl Checker {
    /// Puts a probe's question.
    pub async fn check(&self, probe: &Probe, container: &Container, timeout: Duration) -> Outcome {
        if let Some(exec) = &probe.exec {
            return self.exec(exec.command.as_deref().unwrap_or_default(), timeout).await;
        }
        if let Some(get) = &probe.http_get {
            return self.http(get, container, "kube-probe/1.36").await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            return match self.dial(tcp.host.as_deref(), &tcp.port, container).await {
                Ok(_) => Outcome::Success,
                Err(message) => Outcome::Failure(message),
            };
        }
        if let Some(grpc) = &probe.grpc {
            return self.grpc(grpc).await;
        }
        Outcome::Success
    }

    /// Runs a lifecycle hook to its end.
    pub async fn hook(
        &self,
        handler: &LifecycleHandler,
        container: &Container,
        timeout: Duration,
    ) -> Outcome {
        let run = async {
            if let Some(exec) = &handler.exec {
                return self.exec(exec.command.as_deref().unwrap_or_default(), timeout).await;
            }
            if let Some(get) = &handler.http_get {
                return self.http(get, container, "kube-lifecycle/1.36").await;
            }
            if let Some(sleep) = &handler.sleep {
                tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            }
            Outcome::Success
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failure(format!("hook did not finish within {} s", timeout.as_secs())),
        }
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> Outcome {
        match self.runtime.exec_sync(&self.container_id, command, timeout).await {
            Ok(output) if output.exit_code == 0 => Outcome::Success,
            Ok(output) => {
                let mut text = output.stdout;
                text.extend(output.stderr);
                text.truncate(BODY_BYTES_MAX);
                let text = String::from_utf8_lossy(&text).into_owned();
                Outcome::Failure(if text.is_empty() {
                    format!("command exited with {}", output.exit_code)
                } else {
                    text
                })
            }
            Err(RuntimeError::Timeout { .. }) => {
                Outcome::Failure(format!("command timed out after {} s", timeout.as_secs()))
            }
            Err(RuntimeError::Unavailable { .. }) => Outcome::Unknown,
            Err(error) => Outcome::Failure(error.to_string()),
        }
    }

    async fn dial(
        &self,
        host: Option<&str>,
        port: &IntOrString,
        container: &Container,
    ) -> Result<TcpStream, String> {
        let port =
            resolve_port(port, container).ok_or_else(|| format!("no port {port:?} in the container"))?;
        let host = host.filter(|h| !h.is_empty()).or(self.address.as_deref());
        let host = host.ok_or_else(|| "the pod has no address".to_string())?;
        TcpStream::connect((host, port)).await.map_err(|e| format!("dial tcp {}: {e}", authority(host, port)))
    }

    async fn http(&self, get: &HTTPGetAction, container: &Container, agent: &str) -> Outcome {
        match self.request(get, container, agent).await {
            Ok((status, _)) if (200..400).contains(&status) => Outcome::Success,
            Ok((status, _)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
            Err(message) => Outcome::Failure(message),
        }
    }

    async fn request(
        &self,
        get: &HTTPGetAction,
        container: &Container,
        agent: &str,
    ) -> Result<(u16, Bytes), String> {
        let stream = self.dial(get.host.as_deref(), &get.port, container).await?;
        let port = resolve_port(&get.port, container).unwrap_or_default();
        let host =
            get.host.as_deref().filter(|h| !h.is_empty()).or(self.address.as_deref()).unwrap_or_default();
        let path = get.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        let mut request = http::Request::get(path).header("Accept", "*/*");
        let headers = get.http_headers.as_deref().unwrap_or_default();
        let given = |name: &str| headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
        if !given("Host") {
            request = request.header("Host", authority(host, port));
        }
        if !given("User-Agent") {
            request = request.header("User-Agent", agent);
        }
        for header in headers {
            request = request.header(&header.name, &header.value);
        }
        let request = request.body(Full::<Bytes>::default()).map_err(|e| e.to_string())?;
        let words = |e: &dyn std::error::Error| e.to_string();
        let response = if get.scheme.as_deref() == Some("HTTPS") {
            let stream = tls::connect_unverified(stream, host).await.map_err(|e| words(&e))?;
            send(TokioIo::new(stream), request).await
        } else {
            send(TokioIo::new(stream), request).await
        };
        let response = response.map_err(|e| format!("Get \"http://{}\": {e}", authority(host, port)))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        Ok((status, body.map(|b| b.to_bytes()).unwrap_or_default()))
    }

    async fn grpc(&self, grpc: &GRPCAction) -> Outcome {
        match self.grpc_status(grpc).await {
            Ok(1) => Outcome::Success,
            Ok(status) => Outcome::Failure(format!("service unhealthy (responded with status {status})")),
            Err(message) => Outcome::Failure(message),
        }
    }

    /// `grpc.health.v1.Health/Check`, whose two messages are small enough to write by hand: the request holds the
    /// service in field 1, the response an enumeration in field 1.
    async fn grpc_status(&self, grpc: &GRPCAction) -> Result<u64, String> {
        let stream = self.dial(None, &IntOrString::Int(grpc.port), &Container::default()).await?;
        let service = grpc.service.as_deref().unwrap_or_default().as_bytes();
        let mut message = Vec::new();
        if let Ok(length) = u8::try_from(service.len())
            && (1..128).contains(&length)
        {
            message.extend([0x0a, length]);
            message.extend(service);
        }
        let mut body = vec![0];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        let port = u16::try_from(grpc.port).unwrap_or_default();
        let request = http::Request::post(format!(
            "http://{}/grpc.health.v1.Health/Check",
            authority(self.address.as_deref().unwrap_or_default(), port),
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| e.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|e| e.to_string())?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let body =
            Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(|e| e.to_string());
        driver.abort();
        let body = body?;
        let code = body
            .trailers()
            .and_then(|t| t.get("grpc-status"))
            .and_then(|v| v.to_str().ok())
            .unwrap_or("0")
            .to_string();
        if code != "0" {
            return Err(format!("gRPC health check failed with code {code}"));
        }
        match body.to_bytes().get(5..) {
            Some([0x08, status, ..]) => Ok(u64::from(*status)),
            _ => Ok(0),
        }
    }
}

async fn send<S>(
    io: TokioIo<S>,
    request: http::Request<Full<Bytes>>,
) -> Result<http::Response<hyper::body::Incoming>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|e| e.to_string())
}

/// Host and port as URLs have them: an IPv6 address in brackets.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn resolve_port(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name));
            named.and_then(|p| u16::try_from(p.container_port).ok()).or_else(|| name.parse().ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_stands_in_brackets() {
        assert_eq!(authority("10.244.1.2", 8080), "10.244.1.2:8080");
        assert_eq!(authority("fd00:244::2", 8080), "[fd00:244::2]:8080");
        assert_eq!(authority("[fd00:244::2]", 8080), "[fd00:244::2]:8080");
        assert_eq!(authority("web.example", 80), "web.example:80");
        assert!(authority("fd00::2", 1).parse::<http::uri::Authority>().is_ok());
    }
}
