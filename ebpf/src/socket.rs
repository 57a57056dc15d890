//! The socket hooks' view of a call: whom it is about, and how to change that.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{Address, VIP_HOST_ONLY, VipValue};

use crate::maps::CONFIG;
use crate::service;

/// Lets the call go on.
pub const ALLOW: i32 = 1;
/// Makes the call fail with the error set before, or EPERM.
pub const REFUSE: i32 = 0;

/// ECONNREFUSED, as the kernel wants it.
pub const CONNECTION_REFUSED: i32 = -111;
/// EADDRINUSE, as the kernel wants it.
pub const ADDRESS_IN_USE: i32 = -98;

const LOOPBACK_NET: u32 = 127;

/// The peer named in the call: address, and port in network order.
#[inline(always)]
pub fn peer(ctx: &SockAddrContext) -> (Address, u16) {
    let call: *const bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the context is valid; volatile keeps each access one load of one field, which is all the verifier allows.
    unsafe {
        (
            Address::from_v4((&raw const (*call).user_ip4).read_volatile()),
            (&raw const (*call).user_port).read_volatile() as u16,
        )
    }
}

/// Replaces the peer.
#[inline(always)]
pub fn set_peer(ctx: &SockAddrContext, address: Address, port: u16) {
    let call = ctx.sock_addr;
    // SAFETY: as in `peer`; both fields are writable in every hook this is called from.
    unsafe {
        (&raw mut (*call).user_ip4).write_volatile(address.v4());
        (&raw mut (*call).user_port).write_volatile(port as u32);
    }
}

/// The socket's IP protocol.
#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u8 {
    // SAFETY: as in `peer`.
    unsafe { (&raw const (*ctx.sock_addr).protocol).read_volatile() as u8 }
}

/// The kernel's number of the socket.
#[inline(always)]
pub fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the context of this program type.
    unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) }
}

/// The number of the network namespace the socket is in.
#[inline(always)]
pub fn netns_cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the context of this program type.
    unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) }
}

/// Whether the socket is in the node's own network namespace, not in a pod's.
#[inline(always)]
pub fn is_host(ctx: &SockAddrContext) -> bool {
    CONFIG.get(0).is_some_and(|config| config.netns_cookie == netns_cookie(ctx))
}

/// Makes the refused call fail with this error instead of EPERM.
#[inline(always)]
pub fn fail_with(error: i32) {
    // SAFETY: the helper takes a number; in the hooks that may not call it the verifier would refuse the program.
    unsafe { bpf_set_retval(error) };
}

/// The service the call's peer stands for, as seen from this socket.
#[inline(always)]
pub fn service(ctx: &SockAddrContext, address: Address, port: u16) -> Option<VipValue> {
    let host_only = is_loopback(address);
    // All of 127.0.0.0/8 is one host; its NodePorts are listed under one address.
    let listed = if host_only { LOOPBACK } else { address };
    let vip = service::find(listed, port, protocol(ctx))?;
    if vip.inside == 0 || (vip.flags & VIP_HOST_ONLY != 0 && !is_host(ctx)) {
        return None;
    }
    Some(vip)
}

const LOOPBACK: Address = Address::from_v4(u32::from_ne_bytes([127, 0, 0, 1]));

#[inline(always)]
fn is_loopback(address: Address) -> bool {
    u32::from_be(address.v4()) >> 24 == LOOPBACK_NET
}
