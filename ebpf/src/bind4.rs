//! bind() of IPv4 sockets on the node itself: a NodePort is taken, and a listener on it would never be reached.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{Event, VIP_NODE_PORT};

use crate::count;
use crate::maps::CONFIG;
use crate::service;
use crate::socket;

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    let (address, port) = socket::peer(&ctx);
    if port == 0 {
        return socket::ALLOW;
    }
    let Some(config) = CONFIG.get(0) else {
        return socket::ALLOW;
    };
    // Bound to every address is bound to the node's.
    let asked = if address.v4() == 0 { config.node_address } else { address };
    let Some(vip) = service::find(asked, port, socket::protocol(&ctx)) else {
        return socket::ALLOW;
    };
    if vip.flags & VIP_NODE_PORT == 0 || !socket::is_host(&ctx) {
        return socket::ALLOW;
    }
    count::event(Event::BindRefused);
    socket::fail_with(socket::ADDRESS_IN_USE);
    socket::REFUSE
}
