//! The maps whose entries programs make themselves, through an exchange of the maps. Of those in tables that is [`crate::entries`].
//!
//! When such a map is replaced, by a larger one or by one of another layout, the programs at some hooks still use the former
//! map while those at others use the new one. So for that time programs run that know both: they find what is in either
//! (and bring it over), and what they make or delete they make or delete in both. In what order the hooks get them does
//! not matter then. Once all have them user space brings over the rest and loads the programs again without this;
//! the verifier takes it out, since the switch is a constant to it.

use core::borrow::Borrow;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use penstock_ebpf_common as shared;

use crate::maps;

/// Set by user space when it loads the programs: whether there are former maps.
#[unsafe(no_mangle)]
static CARRY: u32 = 0;

/// Whether maps are being replaced.
#[inline(always)]
pub fn carries() -> bool {
    // SAFETY: a valid place; volatile, for the loader changes the value behind the compiler's back.
    unsafe { (&raw const CARRY).read_volatile() != 0 }
}

/// One map under the names of a hash map's operations.
macro_rules! kept {
    ($(#[$doc:meta])* $name:ident: $type:ident, $former:ident, $key:ty, $value:ty) => {
        $(#[$doc])*
        pub const $name: $type = $type;

        #[doc(hidden)]
        pub struct $type;

        #[allow(dead_code)]
        impl $type {
            /// As of a hash map.
            ///
            /// # Safety
            /// As there: the entry may change while it is read.
            #[inline(always)]
            pub unsafe fn get(&self, key: impl Borrow<$key>) -> Option<&'static $value> {
                // SAFETY: the caller's.
                self.get_ptr(key).map(|found| unsafe { &*found })
            }

            #[inline(always)]
            pub fn get_ptr(&self, key: impl Borrow<$key>) -> Option<*const $value> {
                self.get_ptr_mut(key).map(<*mut $value>::cast_const)
            }

            #[inline(always)]
            pub fn get_ptr_mut(&self, key: impl Borrow<$key>) -> Option<*mut $value> {
                let key = key.borrow();
                let found = maps::$name.get_ptr_mut(key);
                if found.is_none() && carries() {
                    return self.bring(key);
                }
                found
            }

            #[inline(always)]
            pub fn insert(
                &self,
                key: impl Borrow<$key>,
                value: impl Borrow<$value>,
                flags: u64,
            ) -> Result<(), i32> {
                let (key, value) = (key.borrow(), value.borrow());
                if !carries() {
                    return maps::$name.insert(key, value, flags);
                }
                if flags == BPF_NOEXIST as u64 {
                    self.bring(key);
                }
                maps::$name.insert(key, value, flags)?;
                // Full, it evicts what it would have evicted anyway, or refuses what is in the new one.
                let _ = maps::$former.insert(key, value, BPF_ANY as u64);
                Ok(())
            }

            /// The former one first: who brings entries over looks there again after the fact.
            #[inline(always)]
            pub fn remove(&self, key: impl Borrow<$key>) -> Result<(), i32> {
                let key = key.borrow();
                if !carries() {
                    return maps::$name.remove(key);
                }
                let former = maps::$former.remove(key);
                maps::$name.remove(key).or(former)
            }

            /// Brings an entry over, unless it is there.
            #[inline(always)]
            fn bring(&self, key: &$key) -> Option<*mut $value> {
                // SAFETY: copied at once.
                if let Some(former) = unsafe { maps::$former.get(key) } {
                    let _ = maps::$name.insert(key, former, BPF_NOEXIST as u64);
                }
                maps::$name.get_ptr_mut(key)
            }
        }
    };
}

kept!(
    /// See [`maps::SOCKET_FLOWS`].
    SOCKET_FLOWS: SocketFlows, FORMER_SOCKET_FLOWS, shared::SocketFlowKey, shared::SocketFlowValue
);
kept!(
    /// See [`maps::AFFINITY`].
    AFFINITY: Affinity, FORMER_AFFINITY, shared::AffinityKey, shared::AffinityValue
);
