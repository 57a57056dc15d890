//! Who asks whom, so that no node has to talk to all others. Pure.
//!
//! Few nodes are asked one by one. Of many, groups are made, about as many as each has members, and one member of each
//! is asked for its whole group. Every node picks other members, so that the work is spread.

/// Up to so many nodes are asked directly.
const DIRECT_MAX: usize = 64;

/// Nodes of which the first is asked for all; the next when it does not answer.
pub type Group = Vec<String>;

/// Groups of the nodes to be asked, which are in the order of their names.
pub fn plan_groups(own: &str, others: &[String]) -> Vec<Group> {
    if others.len() <= DIRECT_MAX {
        return others.iter().map(|name| vec![name.clone()]).collect();
    }
    let size = others.len().isqrt().max(1);
    let turn = hash(own);
    let chunks = others.chunks(size).map(|chunk| {
        let mut group = chunk.to_vec();
        group.rotate_left(turn % chunk.len());
        group
    });
    chunks.collect()
}

/// FNV-1a: any function does that spreads names.
fn hash(name: &str) -> usize {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 16) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn nodes(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("node-{number:04}")).collect()
    }

    #[test]
    fn few_nodes_are_asked_one_by_one() {
        let groups = plan_groups("me", &nodes(64));
        assert!(groups.len() == 64 && groups.iter().all(|group| group.len() == 1));
        assert!(plan_groups("me", &[]).is_empty());
    }

    #[test]
    fn of_five_thousand_nodes_none_talks_to_more_than_some_dozens_and_each_is_asked_once() {
        let nodes = nodes(5_000);
        let mut asked_by: BTreeMap<String, usize> = BTreeMap::new();
        for own in nodes.iter().step_by(50) {
            let others: Vec<_> = nodes.iter().filter(|it| *it != own).cloned().collect();
            let groups = plan_groups(own, &others);
            assert!(groups.len() <= 73 && groups.iter().all(|group| group.len() <= 71));
            let all: BTreeSet<_> = groups.iter().flatten().collect();
            assert_eq!(all.len(), others.len());
            assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), others.len());
            for group in groups {
                *asked_by.entry(group[0].clone()).or_default() += 1;
            }
        }
        let most = asked_by.values().max().copied().unwrap_or_default();
        assert!(most < 20, "one node is asked for its group by {most} others");
    }
}
