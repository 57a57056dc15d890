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
use penstock_ebpf_common::{
    ENTRIES_PER_BUCKET, PeerBucket, Picked, SocketFlowKey, SocketFlowValue, SocketHead,
};
use penstock_ebpf_packet::table;

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
    unsafe { pick(element, |value| (&raw const (*value).service).read_volatile()) }
}

/// Of a table whole buckets are the entries of the map.
#[unsafe(link_section = "iter/bpf_map_elem")]
#[unsafe(no_mangle)]
extern "C" fn pick_peers(element: *const Element<u32, PeerBucket>) -> i32 {
    // SAFETY: as above.
    let (seq, bucket) = unsafe { (seq_of(element), (&raw const (*element).value).read_volatile()) };
    if bucket.is_null() {
        return NEXT;
    }
    for way in 0..ENTRIES_PER_BUCKET {
        // SAFETY: one of as many heads and entries; volatile, for others write meanwhile.
        let (head, known) =
            unsafe { ((&raw const (*bucket).heads[way]).read_volatile(), &raw const (*bucket).peers[way]) };
        if table::group_of(head).is_some_and(|group| is_wanted(group.into())) {
            // SAFETY: within the entry.
            let place = unsafe { (&raw const (*known).peer.place).read_volatile() };
            tell(seq, known);
            tell(seq, &head_at(place));
        }
    }
    NEXT
}

/// Tells an entry of a wanted service.
///
/// # Safety
/// The context is the kernel's, of a map with such keys and values.
#[inline(always)]
unsafe fn pick<K, V>(element: *const Element<K, V>, service: impl FnOnce(*const V) -> u32) -> i32 {
    // SAFETY: the caller's. Volatile keeps each access to the context one load, which is all the verifier allows.
    let (key, value) = unsafe {
        ((&raw const (*element).key).read_volatile(), (&raw const (*element).value).read_volatile())
    };
    if key.is_null() || value.is_null() || !is_wanted(service(value)) {
        return NEXT;
    }
    // SAFETY: as above.
    let seq = unsafe { seq_of(element) };
    tell(seq, key);
    tell(seq, value);
    NEXT
}

/// Where to tell.
///
/// # Safety
/// The context is the kernel's.
#[inline(always)]
unsafe fn seq_of<K, V>(element: *const Element<K, V>) -> *mut seq_file {
    // SAFETY: the caller's; volatile as in `pick`.
    unsafe { (&raw const (*(&raw const (*element).meta).read_volatile()).seq).read_volatile() }
}

/// Whether entries of a service are wanted.
#[inline(always)]
fn is_wanted(service: u32) -> bool {
    let (word, bit) = Picked::place(service);
    PICKED.get(0).is_some_and(|picked| picked.words[word] & bit != 0)
}

/// What is known of a socket at the place the connect hook saw it at. It may have closed since, and another be there.
#[inline(always)]
fn head_at(place: u64) -> SocketHead {
    // SAFETY: the helper takes any address, and fails where nothing can be read.
    unsafe { bpf_probe_read_kernel(place as *const SocketHead) }.unwrap_or_default()
}

/// Hands bytes to user space. When its buffer is full the kernel calls again for the same entry.
#[inline(always)]
fn tell<T>(seq: *mut seq_file, bytes: *const T) {
    // SAFETY: the bytes are as many as the type has.
    unsafe { bpf_seq_write(seq, bytes.cast(), size_of::<T>() as u32) };
}
