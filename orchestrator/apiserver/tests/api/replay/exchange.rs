//! One request over TLS, and its answer as read.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use crate::cluster::{Cluster, Identity};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

// === impl Answer ===

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends a request on a connection of its own. The connection ends with the response's body.
pub async fn send(
    cluster: &Cluster,
    identity: &Identity,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let stream = TokioIo::new(cluster.dial(identity).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection.with_upgrades());
    Ok(tokio::time::timeout(PATIENCE, sender.send_request(request)).await??)
}

/// The whole answer.
pub async fn whole(response: Response<Incoming>) -> anyhow::Result<Answer> {
    let (parts, body) = response.into_parts();
    let body = if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        Bytes::new()
    } else {
        tokio::time::timeout(PATIENCE, body.collect()).await??.to_bytes()
    };
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// The head of a watch, and its first event.
pub async fn first_event(response: Response<Incoming>) -> anyhow::Result<Answer> {
    let (parts, mut body) = response.into_parts();
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await?;
    let bytes = frame.and_then(Result::ok).and_then(|frame| frame.into_data().ok()).unwrap_or_default();
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(Answer { status: parts.status, headers: parts.headers, body: Bytes::copy_from_slice(line) })
}
