//! The programs of the data plane: one file for each attachment point, one for each concept they share.
//!
//! Attachment points: [`connect`], [`sendmsg`], [`recvmsg`], [`getpeername`], [`bind`], each for both families, and
//! [`release`] on the node's cgroup;
//! [`uplink_xdp`] and [`uplink`] on the interface to the outside; [`pod`] on the host's side of each pod's veth;
//! [`pick`] on no traffic, but on maps that user space reads.
//! A service is looked up by address, leads to a set, and the set is one map that is swapped as a whole; programs
//! read it through one pointer taken once. Nothing here knows Kubernetes, and nothing here allocates.
#![no_std]
#![no_main]
// Needed for one instruction that the library does not offer on this target, in `open`.
#![feature(asm_experimental_arch)]

// Attachment points.
mod bind;
mod connect;
mod getpeername;
mod pick;
mod pod;
mod recvmsg;
mod release;
mod sendmsg;
mod uplink;
mod uplink_xdp;

// Concepts.
mod affinity;
mod announce;
mod clock;
mod count;
mod decide;
mod direct;
mod entries;
mod flow;
mod flows;
mod fragment;
mod kept;
mod maps;
mod masquerade;
mod open;
mod peers;
mod pod_drops;
mod pods;
mod policy;
mod ports;
mod rewrite;
mod route;
mod sent;
mod service;
mod settled;
mod socket;
mod source_ranges;
mod tc;
mod tell;
mod too_big;
mod translate;
mod way;
mod work;
mod xdp;

/// Where the other concepts look for it, though it needs no kernel.
use penstock_ebpf_packet::hash;

/// Programs that call kernel helpers marked GPL-only may only load with this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program with a reachable endless loop, and no code path here panics.
    loop {}
}
