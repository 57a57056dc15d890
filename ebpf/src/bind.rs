//! bind() on the node itself: a NodePort is taken, and a listener on it would never be reached.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{Address, Event, Point, TOLD_FIRST, VIP_NODE_PORT, Verdict};

use crate::count;
use crate::service;
use crate::socket::{self, Family, LOOPBACK_V4, LOOPBACK_V6, V4, V6};
use crate::tell;

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    bind::<V4>(&ctx)
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    bind::<V6>(&ctx)
}

#[inline(always)]
fn bind<F: Family>(ctx: &SockAddrContext) -> i32 {
    let (address, port) = socket::peer::<F>(ctx);
    if port == 0 {
        return socket::ALLOW;
    }
    let protocol = socket::protocol(ctx);
    // Bound to every address is bound to the loopback's too, under which each family's NodePorts are listed; and a
    // socket bound to :: takes IPv4 as well, unless it says otherwise, which a program here cannot see.
    let address = socket::listed(address);
    let taken = is_node_port(address, port, protocol)
        || (address == LOOPBACK_V6 && is_node_port(LOOPBACK_V4, port, protocol));
    if !taken || !socket::is_host(ctx) {
        return socket::ALLOW;
    }
    count::event(Event::BindRefused);
    tell::call(ctx, Point::Bind, Verdict::Refused, TOLD_FIRST, 0, &address, port, None);
    socket::fail_with(socket::ADDRESS_IN_USE);
    socket::REFUSE
}

#[inline(always)]
fn is_node_port(address: Address, port: u16, protocol: u8) -> bool {
    service::find(address, port, protocol).is_some_and(|vip| vip.flags & VIP_NODE_PORT != 0)
}
