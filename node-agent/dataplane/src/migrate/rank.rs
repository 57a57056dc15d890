//! Which entries of maps that evict are worth bringing over when not all of them fit: those that would be missed.
//!
//! An entry that is brought counts as the newest of its new map, and pushes others out of it that programs have just made. So
//! only what there is room for is brought, the best first. Pure.

use penstock_ebpf_common::{AffinityValue, map};

/// How much an entry is worth, more being better: first what would break, then what was used last.
pub type Rank = (bool, u64);

/// The rank of entries of a map. Of a map whose entries do not tell, all are alike: what is left behind is made again.
pub fn rank_of(name: &str) -> fn(&[u8], &[u8]) -> Rank {
    match name {
        map::AFFINITY => rank_affinity,
        _ => |_, _| (false, 0),
    }
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
    fn those_used_last_come_first() {
        let rank = |seen_ns| {
            rank_of(map::AFFINITY)(&[], &bytes(&AffinityValue { seen_ns, ..AffinityValue::default() }))
        };
        assert!(rank(1) < rank(2));
        assert_eq!(rank_of(map::AFFINITY)(&[1], &[2]), (false, 0), "of another layout");
    }
}
