//! One address of TCP: every connection is taken, a backend connected to, and bytes copied both ways until both ends have
//! said all, or one is gone.
//!
//! A client whose backend cannot be reached is given another one before a byte was copied. A connection that ends badly
//! on one side ends so on the other. Must not know why a backend is the one.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use penstock_ebpf_common::VipKey;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::connections::Held;
use crate::shared::Shared;

/// How long one backend may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What was sent and is not acknowledged for this long means that the other side is gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);
/// Pause after a connection could not be taken, which is for want of descriptors or memory.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Serves an address until it is closed or dropped. Connections under way go on then.
pub async fn serve(listener: TcpListener, vip: VipKey, shared: Arc<Shared>, closing: CancellationToken) {
    tokio::select! {
        () = take_all(&listener, vip, &shared) => {}
        () = closing.cancelled() => {}
    }
}

/// Takes connections until the process goes.
async fn take_all(listener: &TcpListener, vip: VipKey, shared: &Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((client, peer)) => {
                // Beyond the bound this one waits here, and those after it in the backlog.
                let Ok(permit) = shared.tcp.clone().acquire_owned().await else { return };
                let shared = shared.clone();
                tokio::spawn(async move {
                    carry(client, peer, vip, &shared).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

async fn carry(mut client: TcpStream, peer: SocketAddr, vip: VipKey, shared: &Shared) {
    let Some((mut backend, held)) = connect(peer, &vip, shared).await else {
        return abort(&client);
    };
    for stream in [&client, &backend] {
        prepare(stream);
    }
    let ended_well = tokio::select! {
        copied = copy_bidirectional(&mut client, &mut backend) => copied.is_ok(),
        () = held.ended() => false,
    };
    if !ended_well {
        abort(&client);
        abort(&backend);
    }
    // Whoever waits for the end waits for what the peers see of it.
    drop((client, backend));
    drop(held);
}

/// A connection to a backend that may have the client.
async fn connect(peer: SocketAddr, vip: &VipKey, shared: &Shared) -> Option<(TcpStream, Held)> {
    let choice = match shared.choose(vip, peer) {
        Ok(choice) => choice,
        Err(refusal) => {
            tracing::debug!(?refusal, %peer, "a connection is refused");
            return None;
        }
    };
    for (backend, held) in choice.backends {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(backend));
        let connected = tokio::select! {
            connected = connecting => connected,
            () = held.ended() => continue,
        };
        match connected {
            Ok(Ok(stream)) => {
                shared.chosen(choice.affinity, peer.ip(), backend);
                return Some((stream, held));
            }
            Ok(Err(error)) => tracing::debug!(%error, %backend, "a backend does not answer"),
            Err(_) => tracing::debug!(%backend, "a backend does not answer in time"),
        }
    }
    None
}

/// Small writes go out at once, as they came in; a peer that vanished is noticed.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    let _ = setsockopt(stream, sockopt::TcpUserTimeout, &(UNACKNOWLEDGED_MAX.as_millis() as u32));
}

/// Has the peer see a reset, not an orderly end, and at once: a close would wait for every process that was forked with
/// this descriptor and has not begun its own program yet, and the address may be the node's no more by then.
fn abort(stream: &TcpStream) {
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    // SAFETY: the address is alive during the call and as long as is said.
    let outcome =
        unsafe { libc::connect(stream.as_raw_fd(), &nobody, size_of_val(&nobody) as libc::socklen_t) };
    if outcome != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "a connection is closed instead of reset");
    }
}
