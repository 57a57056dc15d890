//! Sockets: UDP and TCP on one address.
//!
//! It exists to move packets and to bound them: workers, connections, waiting questions. It must not know what a
//! name means.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::forward::Forwarder;
use crate::respond::{Step, complete, encode, respond, udp_bytes_max};
use crate::zone::Zone;

/// TCP connections at once; further ones wait in the listen queue.
pub const TCP_CONNECTIONS_MAX: usize = 128;
/// Tasks that read the UDP socket.
const UDP_READERS: usize = 2;
/// Largest query read over UDP.
const UDP_QUERY_BYTES_MAX: usize = 4096;
/// How long a TCP connection may be silent.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Queries answered on one TCP connection.
const TCP_QUERIES_MAX: usize = 1000;

/// Bound sockets. Binding is apart from serving, so that it can happen in another network namespace.
#[derive(Debug)]
pub struct Listening {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl Listening {
    /// Binds both at `address`, in the calling thread's network namespace.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = std::net::TcpListener::bind(address)?;
        // With port 0 both must be the same one.
        let udp = std::net::UdpSocket::bind(tcp.local_addr()?)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }

    /// Where.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Serves until `shutdown`.
pub async fn serve(
    listening: Listening,
    zone: Arc<ArcSwap<Zone>>,
    forwarder: Arc<Forwarder>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let desk = Arc::new(Desk { zone, forwarder, rotation: AtomicUsize::new(0) });
    let udp = Arc::new(UdpSocket::from_std(listening.udp)?);
    let tcp = TcpListener::from_std(listening.tcp)?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..UDP_READERS {
        tasks.spawn(serve_udp(desk.clone(), udp.clone()));
    }
    tasks.spawn(serve_tcp(desk, tcp));
    shutdown.cancelled().await;
    tasks.shutdown().await;
    Ok(())
}

struct Desk {
    zone: Arc<ArcSwap<Zone>>,
    forwarder: Arc<Forwarder>,
    rotation: AtomicUsize,
}

impl Desk {
    fn respond(&self, packet: &[u8]) -> Step {
        respond(&self.zone, packet, self.rotation.fetch_add(1, Ordering::Relaxed))
    }
}

async fn serve_udp(desk: Arc<Desk>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; UDP_QUERY_BYTES_MAX];
    loop {
        // Errors are those of earlier sends (ICMP) or passing; the socket itself does not break.
        let Ok((length, asker)) = socket.recv_from(&mut buffer).await else { continue };
        let packet = &buffer[..length];
        let bytes_max = udp_bytes_max(packet);
        match desk.respond(packet) {
            Step::Ignore => {}
            Step::Done(response) => {
                if let Some(bytes) = encode(&response, bytes_max) {
                    let _ = socket.send_to(&bytes, asker).await;
                }
            }
            // The forwarder refuses at its limit without waiting, so these tasks are bounded by it.
            Step::Ask { response, query } => {
                let (desk, socket) = (desk.clone(), socket.clone());
                tokio::spawn(async move {
                    let response = complete(&desk.forwarder, *response, &query).await;
                    if let Some(bytes) = encode(&response, bytes_max) {
                        let _ = socket.send_to(&bytes, asker).await;
                    }
                });
            }
        }
    }
}

async fn serve_tcp(desk: Arc<Desk>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    let _ = serve_connection(&desk, stream).await;
                    drop(slot);
                });
            }
            // Out of file descriptors, most likely: give others time to close theirs.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve_connection(desk: &Desk, mut stream: TcpStream) -> io::Result<()> {
    for _ in 0..TCP_QUERIES_MAX {
        let packet = tokio::time::timeout(TCP_IDLE, read_packet(&mut stream)).await??;
        let response = match desk.respond(&packet) {
            Step::Ignore => return Ok(()),
            Step::Done(response) => response,
            Step::Ask { response, query } => complete(&desk.forwarder, *response, &query).await,
        };
        let Some(bytes) = encode(&response, usize::from(u16::MAX)) else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &bytes].concat();
        tokio::time::timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
    Ok(())
}

async fn read_packet(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

#[cfg(test)]
mod tests;
