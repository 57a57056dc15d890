//! recvmsg() and recvfrom() that ask who sent: the service's address, not the backend's, or resolvers refuse the answer.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{Event, HALF_REPLY, SocketFlowKey};

use crate::count;
use crate::maps::{PEERS, SOCKET_FLOWS};
use crate::socket;

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    let (address, port) = socket::peer(&ctx);
    let key = SocketFlowKey { cookie: socket::cookie(&ctx), address, port, half: HALF_REPLY as u16, zero: 0 };
    // SAFETY: the value is copied at once.
    if let Some(vip) = unsafe { SOCKET_FLOWS.get(&key) }.copied() {
        socket::set_peer(&ctx, vip.address, vip.port);
        count::event(Event::ReceiveReversed);
        count::service_count(vip.service, |count| count.replies += 1);
        return socket::ALLOW;
    }
    // A connected socket has one peer.
    // SAFETY: the context holds the socket.
    let peer = unsafe { PEERS.get_ptr_mut(&ctx) };
    if !peer.is_null() {
        // SAFETY: not null, so it is the socket's own storage, valid while the program runs.
        let peer = unsafe { &*peer };
        if peer.backend == address && peer.backend_port == port {
            socket::set_peer(&ctx, peer.vip, peer.vip_port);
            count::event(Event::ReceiveReversed);
            count::service_count(peer.service, |count| count.replies += 1);
        }
    }
    socket::ALLOW
}
