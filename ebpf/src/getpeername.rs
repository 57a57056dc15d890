//! getpeername(): the address the program connected to, so that it sees what it asked for.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::Event;

use crate::count;
use crate::peers;
use crate::socket::{self, Family, V4, V6};

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    getpeername::<V4>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    getpeername::<V6>(&ctx)
}

#[inline(always)]
fn getpeername<F: Family>(ctx: &SockAddrContext) -> i32 {
    let Some(peer) = peers::get(socket::cookie(ctx)) else {
        return socket::ALLOW;
    };
    let (address, port) = socket::peer::<F>(ctx);
    // A UDP socket may have connected elsewhere since.
    if peer.backend == address && peer.backend_port == port {
        socket::set_peer::<F>(ctx, &peer.vip, peer.vip_port);
        count::event(Event::PeerNamed);
    }
    socket::ALLOW
}
