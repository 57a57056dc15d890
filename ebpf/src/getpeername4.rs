//! getpeername(): the address the program connected to, so that it sees what it asked for.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::Event;

use crate::count;
use crate::maps::PEERS;
use crate::socket;

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context holds the socket.
    let peer = unsafe { PEERS.get_ptr_mut(&ctx) };
    if peer.is_null() {
        return socket::ALLOW;
    }
    // SAFETY: not null, so it is the socket's own storage, valid while the program runs.
    let peer = unsafe { &*peer };
    let (address, port) = socket::peer(&ctx);
    // A UDP socket may have connected elsewhere since.
    if peer.backend == address && peer.backend_port == port {
        socket::set_peer(&ctx, peer.vip, peer.vip_port);
        count::event(Event::PeerNamed);
    }
    socket::ALLOW
}
