//! `v5.channel.k8s.io`: streams of a command or of forwarded ports as channels of one WebSocket, ended here and carried
//! on as SPDY streams. Runtimes speak older versions only, which cannot end a command's input without ending all.
//!
//! A message is one byte of channel and then data; `255, n` from the client ends its side of channel `n`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Request};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use penstock_runtime::StreamOptions;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, oneshot};

use super::spdy::{self, Frame, Opener};
use super::{Refusal, tunnel};

/// The subprotocol.
pub(super) const PROTOCOL: &str = "v5.channel.k8s.io";
/// Ends the client's side of a channel.
const CLOSE: u8 = 255;
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a client may take to confirm the end.
const GOODBYE: Duration = Duration::from_secs(2);

/// One channel and the SPDY stream behind it.
#[derive(Debug, PartialEq, Eq)]
struct Channel {
    number: u8,
    headers: Vec<(&'static str, String)>,
    /// The client may write to it.
    inward: bool,
    /// The session lasts as long as one of these is open.
    outward: bool,
    /// Sent to the client before anything else.
    greeting: Option<Vec<u8>>,
}

/// Channels of exec and attach. The first one that carries output greets with an empty message: the session stands.
fn compile_command(streams: StreamOptions) -> Vec<Channel> {
    let all = [
        (3, "error", true, false, true),
        (0, "stdin", streams.stdin, true, false),
        (1, "stdout", streams.stdout, false, true),
        (2, "stderr", streams.stderr, false, true),
        (4, "resize", streams.tty, true, false),
    ];
    let greets = if streams.stdout {
        1
    } else if streams.stderr {
        2
    } else {
        3
    };
    all.into_iter()
        .filter(|(_, _, wanted, ..)| *wanted)
        .map(|(number, name, _, inward, outward)| Channel {
            number,
            headers: vec![("streamtype", name.to_string())],
            inward,
            outward,
            greeting: (number == greets).then(Vec::new),
        })
        .collect()
}

/// Two channels a port, data and error, each greeting with the port in two bytes, low first.
fn compile_ports(ports: &[u16]) -> Vec<Channel> {
    let pair = |(at, port): (usize, &u16)| {
        let number = u8::try_from(at * 2).ok().filter(|n| *n < CLOSE - 1)?;
        let channel = |number, kind: &str, inward| Channel {
            number,
            headers: vec![
                ("streamtype", kind.to_string()),
                ("port", port.to_string()),
                ("requestid", at.to_string()),
            ],
            inward,
            outward: true,
            greeting: Some(port.to_le_bytes().to_vec()),
        };
        // The runtime wants the error stream of a pair first.
        Some([channel(number + 1, "error", false), channel(number, "data", true)])
    };
    ports.iter().enumerate().filter_map(pair).flatten().collect()
}

/// exec and attach.
pub(super) async fn remote_command(
    request: Request,
    url: &str,
    streams: StreamOptions,
) -> Result<Response, Refusal> {
    serve(request, url, "v4.channel.k8s.io", compile_command(streams)).await
}

/// port-forward.
pub(super) async fn port_forward(request: Request, url: &str, ports: &[u16]) -> Result<Response, Refusal> {
    if ports.is_empty() {
        return Err(Refusal(StatusCode::BAD_REQUEST, "query parameter \"port\" is required".into()));
    }
    serve(request, url, "portforward.k8s.io", compile_ports(ports)).await
}

async fn serve(
    request: Request,
    url: &str,
    version: &'static str,
    channels: Vec<Channel>,
) -> Result<Response, Refusal> {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|e| Refusal(StatusCode::BAD_REQUEST, e.to_string()))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert("x-stream-protocol-version", HeaderValue::from_static(version));
    let (_, runtime) = tunnel::dial(url, http::Method::POST, headers).await?;
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).protocols([PROTOCOL]);
    Ok(upgrade.on_upgrade(move |socket| relay(socket, TokioIo::new(runtime), channels)))
}

