//! Whether one of this node's own ports is free for a translated flow.
//!
//! The range that flows take ports from leaves out the ports which the node's own connections come from, and NodePorts.
//! But a process may bind any port, and a Service may have any port of the node's address (externalIPs, hostPort). An
//! answer to such a socket would be taken for an answer to the flow.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_F_CURRENT_NETNS;
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use penstock_ebpf_common::{CONFIG_SHARED_PORTS, FlowKey, PROTOCOL_TCP, PROTOCOL_UDP};

use crate::maps::CONFIG;
use crate::service;

/// `struct bpf_sock_tuple` of IPv4.
#[repr(C)]
struct TupleV4 {
    source: u32,
    destination: u32,
    ports: [u16; 2],
}

/// `struct bpf_sock_tuple` of IPv6.
#[repr(C)]
struct TupleV6 {
    source: [u32; 4],
    destination: [u32; 4],
    ports: [u16; 2],
}

/// Whether packets with this key, which is that of the answers to a flow, belong to a service or a socket of the node.
#[inline(always)]
pub fn is_taken(ctx: *mut c_void, answers: &FlowKey) -> bool {
    // Nearly never; and an address that leads nowhere is looked for where no cache is warm.
    if CONFIG.get(0).is_none_or(|config| config.flags & CONFIG_SHARED_PORTS != 0)
        && service::find(answers.destination, answers.destination_port, answers.protocol).is_some()
    {
        return true;
    }
    let ports = [answers.source_port, answers.destination_port];
    if answers.source.is_v4() {
        let (source, destination) = (answers.source.v4(), answers.destination.v4());
        has_socket(ctx, answers.protocol, &mut TupleV4 { source, destination, ports })
    } else {
        let (source, destination) = (answers.source.words, answers.destination.words);
        has_socket(ctx, answers.protocol, &mut TupleV6 { source, destination, ports })
    }
}

#[inline(always)]
fn has_socket<T>(ctx: *mut c_void, protocol: u8, tuple: &mut T) -> bool {
    let (tuple, size) = ((&raw mut *tuple).cast(), size_of::<T>() as u32);
    let here = BPF_F_CURRENT_NETNS as i64 as u64;
    // SAFETY: the context is of this program's type, and the tuple is the kernel's by layout and size.
    let socket = unsafe {
        match protocol {
            PROTOCOL_TCP => bpf_skc_lookup_tcp(ctx, tuple, size, here, 0),
            PROTOCOL_UDP => bpf_sk_lookup_udp(ctx, tuple, size, here, 0),
            _ => return false,
        }
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and taken just now.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}
