//! Session affinity: a client that comes again within the timeout gets the backend it had.
//!
//! An entry is always good: user space deletes the entries of a backend when it leaves its sets.

use penstock_ebpf_common::{AffinityKey, AffinityValue, Backend};

use crate::clock;
use crate::kept::AFFINITY;

/// The backend a client had, if it came within the timeout.
#[inline(always)]
pub fn kept(key: &AffinityKey, timeout_seconds: u32) -> Option<Backend> {
    let value = AFFINITY.get_ptr_mut(key)?;
    let now = clock::now_ns();
    // SAFETY: the pointer is valid while the program runs. An entry evicted and reused meanwhile could show another
    // client's backend of the same map generation, which is at worst a lost affinity.
    let value = unsafe { &mut *value };
    if now.saturating_sub(value.seen_ns) > timeout_seconds as u64 * clock::SECOND_NS {
        return None;
    }
    value.seen_ns = now;
    Some(Backend { address: value.address, port: value.port, local: value.local, id: value.id })
}

/// Remembers a client's backend.
#[inline(always)]
pub fn keep(key: &AffinityKey, backend: &Backend) {
    let value = AffinityValue {
        address: backend.address,
        port: backend.port,
        local: backend.local,
        id: backend.id,
        seen_ns: clock::now_ns(),
    };
    // A full map evicts somebody else; a busy one forgets this client. Neither loses traffic.
    let _ = AFFINITY.insert(key, &value, 0);
}