async fn relay(socket: WebSocket, runtime: impl AsyncRead + AsyncWrite, channels: Vec<Channel>) {
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_runtime, to_runtime) = tokio::io::split(runtime);
    let to_runtime = Mutex::new(to_runtime);
    let mut session = Session::default();
    let mut opener = Opener::default();
    for channel in &channels {
        let (stream, frame) = opener.open(&channel.headers);
        session.add(stream, channel);
        if to_runtime.lock().await.write_all(&frame).await.is_err() {
            return;
        }
        let greeting = channel.greeting.as_ref().map(|g| message(channel.number, g));
        if let Some(greeting) = greeting
            && to_client.send(greeting).await.is_err()
        {
            return;
        }
    }
    let inward_streams = session.inward.clone();
    let (taken, ready) = oneshot::channel();
    {
        let outward = outward(&mut session, &mut from_runtime, &to_runtime, &mut to_client, taken);
        let inward = async {
            // What is sent on a stream before the runtime took it is lost.
            if ready.await.is_ok() {
                inward(&inward_streams, &mut from_client, &to_runtime).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = outward => {}
            () = inward => {}
        }
    }
    let frame = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    let _ = to_client.send(Message::Close(Some(frame))).await;
    // Whoever closes with unread bytes resets the connection, and the client may lose the last output.
    let drained = async { while let Some(Ok(_)) = from_client.next().await {} };
    let _ = tokio::time::timeout(GOODBYE, drained).await;
    let _ = to_runtime.lock().await.shutdown().await;
}

/// Which stream belongs to which channel, and what is still open.
#[derive(Default)]
struct Session {
    /// Channel number to stream, those the client may write to.
    inward: BTreeMap<u8, u32>,
    /// Stream to channel number.
    numbers: BTreeMap<u32, u8>,
    open: BTreeSet<u32>,
    awaited: BTreeSet<u32>,
}

impl Session {
    fn add(&mut self, stream: u32, channel: &Channel) {
        self.numbers.insert(stream, channel.number);
        self.awaited.insert(stream);
        if channel.inward {
            self.inward.insert(channel.number, stream);
        }
        if channel.outward {
            self.open.insert(stream);
        }
    }

    fn end(&mut self, stream: u32) {
        self.open.remove(&stream);
        self.awaited.remove(&stream);
    }
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut out = BytesMut::with_capacity(bytes.len() + 1);
    out.put_u8(channel);
    out.put_slice(bytes);
    Message::Binary(out.freeze())
}

async fn outward<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    session: &mut Session,
    from_runtime: &mut R,
    to_runtime: &Mutex<W>,
    to_client: &mut SplitSink<WebSocket, Message>,
    taken: oneshot::Sender<()>,
) {
    let mut taken = Some(taken);
    while !session.open.is_empty() {
        let frame = match spdy::read(from_runtime).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "streaming session with the runtime");
                return;
            }
        };
        match frame {
            Frame::Reply { stream } => {
                session.awaited.remove(&stream);
            }
            Frame::Data { stream, end, bytes } => {
                let number = session.numbers.get(&stream).copied();
                if let Some(number) = number.filter(|_| !bytes.is_empty())
                    && to_client.send(message(number, &bytes)).await.is_err()
                {
                    return;
                }
                if end {
                    session.end(stream);
                }
            }
            Frame::Reset { stream } => session.end(stream),
            Frame::Ping { echo } => {
                if to_runtime.lock().await.write_all(&spdy::pong(&echo)).await.is_err() {
                    return;
                }
            }
            Frame::Other => {}
        }
        if session.awaited.is_empty()
            && let Some(taken) = taken.take()
        {
            let _ = taken.send(());
        }
    }
}

async fn inward<W: AsyncWrite + Unpin>(
    streams: &BTreeMap<u8, u32>,
    from_client: &mut SplitStream<WebSocket>,
    to_runtime: &Mutex<W>,
) {
    let mut open = streams.clone();
    while let Some(Ok(message)) = from_client.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        let Some(frames) = compile_frames(&mut open, &bytes) else {
            continue;
        };
        if to_runtime.lock().await.write_all(&frames).await.is_err() {
            // The output side says why, and how the session ends.
            std::future::pending::<()>().await;
        }
    }
}

/// What a client's message means on the runtime's side; nothing for channels it may not (or no longer) write to.
fn compile_frames(open: &mut BTreeMap<u8, u32>, message: &[u8]) -> Option<Bytes> {
    match message.split_first()? {
        (&CLOSE, rest) => {
            let stream = open.remove(rest.first()?)?;
            Some(spdy::data(stream, &[], true))
        }
        (number, bytes) => {
            let stream = open.get(number)?;
            (!bytes.is_empty()).then(|| spdy::data(*stream, bytes, false))
        }
    }
}

#[cfg(test)]
mod tests;
