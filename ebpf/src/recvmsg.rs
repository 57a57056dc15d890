//! recvmsg() and recvfrom() that ask who sent: the service's address, not the backend's, or resolvers refuse the answer.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{Event, HALF_REPLY, SocketFlowKey};

use crate::count;
use crate::kept::SOCKET_FLOWS;
use crate::peers;
use crate::socket::{self, Family, V4, V6};

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    recvmsg::<V4>(&ctx)
}

/// Also for IPv4 senders to dual-stack sockets, as mapped addresses.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    recvmsg::<V6>(&ctx)
}

#[inline(always)]
fn recvmsg<F: Family>(ctx: &SockAddrContext) -> i32 {
    let (address, port) = socket::peer::<F>(ctx);
    let cookie = socket::cookie(ctx);
    let key = SocketFlowKey { cookie, address, port, half: HALF_REPLY as u16, zero: 0 };
    // SAFETY: the value is copied at once.
    if let Some(vip) = unsafe { SOCKET_FLOWS.get(&key) }.copied() {
        socket::set_peer::<F>(ctx, &vip.address, vip.port);
        count::event(Event::ReceiveReversed);
        count::service_count(vip.service, |count| count.replies += 1);
        return socket::ALLOW;
    }
    // A connected socket has one peer.
    if let Some(peer) = peers::get(cookie)
        && peer.backend == address
        && peer.backend_port == port
    {
        socket::set_peer::<F>(ctx, &peer.vip, peer.vip_port);
        count::event(Event::ReceiveReversed);
        count::service_count(peer.service, |count| count.replies += 1);
    }
    socket::ALLOW
}
