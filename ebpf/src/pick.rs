//! A map is read by user space: the entries of the services it asks for, and no others.
//!
//! Reading a whole map costs a lock and two copies for each bucket that is not empty; here it costs a look. The kernel runs
//! these programs on one entry after the other (iter/bpf_map_elem, Linux 5.8). Where it does not take them user space
//! reads whole maps, so nothing else may depend on them.
//!
//! Of a connected socket its own end is read too: the connect hook runs before the kernel has chosen a port.

use core::ffi::c_void;

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_seq_write;
use penstock_ebpf_common::{Peer, Picked, SocketFlowKey, SocketFlowValue, SocketHead};

use crate::maps::PICKED;

/// struct bpf_iter__bpf_map_elem.
#[repr(C)]
struct Element<K, V> {
    meta: *const Meta,
    map: *const c_void,
    /// None at the end, as the value.
    key: *const K,
    value: *const V,
}

/// struct bpf_iter_meta, as far as it is used.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// Goes on with the next entry.
const NEXT: i32 = 0;

#[unsafe(link_section = "iter/bpf_map_elem")]
#[unsafe(no_mangle)]
extern "C" fn pick_socket_flows(element: *const Element<SocketFlowKey, SocketFlowValue>) -> i32 {
    // SAFETY: the kernel gives the context, and user space the map that the types are of.
    unsafe { pick(element, |value| (&raw const (*value).service).read_volatile(), |_, _| {}) }
}

#[unsafe(link_section = "iter/bpf_map_elem")]
#[unsafe(no_mangle)]
extern "C" fn pick_peers(element: *const Element<u64, Peer>) -> i32 {
    // SAFETY: as above.
    unsafe { pick(element, |value| (&raw const (*value).service).read_volatile(), tell_head) }
}

/// Tells an entry of a wanted service, and what else belongs to it.
///
/// # Safety
/// The context is the kernel's, of a map with such keys and values.
#[inline(always)]
unsafe fn pick<K, V>(
    element: *const Element<K, V>,
    service: impl FnOnce(*const V) -> u32,
    more: impl FnOnce(*mut seq_file, *const V),
) -> i32 {
    // SAFETY: the caller's. Volatile keeps each access to the context one load, which is all the verifier allows.
    let (meta, key, value) = unsafe {
        (
            (&raw const (*element).meta).read_volatile(),
            (&raw const (*element).key).read_volatile(),
            (&raw const (*element).value).read_volatile(),
        )
    };
    if key.is_null() || value.is_null() {
        return NEXT;
    }
    let (word, bit) = Picked::place(service(value));
    if PICKED.get(0).is_none_or(|picked| picked.words[word] & bit == 0) {
        return NEXT;
    }
    // SAFETY: as above.
    let seq = unsafe { (&raw const (*meta).seq).read_volatile() };
    tell(seq, key);
    tell(seq, value);
    more(seq, value);
    NEXT
}

/// What is known of a socket at the place the connect hook saw it at. It may have closed since, and another be there.
#[inline(always)]
fn tell_head(seq: *mut seq_file, peer: *const Peer) {
    // SAFETY: the entry is there as long as the program runs.
    let place = unsafe { (&raw const (*peer).place).read_volatile() } as *const SocketHead;
    // SAFETY: the helper takes any address, and fails where nothing can be read.
    let head = unsafe { bpf_probe_read_kernel(place) }.unwrap_or_default();
    tell(seq, &head);
}

/// Hands bytes to user space. When its buffer is full the kernel calls again for the same entry.
#[inline(always)]
fn tell<T>(seq: *mut seq_file, bytes: *const T) {
    // SAFETY: the bytes are as many as the type has.
    unsafe { bpf_seq_write(seq, bytes.cast(), size_of::<T>() as u32) };
}
