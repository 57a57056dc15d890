//! Which entries of maps that evict are worth bringing over when not all of them fit: those that would be missed.
//!
//! An entry that is brought counts as the newest of its new map, and pushes others out of it that programs have just made. So
//! only what there is room for is brought, the best first. Pure.

use penstock_ebpf_common::{AffinityValue, FLOW_CLOSING, FlowKey, FlowValue, PROTOCOL_UDP, map};

/// How much an entry is worth, more being better: first what would break, then what was used last.
pub type Rank = (bool, u64);

/// The rank of entries of a map. Of a map whose entries do not tell, all are alike: what is left behind is made again.
pub fn rank_of(name: &str) -> fn(&[u8], &[u8]) -> Rank {
    match name {
        map::FLOWS => rank_flow,
        map::AFFINITY => rank_affinity,
        _ => |_, _| (false, 0),
    }
}

/// A connection that goes on would break; a flow of datagrams at worst loses an answer that is under way, and its next
/// packet begins it anew.
fn rank_flow(key: &[u8], value: &[u8]) -> Rank {
    let (Some(key), Some(value)) = (read::<FlowKey>(key), read::<FlowValue>(value)) else {
        return (false, 0);
    };
    (key.protocol != PROTOCOL_UDP && value.flags & FLOW_CLOSING == 0, value.seen_ns)
}

fn rank_affinity(_: &[u8], value: &[u8]) -> Rank {
    (false, read::<AffinityValue>(value).map_or(0, |value| value.seen_ns))
}

fn read<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: the bytes are as many as the type has, which is plain integers by `Pod`.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<T>(value: &T) -> Vec<u8> {
        // SAFETY: the types used here are plain integers without padding.
        unsafe { std::slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>()) }.to_vec()
    }

    #[test]
    fn connections_that_go_on_come_before_those_that_close_and_before_datagrams_and_then_the_newest() {
        let rank = |protocol, flags, seen_ns| {
            let key = FlowKey { protocol, ..FlowKey::default() };
            let value = FlowValue { flags, seen_ns, ..FlowValue::default() };
            rank_of(map::FLOWS)(&bytes(&key), &bytes(&value))
        };
        let mut ranks = [rank(6, 0, 1), rank(6, FLOW_CLOSING, 9), rank(PROTOCOL_UDP, 0, 8), rank(6, 0, 2)];
        ranks.sort();
        assert_eq!(ranks, [(false, 8), (false, 9), (true, 1), (true, 2)]);
        assert_eq!(rank_of(map::FLOWS)(&[1], &[2]), (false, 0), "of another layout");
    }
}
