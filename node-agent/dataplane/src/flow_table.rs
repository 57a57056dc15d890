//! The table of flows. Must not know what flows are for.

use std::sync::atomic::{AtomicU16, Ordering};

use penstock_ebpf_common::{FLOW_CLOSING, Flow, FlowKey, FlowValue, map};
use penstock_ebpf_packet::hash;
use penstock_ebpf_packet::table::{self as rules, Claimed};

use crate::table::{Entry, Memory, SECOND_NS, Table};

/// The table of flows, opened from its pin.
pub type FlowTable = Table<Flow>;
/// The table of flows in this process's memory.
pub type FlowMemory = Memory<Flow>;

impl Entry for Flow {
    type Key = FlowKey;
    type Value = FlowValue;

    const MAP: &'static str = map::FLOWS;
    const REACH: u32 = u32::MAX;

    fn of(key: &FlowKey, value: &FlowValue) -> Self {
        Self { key: *key, value: *value }
    }

    fn parts(&self) -> (&FlowKey, &FlowValue) {
        (&self.key, &self.value)
    }

    fn hash(key: &FlowKey) -> u64 {
        hash::flow_wide(key)
    }

    /// One that is brought takes the place of none that is younger.
    fn claim(
        memory: &impl rules::Memory<Key = FlowKey>,
        key: &FlowKey,
        value: &FlowValue,
        now_s: u64,
    ) -> Claimed {
        let over = if value.flags & FLOW_CLOSING == 0 { 0 } else { rules::OVER };
        let marks = rules::marks(value.service, value.seen_ns / SECOND_NS) | over;
        rules::claim(memory, Self::hash(key), key, marks, (now_s, rules::worth_of(marks, now_s)))
    }
}

impl FlowMemory {
    /// Has a flow close, in its place: programs find it all the time.
    pub fn close(&self, key: &FlowKey) {
        let Some(found) = self.find(key) else { return };
        // SAFETY: the flags of an entry of the table, which others may change as well.
        let flags = unsafe { &*(&raw mut (*self.0.entry(found.place)).value.flags).cast::<AtomicU16>() };
        flags.fetch_or(FLOW_CLOSING, Ordering::Relaxed);
    }
}
