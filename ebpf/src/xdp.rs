//! Frames as programs at XDP see them: memory of the packet, read and written in place.
//!
//! Headers are read only where they lie in nearly every packet. A packet that is passed on is passed unchanged, so that
//! the programs at tc, which see every packet that is not sent from here, decide it anew and come to the same.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use penstock_ebpf_common::{PROTOCOL_UDP, Reason};
use penstock_ebpf_packet::checksum::{address_difference, difference, difference16, mended, pseudo_header};
use penstock_ebpf_packet::header::{
    Frame, IP_OFFSET, IPV4_LENGTH, IPV6_LENGTH, Ipv4, Ipv6, Plain, TCP_CHECKSUM, UDP_CHECKSUM,
};

use crate::decide::{Hook, Side, answer, outcome};
use crate::flow;
use crate::work::{self, Work};

/// A frame at XDP.
pub struct Xdp<'a>(pub &'a XdpContext);

impl Frame for Xdp<'_> {
    const FIXED: bool = true;

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        self.load(12).unwrap_or(0)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        (self.0.data_end() - self.0.data()) as u32
    }

    #[inline(always)]
    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        // SAFETY: the place is within the packet, and every pattern of bits is a `T`. It may not be aligned, which the
        // machines that packets are read in place on do not mind; an unaligned read would be one of single bytes.
        self.at::<T>(offset).map(|place| unsafe { *place })
    }
}

impl Hook for Xdp<'_> {
    #[inline(always)]
    fn open(&self, side: Side, set: u32) -> Result<(), Reason> {
        outcome(penstock_xdp_open(self.0.ctx, side as u32, set))
    }

    #[inline(always)]
    fn make(&self) -> Result<(), Reason> {
        outcome(penstock_xdp_make(self.0.ctx))
    }

    #[inline(always)]
    fn is_taken(&self) -> bool {
        penstock_xdp_is_taken(self.0.ctx) != 0
    }
}

impl Xdp<'_> {
    /// A place in the packet where a `T` lies as a whole.
    #[inline(always)]
    fn at<T: Plain>(&self, offset: u32) -> Option<*mut T> {
        let place = self.0.data() + offset as usize;
        (place + size_of::<T>() <= self.0.data_end()).then_some(place as *mut T)
    }

    #[inline(always)]
    fn store<T: Plain>(&self, offset: u32, value: T) -> Option<()> {
        // SAFETY: as in `load`.
        self.at::<T>(offset).map(|place| unsafe { *place = value })
    }

    /// The interface the packet came by.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid; one load of one field.
        unsafe { (&raw const (*self.0.ctx).ingress_ifindex).read_volatile() }
    }

    /// The link address the frame is sent to, its six bytes at the beginning of eight.
    #[inline(always)]
    pub fn receiver(&self) -> Option<u64> {
        Some(u64::from(self.load::<u32>(0)?) | u64::from(self.load::<u16>(4)?) << 32)
    }

    /// Whether the packet's checksum is left to a network card that it never met: it came from a neighbour on the same
    /// machine, and holds the sum of the pseudo header only. One right checksum in 65,535 looks the same.
    #[inline(always)]
    pub fn is_unfinished(&self, work: &Work) -> bool {
        let key = &work.packet.key;
        let field = match (key.source.is_v4(), key.protocol) {
            (true, PROTOCOL_UDP) => self.load::<u16>(IP_OFFSET + IPV4_LENGTH + UDP_CHECKSUM),
            (true, _) => self.load(IP_OFFSET + IPV4_LENGTH + TCP_CHECKSUM),
            (false, PROTOCOL_UDP) => self.load(IP_OFFSET + IPV6_LENGTH + UDP_CHECKSUM),
            (false, _) => self.load(IP_OFFSET + IPV6_LENGTH + TCP_CHECKSUM),
        };
        let length = (IP_OFFSET + work.packet.length).saturating_sub(work.packet.transport);
        field == Some(pseudo_header(key, length))
    }

    /// Makes the packet what the work says, less a hop, and addresses it to the next one. None when it ends too early,
    /// which the parser has ruled out: drop it.
    #[inline(always)]
    pub fn rewrite(&self, work: &Work) -> Option<()> {
        // The frame leaves by the interface that it was sent to.
        let own: [u8; 6] = self.load(0)?;
        self.link_address(0, &work.fib.dmac)?;
        self.link_address(6, &own)?;
        let (key, to) = (&work.packet.key, &work.to);
        let hops = work.packet.hops.wrapping_sub(1);
        if key.source.is_v4() {
            let addresses = difference(key.source.v4(), to.source.v4())
                + difference(key.destination.v4(), to.destination.v4());
            let ip = self.at::<Ipv4>(IP_OFFSET)?;
            // Time to live is the first byte of its half word.
            let changed = addresses + difference16(u16::from(work.packet.hops), u16::from(hops));
            // SAFETY: as in `load`; nothing else refers to the header.
            unsafe {
                (*ip).hops = hops;
                (*ip).checksum = mended((*ip).checksum, changed);
                (*ip).source = to.source.v4();
                (*ip).destination = to.destination.v4();
            }
            return self.ports(work, IP_OFFSET + IPV4_LENGTH, addresses);
        }
        let addresses = address_difference(&key.source, &to.source)
            + address_difference(&key.destination, &to.destination);
        let ip = self.at::<Ipv6>(IP_OFFSET)?;
        // SAFETY: as above.
        unsafe {
            (*ip).hops = hops;
            (*ip).source = to.source.words;
            (*ip).destination = to.destination.words;
        }
        self.ports(work, IP_OFFSET + IPV6_LENGTH, addresses)
    }

    #[inline(always)]
    fn link_address(&self, offset: u32, address: &[u8; 6]) -> Option<()> {
        let from = address.as_ptr();
        // SAFETY: both parts are within the six bytes; as for alignment see `load`.
        let (first, last) = unsafe { (*from.cast::<u32>(), *from.add(4).cast::<u16>()) };
        self.store(offset, first)?;
        self.store(offset + 4, last)
    }

    /// TCP and UDP.
    #[inline(always)]
    fn ports(&self, work: &Work, transport: u32, addresses: u64) -> Option<()> {
        let (key, to) = (&work.packet.key, &work.to);
        let changed = addresses
            + difference16(key.source_port, to.source_port)
            + difference16(key.destination_port, to.destination_port);
        self.store(transport, [to.source_port, to.destination_port])?;
        if key.protocol != PROTOCOL_UDP {
            let old: u16 = self.load(transport + TCP_CHECKSUM)?;
            return self.store(transport + TCP_CHECKSUM, mended(old, changed));
        }
        let old: u16 = self.load(transport + UDP_CHECKSUM)?;
        // Zero means that there is none and stays zero; a sum that is zero is written as its other name.
        if old == 0 {
            return Some(());
        }
        let new = mended(old, changed);
        self.store(transport + UDP_CHECKSUM, if new == 0 { 0xffff } else { new })
    }
}

// === Steps: as in `tc`, proven once each ===

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_xdp_open(ctx: *mut xdp_md, side: u32, set: u32) -> u32 {
    let side = if side == Side::Uplink as u32 { Side::Uplink } else { Side::Pod };
    answer(work::get().ok_or(Reason::NoSet).and_then(|work| crate::decide::open(ctx.cast(), side, set, work)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_xdp_make(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    answer(work::get().ok_or(Reason::NoSet).and_then(|work| flow::make(&Xdp(&ctx), work)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_xdp_is_taken(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    work::get().is_some_and(|work| flow::is_taken(ctx.as_ptr(), work)) as u32
}
