//! What a program at an interface works on: one packet and what is to become of it.
//!
//! It lies in a map because two addresses of sixteen bytes here and there soon fill the 512 bytes of a program's stack.

use aya_ebpf::bindings::bpf_fib_lookup as FibLookup;
use penstock_ebpf_common::{
    Flow, FlowKey, FlowValue, FragmentKey, FragmentValue, PolicyFlowKey, PolicyFlowValue, Told,
};
use penstock_ebpf_packet::Packet;

use crate::clock::Moment;
use crate::maps::WORK;
use crate::too_big::QUOTE_WORDS;

/// The scratch memory of a packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Work {
    /// The packet as it came.
    pub packet: Packet,
    /// The hash of its key, which both halves of a flow and the choice of a backend go by.
    pub hash: u64,
    /// What it becomes.
    pub to: FlowValue,
    /// The key of a flow's other half.
    pub other: FlowKey,
    /// The hash of that.
    pub other_hash: u64,
    /// The value of a flow's other half.
    pub back: FlowValue,
    /// The other half of a flow, to be put back.
    pub mended: Flow,
    /// A flow of a map that is being replaced.
    pub brought: FlowValue,
    /// The fragmented packet it is part of.
    pub fragment: FragmentKey,
    /// What later fragments are to know.
    pub ports: FragmentValue,
    /// The interface it came by, or leaves by.
    pub ifindex: u32,
    /// The service port it belongs to, for counters; zero for none.
    pub service: u32,
    /// Whether a new flow may keep the client's source port.
    pub keep_port: bool,
    /// Whether it must.
    pub only_port: bool,
    /// Whether its service lets backends of other nodes answer clients themselves.
    pub may_direct: bool,
    /// Whether it is the first of a new flow.
    pub first: bool,
    /// How much longer it becomes by what it tells the backend's node; mostly nothing.
    pub told_length: u32,
    /// How long a packet of it is on a wire, from the IP header on: of segments the card will cut, one.
    pub wire_length: u32,
    /// Who asks for an announced address.
    pub asker: Asker,
    /// The beginning of a packet that is answered.
    pub quote: [u32; QUOTE_WORDS],
    /// The question to the routing table, and its answer.
    pub fib: FibLookup,
    /// When it is decided.
    pub moment: Moment,
    /// What observers are told of it.
    pub told: Told,
    /// The packet as a pod's policies see it.
    pub policy_key: PolicyFlowKey,
    /// What is noted of its flow.
    pub policy_value: PolicyFlowValue,
    /// The link of the pod whose policies judged it last.
    pub judged: u32,
    /// Always zero, which neither compiler nor verifier knows.
    pub zero: u32,
}

/// The link address of who asks.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Asker {
    /// The address.
    pub mac: [u8; 6],
    /// Zero when it has none to be answered by.
    pub is_known: u16,
}

/// This CPU's. The former packet's content is still in it.
#[inline(always)]
pub fn get() -> Option<&'static mut Work> {
    let work = WORK.get_ptr_mut(0)?;
    // SAFETY: an entry of a per-CPU array is this program's alone while it runs (see `WORK`), and each program takes it
    // once.
    Some(unsafe { &mut *work })
}

/// Copies a value by words. The compiler's own copy between places that may overlap calls a function that takes
/// byte after byte, which is slow to run and slower to verify.
#[inline(always)]
pub fn copy<T: Copy>(to: &mut T, from: &T) {
    const { assert!(is_words::<T>()) };
    let (to, from) = (&raw mut *to, &raw const *from);
    let mut at = 0;
    while at < double_words::<T>() {
        // SAFETY: within the values, which are whole words; volatile keeps it from becoming a call again. Where they are not
        // aligned to double words, no machine with these programs minds.
        unsafe { to.cast::<u64>().add(at).write_volatile(from.cast::<u64>().add(at).read_volatile()) };
        at += 1;
    }
    if has_odd_word::<T>() {
        // SAFETY: the last word of the values.
        unsafe {
            to.cast::<u32>().add(2 * at).write_volatile(from.cast::<u32>().add(2 * at).read_volatile())
        };
    }
}

/// Copies a link address.
#[inline(always)]
pub fn copy_mac(to: &mut [u8; 6], from: &[u8; 6]) {
    let (to, from) = (to.as_mut_ptr(), from.as_ptr());
    // SAFETY: four and two bytes of six; volatile and perhaps not aligned as in `copy`.
    unsafe {
        to.cast::<u32>().write_volatile(from.cast::<u32>().read_volatile());
        to.add(4).cast::<u16>().write_volatile(from.add(4).cast::<u16>().read_volatile());
    }
}

/// Fills a value with zeros, likewise.
///
/// # Safety
/// All zeros must be a `T`.
#[inline(always)]
pub unsafe fn clear<T: Copy>(value: &mut T) {
    const { assert!(is_words::<T>()) };
    let words = &raw mut *value;
    let mut at = 0;
    while at < double_words::<T>() {
        // SAFETY: as in `copy`.
        unsafe { words.cast::<u64>().add(at).write_volatile(0) };
        at += 1;
    }
    if has_odd_word::<T>() {
        // SAFETY: as in `copy`.
        unsafe { words.cast::<u32>().add(2 * at).write_volatile(0) };
    }
}

const fn is_words<T>() -> bool {
    size_of::<T>().is_multiple_of(size_of::<u32>()) && align_of::<T>() >= size_of::<u32>()
}

const fn double_words<T>() -> usize {
    size_of::<T>() / size_of::<u64>()
}

const fn has_odd_word<T>() -> bool {
    !size_of::<T>().is_multiple_of(size_of::<u64>())
}
