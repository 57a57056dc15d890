//! Changing a packet's addresses and ports, and every checksum over them.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::{FlowValue, PROTOCOL_UDP};

use crate::packet::{IP_OFFSET, Packet};

const IP_CHECKSUM: usize = IP_OFFSET + 10;
const IP_SOURCE: usize = IP_OFFSET + 12;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// Gives the packet the addresses and ports of a flow. On an error the packet may be half changed: drop it.
///
/// Address changes are told apart from port changes because a checksum left to the network card (CHECKSUM_PARTIAL)
/// holds the pseudo header only. A UDP checksum of zero means none and stays zero.
#[inline(always)]
pub fn apply(ctx: &TcContext, packet: &Packet, to: &FlowValue) -> Result<(), i64> {
    let (source, destination) = (to.source.v4(), to.destination.v4());
    let addresses = difference(packet.source, source) + difference(packet.destination, destination);
    let ports = difference(packet.source_port as u32, to.source_port as u32)
        + difference(packet.destination_port as u32, to.destination_port as u32);
    let (checksum, flags) = if packet.protocol == PROTOCOL_UDP {
        (packet.transport + UDP_CHECKSUM, BPF_F_MARK_MANGLED_0 as u64)
    } else {
        (packet.transport + TCP_CHECKSUM, 0)
    };
    // Size 0 says: `to` is already a difference.
    ctx.l4_csum_replace(checksum, 0, fold(addresses), flags | BPF_F_PSEUDO_HDR as u64)?;
    ctx.l4_csum_replace(checksum, 0, fold(ports), flags)?;
    ctx.l3_csum_replace(IP_CHECKSUM, 0, fold(addresses), 0)?;
    ctx.store(IP_SOURCE, &[source, destination], 0)?;
    ctx.store(packet.transport, &[to.source_port, to.destination_port], 0)
}

/// One word's part in the difference of two ones' complement sums.
#[inline(always)]
fn difference(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

/// Brings a sum of such parts back to 32 bits.
#[inline(always)]
fn fold(sum: u64) -> u64 {
    let once = (sum & 0xffff_ffff) + (sum >> 32);
    (once & 0xffff_ffff) + (once >> 32)
}
