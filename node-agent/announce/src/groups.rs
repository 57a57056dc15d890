//! Who may hold which address, in which order. Pure, and the same on every node that knows the same.
//!
//! Ranked by rendezvous hashing: each pair of node and address has a number, and the highest comes first. A node that
//! goes gives up its own addresses and moves no other; one that comes takes its share from everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::NodeName;

/// How many nodes stand by for an address, its holder among them. If all of them die at once, the address waits until
/// the cluster knows that they are not ready.
pub const GROUP_MAX: usize = 3;

/// What is to be announced, and by whom it may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Every node of the cluster, by the address its beats come from.
    pub nodes: BTreeMap<NodeName, IpAddr>,
    /// Each address with the nodes that may have it.
    pub addresses: BTreeMap<IpAddr, Arc<BTreeSet<NodeName>>>,
}

/// Each address with its group, the best first.
pub type Groups = BTreeMap<IpAddr, Vec<NodeName>>;

/// The groups that a node is in.
pub fn plan_groups(wanted: &Wanted, own: &str) -> Groups {
    let hashes: BTreeMap<&NodeName, u64> = wanted.nodes.keys().map(|node| (node, hash(node))).collect();
    let mut groups = Groups::new();
    for (address, candidates) in &wanted.addresses {
        if !candidates.contains(own) {
            continue;
        }
        let salt = hash_address(*address);
        let ranked = candidates.iter().filter_map(|node| Some((mix(*hashes.get(node)? ^ salt), node)));
        let group = best(ranked);
        if group.iter().any(|node| &**node == own) {
            groups.insert(*address, group);
        }
    }
    groups
}

/// The few with the highest numbers; of equal numbers the name decides.
fn best<'a>(ranked: impl Iterator<Item = (u64, &'a NodeName)>) -> Vec<NodeName> {
    let mut best: Vec<(u64, &NodeName)> = Vec::with_capacity(GROUP_MAX + 1);
    for entry in ranked {
        let at = best.partition_point(|other| *other > entry);
        if at < GROUP_MAX {
            best.insert(at, entry);
            best.truncate(GROUP_MAX);
        }
    }
    best.into_iter().map(|(_, node)| node.clone()).collect()
}

/// FNV-1a: nodes of different versions must agree, so it is written down here.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn hash_address(address: IpAddr) -> u64 {
    hash(&address.to_string())
}

/// The finalizer of splitmix64: neighbouring numbers end far apart.
fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(nodes: &BTreeSet<u16>, addresses: u8) -> Wanted {
        let names: BTreeMap<NodeName, IpAddr> = nodes
            .iter()
            .map(|number| (format!("node-{number}").into(), IpAddr::from(u32::from(*number).to_be_bytes())))
            .collect();
        let candidates: Arc<BTreeSet<NodeName>> = Arc::new(names.keys().cloned().collect());
        let addresses = (0..addresses).map(|last| (IpAddr::from([192, 0, 2, last]), candidates.clone()));
        Wanted { addresses: addresses.collect(), nodes: names }
    }

    /// Every group as its first node sees it.
    fn all_groups(wanted: &Wanted) -> Groups {
        wanted.nodes.keys().flat_map(|node| plan_groups(wanted, node)).collect()
    }

    proptest! {
        #[test]
        fn all_nodes_of_a_group_see_the_same_group(nodes in prop::collection::btree_set(any::<u16>(), 1..9)) {
            let wanted = wanted(&nodes, 20);
            let all = all_groups(&wanted);
            prop_assert_eq!(all.len(), 20);
            for node in wanted.nodes.keys() {
                for (address, group) in plan_groups(&wanted, node) {
                    prop_assert_eq!(&all[&address], &group);
                    prop_assert!(group.contains(node) && group.len() == nodes.len().min(GROUP_MAX));
                }
            }
        }

        #[test]
        fn a_node_that_goes_moves_only_what_it_had(nodes in prop::collection::btree_set(any::<u16>(), 2..9)) {
            let before = all_groups(&wanted(&nodes, 60));
            let mut fewer = nodes.clone();
            let gone: NodeName = format!("node-{}", fewer.pop_first().expect("two or more")).into();
            let after = all_groups(&wanted(&fewer, 60));
            for (address, group) in &before {
                if group[0] == gone {
                    // Who stood by is next: nobody else has to find out first.
                    prop_assert_eq!(&after[address][0], &group[1]);
                } else {
                    prop_assert_eq!(&after[address][0], &group[0]);
                }
            }
        }
    }

    #[test]
    fn addresses_are_spread_over_the_nodes() {
        let wanted = wanted(&(1..=5).collect(), 250);
        let mut held: BTreeMap<NodeName, usize> = BTreeMap::new();
        for group in all_groups(&wanted).into_values() {
            *held.entry(group[0].clone()).or_default() += 1;
        }
        assert!(held.len() == 5 && held.values().all(|count| (25..=75).contains(count)), "{held:?}");
    }

    #[test]
    fn who_may_not_have_an_address_is_in_no_group_of_it() {
        let mut wanted = wanted(&(1..=5).collect(), 1);
        let only: BTreeSet<NodeName> = ["node-4".into(), "gone".into()].into();
        wanted.addresses = [([192, 0, 2, 1].into(), Arc::new(only))].into();
        assert!(plan_groups(&wanted, "node-1").is_empty());
        let group = plan_groups(&wanted, "node-4").remove(&IpAddr::from([192, 0, 2, 1])).expect("a group");
        assert_eq!(group, [NodeName::from("node-4")], "a node that is not of the cluster is none");
    }
}
