//! Answers over a WebSocket: logs and watches for clients, such as pages in browsers, that read no endless body.
//!
//! Each piece of the answer is one message: text for JSON and base64, binary otherwise. Clients send nothing; when they
//! close, the answer ends.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::request::Parts;
use http::{HeaderMap, Request, Response, header};
use hyper::upgrade::OnUpgrade;

use axum::body::Body;

use crate::error::ApiError;

/// Messages are the bytes themselves; what a client gets that names no protocol.
const BINARY: &str = "binary.k8s.io";
/// Messages are base64 in text, for clients that cannot take bytes.
const BASE64: &str = "base64.binary.k8s.io";
/// The largest message a client may send; it has nothing to say.
const MESSAGE_BYTES_MAX: usize = 4096;

/// A request that asked for a WebSocket and can have one.
pub(crate) struct Upgrade {
    upgrade: WebSocketUpgrade,
}

/// How pieces become messages.
#[derive(Clone, Copy)]
enum Form {
    Binary,
    Base64,
    Text,
}

/// Whether a request asks for a WebSocket.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|text| text.trim().eq_ignore_ascii_case("websocket"))
}

/// A request without what made it one for a WebSocket, to be passed on.
pub(crate) fn without(mut parts: Parts) -> Parts {
    for name in [
        header::CONNECTION,
        header::UPGRADE,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_EXTENSIONS,
    ] {
        parts.headers.remove(name);
    }
    parts.extensions.remove::<OnUpgrade>();
    parts
}

// === impl Upgrade ===

impl Upgrade {
    /// Of a request that [asks](is_asked) for one.
    ///
    /// # Errors
    /// What its handshake lacks.
    pub(crate) async fn accept(parts: &Parts) -> Result<Self, ApiError> {
        let (mut copy, ()) = Request::new(()).into_parts();
        copy.method = parts.method.clone();
        copy.version = parts.version;
        copy.headers = parts.headers.clone();
        if let Some(client) = parts.extensions.get::<OnUpgrade>() {
            copy.extensions.insert(client.clone());
        }
        match WebSocketUpgrade::from_request_parts(&mut copy, &()).await {
            Ok(upgrade) => {
                let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).protocols([BINARY, BASE64]);
                Ok(Self { upgrade })
            }
            Err(why) => Err(ApiError::bad_request(format!("not the handshake of a WebSocket: {why}"))),
        }
    }

    /// Answers with bytes as they come.
    pub(crate) fn bytes<E: Send + 'static>(
        self,
        pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Response<Body> {
        let base64 = self.upgrade.selected_protocol().is_some_and(|chosen| chosen == BASE64);
        let form = if base64 { Form::Base64 } else { Form::Binary };
        // A source that breaks off ends the answer; there is no place in it for an error.
        let whole = pieces.take_while(|piece| std::future::ready(piece.is_ok()));
        let pieces = whole.filter_map(|piece| std::future::ready(piece.ok()));
        self.start(pieces, form)
    }

    /// Answers with documents, one each; `text` when they are JSON.
    pub(crate) fn documents(
        self,
        pieces: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
        text: bool,
    ) -> Response<Body> {
        let pieces = pieces.map(|Ok::<_, Infallible>(piece)| piece);
        self.start(pieces, if text { Form::Text } else { Form::Binary })
    }

    fn start(self, pieces: impl Stream<Item = Bytes> + Send + 'static, form: Form) -> Response<Body> {
        self.upgrade.on_upgrade(move |socket| send(socket, pieces, form))
    }
}

async fn send(mut socket: WebSocket, pieces: impl Stream<Item = Bytes> + Send + 'static, form: Form) {
    let mut pieces = std::pin::pin!(pieces);
    loop {
        tokio::select! {
            piece = pieces.next() => {
                let Some(piece) = piece else { break };
                if socket.send(message(piece, form)).await.is_err() {
                    return;
                }
            }
            // Pings are answered by reading; a close or a broken connection ends it.
            said = socket.recv() => if !matches!(said, Some(Ok(_))) { return },
        }
    }
    let _ = socket.send(Message::Close(None)).await;
}

fn message(piece: Bytes, form: Form) -> Message {
    match form {
        Form::Binary => Message::Binary(piece),
        Form::Base64 => Message::Text(STANDARD.encode(piece).into()),
        Form::Text => match Utf8Bytes::try_from(piece.clone()) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(piece),
        },
    }
}
