//! The socket hooks' view of a call: whom it is about, and how to change that. Both families are one code; a
//! [`Family`] is only where in the call the address lies.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{Address, VIP_HOST_ONLY, VIP_SOURCE_RANGES, VipValue};

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

/// 127.0.0.1, which stands for all of 127.0.0.0/8 and 0.0.0.0.
pub const LOOPBACK_V4: Address = Address::from_v4(u32::from_ne_bytes([127, 0, 0, 1]));
/// ::1, which stands for :: too.
pub const LOOPBACK_V6: Address = Address { words: [0, 0, 0, 1_u32.to_be()] };
const LOOPBACK_NET: u32 = 127;

/// Where a call's address lies. The hooks of AF_INET6 see IPv4 peers as mapped addresses, which is how maps hold them.
pub trait Family {
    /// Reads it.
    fn address(call: *const bpf_sock_addr) -> Address;
    /// Replaces it.
    fn set_address(call: *mut bpf_sock_addr, address: &Address);
    /// Whether a call of this family can carry an address.
    fn carries(address: &Address) -> bool;
}

/// AF_INET.
pub enum V4 {}
/// AF_INET6.
pub enum V6 {}

// Volatile keeps each access one load or store of one word, which is all the verifier allows.
impl Family for V4 {
    #[inline(always)]
    fn address(call: *const bpf_sock_addr) -> Address {
        // SAFETY: the context is valid in every hook.
        Address::from_v4(unsafe { (&raw const (*call).user_ip4).read_volatile() })
    }

    #[inline(always)]
    fn set_address(call: *mut bpf_sock_addr, address: &Address) {
        // SAFETY: the context is valid, and the field writable in every hook this is called from.
        unsafe { (&raw mut (*call).user_ip4).write_volatile(address.v4()) }
    }

    #[inline(always)]
    fn carries(address: &Address) -> bool {
        address.is_v4()
    }
}

impl Family for V6 {
    #[inline(always)]
    fn address(call: *const bpf_sock_addr) -> Address {
        // SAFETY: as above.
        unsafe {
            let words = (&raw const (*call).user_ip6).cast::<u32>();
            Address {
                words: [
                    words.read_volatile(),
                    words.add(1).read_volatile(),
                    words.add(2).read_volatile(),
                    words.add(3).read_volatile(),
                ],
            }
        }
    }

    #[inline(always)]
    fn set_address(call: *mut bpf_sock_addr, address: &Address) {
        // SAFETY: as above.
        unsafe {
            let words = (&raw mut (*call).user_ip6).cast::<u32>();
            words.write_volatile(address.words[0]);
            words.add(1).write_volatile(address.words[1]);
            words.add(2).write_volatile(address.words[2]);
            words.add(3).write_volatile(address.words[3]);
        }
    }

    #[inline(always)]
    fn carries(_: &Address) -> bool {
        true
    }
}

/// The peer named in the call: address, and port in network order.
#[inline(always)]
pub fn peer<F: Family>(ctx: &SockAddrContext) -> (Address, u16) {
    let call: *const bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the context is valid.
    (F::address(call), unsafe { (&raw const (*call).user_port).read_volatile() as u16 })
}

/// Replaces the peer.
#[inline(always)]
pub fn set_peer<F: Family>(ctx: &SockAddrContext, address: &Address, port: u16) {
    F::set_address(ctx.sock_addr, address);
    // SAFETY: the context is valid, and the field writable in every hook this is called from.
    unsafe { (&raw mut (*ctx.sock_addr).user_port).write_volatile(port as u32) }
}

/// The socket's IP protocol.
#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u8 {
    // SAFETY: as in `peer`.
    unsafe { (&raw const (*ctx.sock_addr).protocol).read_volatile() as u8 }
}

/// The socket's own address family, whatever that of the call.
#[inline(always)]
pub fn family(ctx: &SockAddrContext) -> u8 {
    // SAFETY: as in `peer`.
    unsafe { (&raw const (*ctx.sock_addr).family).read_volatile() as u8 }
}

/// The kernel's number of the socket.
#[inline(always)]
pub fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the context of this program type.
    unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) }
}

/// Where the kernel has the socket in its memory.
#[inline(always)]
pub fn place(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context is valid, and the field readable in every hook.
    unsafe { (&raw const (*ctx.sock_addr).__bindgen_anon_1.sk).read_volatile() as u64 }
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
pub fn service(ctx: &SockAddrContext, address: &Address, port: u16) -> Option<VipValue> {
    let vip = service::find(listed(*address), port, protocol(ctx))?;
    if vip.inside == 0 || (vip.flags & VIP_HOST_ONLY != 0 && !is_host(ctx)) {
        return None;
    }
    // Who may use the address is decided where the client's own address is known: at its packets.
    if vip.flags & VIP_SOURCE_RANGES != 0 && !is_host(ctx) {
        return None;
    }
    Some(vip)
}

/// The address under which a peer is listed: a node's own NodePorts are listed under one address of each family's
/// loopback. To connect to no address is to connect to the loopback.
#[inline(always)]
pub fn listed(address: Address) -> Address {
    if address.is_v4() {
        let v4 = address.v4();
        if v4 == 0 || u32::from_be(v4) >> 24 == LOOPBACK_NET {
            return LOOPBACK_V4;
        }
    } else if address.words == [0; 4] {
        return LOOPBACK_V6;
    }
    address
}
