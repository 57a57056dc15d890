//! kubectl's port-forward: SPDY frames carried in WebSocket messages. The messages are unwrapped and their bytes given
//! to the runtime's SPDY endpoint as they are, and back.

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request};
use axum::response::Response;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Refusal, tunnel};

/// The subprotocol.
pub(super) const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
const CHUNK_BYTES: usize = 32 * 1024;
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) async fn serve(request: Request, url: &str) -> Result<Response, Refusal> {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|e| Refusal(StatusCode::BAD_REQUEST, e.to_string()))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert("x-stream-protocol-version", HeaderValue::from_static("portforward.k8s.io"));
    let (_, runtime) = tunnel::dial(url, http::Method::POST, headers).await?;
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).protocols([PROTOCOL]);
    Ok(upgrade.on_upgrade(move |socket| relay(socket, TokioIo::new(runtime))))
}

async fn relay(socket: WebSocket, runtime: TokioIo<hyper::upgrade::Upgraded>) {
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_runtime, mut to_runtime) = tokio::io::split(runtime);
    let inward = async {
        while let Some(Ok(message)) = from_client.next().await {
            let written = match message {
                Message::Binary(bytes) => to_runtime.write_all(&bytes).await,
                Message::Close(_) => break,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) => Ok(()),
            };
            if written.is_err() {
                break;
            }
        }
        let _ = to_runtime.shutdown().await;
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(read) = from_runtime.read(&mut buffer).await {
            if read == 0
                || to_client.send(Message::Binary(Bytes::copy_from_slice(&buffer[..read]))).await.is_err()
            {
                break;
            }
        }
        let _ = to_client.send(Message::Close(None)).await;
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}
