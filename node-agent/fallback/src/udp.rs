//! One address of UDP: every client has a session, which is a socket connected to its backend. What comes back goes out by
//! the socket of the address that was asked, so that the client sees the answer come from there.
//!
//! A session ends when nothing passed for a while, when its backend refuses, and when its backend leaves. Must not know
//! why a backend is the one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use penstock_ebpf_common::VipKey;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connections::Held;
use crate::shared::Shared;

/// How long a session may be silent: as long as the kernel's own tracking keeps a stream of datagrams.
const SILENT_MAX: Duration = Duration::from_secs(120);
/// The largest datagram there is.
const DATAGRAM_MAX: usize = 65_535;

thread_local! {
    /// Where a datagram is while it is passed on: one a thread, not one a session.
    static DATAGRAM: RefCell<Vec<u8>> = RefCell::new(vec![0; DATAGRAM_MAX]);
}

type Sessions = Arc<Mutex<HashMap<SocketAddr, Arc<Session>>>>;

/// A client and its backend.
#[derive(Debug)]
struct Session {
    backend: UdpSocket,
    start: Instant,
    /// When something passed last, in milliseconds since the start.
    passed_ms: AtomicU64,
}

/// Serves an address until it is closed or dropped, and its sessions with it. The socket is closed when this returns.
pub async fn serve(listener: UdpSocket, vip: VipKey, shared: Arc<Shared>, closing: CancellationToken) {
    let listener = Arc::new(listener);
    let mut answering = JoinSet::new();
    tokio::select! {
        () = take_all(&listener, &vip, &shared, &mut answering) => {}
        () = closing.cancelled() => {}
    }
    // Every session has the socket too.
    answering.shutdown().await;
}

/// Takes datagrams until the socket fails.
async fn take_all(
    listener: &Arc<UdpSocket>,
    vip: &VipKey,
    shared: &Arc<Shared>,
    answering: &mut JoinSet<()>,
) {
    let sessions = Sessions::default();
    loop {
        // Under a flood others have their turn too.
        tokio::task::consume_budget().await;
        while answering.try_join_next().is_some() {}
        if listener.readable().await.is_err() {
            return;
        }
        let Some((client, first)) = receive(listener, &sessions) else { continue };
        let Ok(permit) = shared.udp.clone().try_acquire_owned() else {
            tracing::debug!(%client, "a datagram is dropped: there are as many sessions as may be");
            continue;
        };
        let Some((session, held)) = open(client, vip, shared).await else { continue };
        session.pass(&first);
        sessions.lock().insert(client, session.clone());
        let (listener, sessions) = (listener.clone(), sessions.clone());
        answering.spawn(async move {
            answer(&session, &held, &listener, client).await;
            sessions.lock().remove(&client);
            // Whoever waits for the end of the backend's use sends the next datagram elsewhere.
            drop(held);
            drop(permit);
        });
    }
}

/// Takes a datagram and passes it on, unless its client has no session yet.
fn receive(listener: &UdpSocket, sessions: &Sessions) -> Option<(SocketAddr, Vec<u8>)> {
    DATAGRAM.with_borrow_mut(|datagram| {
        // What a client refused of our answers is reported here as an error, and is nobody's business.
        let (length, client) = listener.try_recv_from(datagram).ok()?;
        match sessions.lock().get(&client) {
            Some(session) => {
                session.pass(&datagram[..length]);
                None
            }
            None => Some((client, datagram[..length].to_vec())),
        }
    })
}

/// Chooses a backend for a client.
async fn open(client: SocketAddr, vip: &VipKey, shared: &Shared) -> Option<(Arc<Session>, Held)> {
    let choice = match shared.choose(vip, client) {
        Ok(choice) => choice,
        Err(refusal) => {
            tracing::debug!(?refusal, %client, "a datagram is dropped");
            return None;
        }
    };
    for (backend, held) in choice.backends {
        match connected(backend).await {
            Ok(socket) => {
                shared.chosen(choice.affinity, client.ip(), backend);
                let session = Session { backend: socket, start: Instant::now(), passed_ms: 0.into() };
                return Some((Arc::new(session), held));
            }
            Err(error) => tracing::debug!(%error, %backend, "no socket for a backend"),
        }
    }
    None
}

async fn connected(backend: SocketAddr) -> io::Result<UdpSocket> {
    let any = match backend {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(backend).await?;
    // Until the runtime has seen it writable, the first datagram would be lost.
    socket.writable().await?;
    Ok(socket)
}

/// Passes on what the backend says until the session ends.
async fn answer(session: &Session, held: &Held, listener: &UdpSocket, client: SocketAddr) {
    loop {
        let silent_until = session.passed() + SILENT_MAX;
        tokio::select! {
            readable = session.backend.readable() => {
                let refused = DATAGRAM.with_borrow_mut(|datagram| match session.backend.try_recv(datagram) {
                    Ok(length) => {
                        session.touch();
                        let _ = listener.try_send_to(&datagram[..length], client);
                        false
                    }
                    Err(error) => error.kind() != io::ErrorKind::WouldBlock,
                });
                // Nobody is there any more: the client's next datagram goes to another.
                if refused || readable.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep_until(silent_until) => {
                if session.passed() + SILENT_MAX <= Instant::now() {
                    return;
                }
            }
            () = held.ended() => return,
        }
    }
}

impl Session {
    /// Sends the backend a datagram. A full socket loses it, as any hop may; a refusal ends the session where answers are
    /// read.
    fn pass(&self, datagram: &[u8]) {
        self.touch();
        let _ = self.backend.try_send(datagram);
    }

    fn touch(&self) {
        self.passed_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn passed(&self) -> Instant {
        self.start + Duration::from_millis(self.passed_ms.load(Ordering::Relaxed))
    }
}
