//! Which peers rules tell apart: of pods by the selectors that pick them and by what they call their ports, of addresses by the
//! blocks that hold them.
//!
//! It exists to name what a number stands for. Must not know numbers of peers.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use crate::desired::{Block, Labels, Pod, Protocol};
use crate::image::{Direction, longest};
use crate::rules::{Namespaces, PodPeer, PortName, Rules, What, Whom, ports_of};
use penstock_ebpf_common::{PolicyRange, policy_key};

/// What a peer is. Selectors and blocks are numbered, since there are many of one kind and they are long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meaning {
    /// Pods.
    Pods(PodClass),
    /// Addresses that these blocks hold.
    Blocks(Vec<u32>),
}

/// Pods that no rule tells apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodClass {
    /// The selectors that pick them, in order.
    selectors: Vec<u32>,
    /// The ports that rules call by names: place in the list of names, and number.
    ports: Vec<(u32, u16)>,
}

/// All that the rules of this node speak of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vocabulary {
    selectors: BTreeMap<PodPeer, u32>,
    names: BTreeMap<PortName, u32>,
    blocks: BTreeMap<Block, u32>,
    /// The last number given.
    last: u32,
}

impl Vocabulary {
    /// What rules speak of. What they spoke of before keeps its number.
    pub fn of<'a>(rules: impl Iterator<Item = &'a Rules> + Clone, before: &Self) -> Self {
        let mut now = Self { last: before.last, ..Self::default() };
        let mut last = before.last;
        let mut number = |known: Option<&u32>| match known {
            Some(number) => *number,
            None => {
                last += 1;
                last
            }
        };
        for (whom, allowed) in rules.flat_map(|it| &it.allowed) {
            match whom {
                Whom::Anybody => {}
                Whom::Pods(peer) => {
                    if !now.selectors.contains_key(peer) {
                        now.selectors.insert(peer.clone(), number(before.selectors.get(peer)));
                    }
                    for (_, what) in allowed {
                        if let What::Named(name) = what
                            && !now.names.contains_key(name)
                        {
                            now.names.insert(name.clone(), number(before.names.get(name)));
                        }
                    }
                }
                Whom::Block(block) => {
                    if !now.blocks.contains_key(block) {
                        now.blocks.insert(block.clone(), number(before.blocks.get(block)));
                    }
                }
            }
        }
        now.last = last;
        now
    }

    /// Whether two speak of the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.selectors == other.selectors && self.names == other.names && self.blocks == other.blocks
    }

    /// What a pod is; none if no rule picks it.
    pub fn class(&self, namespace: (&str, &Labels), pod: &Pod) -> Option<Meaning> {
        let picks = |peer: &PodPeer| {
            let there = match &peer.namespaces {
                Namespaces::Named(name) => name == namespace.0,
                Namespaces::Labelled(selector) => selector.selects(namespace.1),
            };
            there && peer.pods.selects(&pod.labels)
        };
        let picked = self.selectors.iter().filter(|(peer, _)| picks(peer));
        let mut selectors: Vec<u32> = picked.map(|(_, number)| *number).collect();
        if selectors.is_empty() {
            return None;
        }
        selectors.sort_unstable();
        let named = self.names.iter().flat_map(|(name, number)| {
            ports_of(pod, name.protocol, &name.name).map(move |port| (*number, port))
        });
        let ports: BTreeSet<_> = named.collect();
        Some(Meaning::Pods(PodClass { selectors, ports: ports.into_iter().collect() }))
    }

    /// What addresses are besides, by the longest range that holds them. Of a range without blocks that is nothing.
    pub fn ranges(&self) -> BTreeMap<IpNetwork, Meaning> {
        let ranges: BTreeSet<IpNetwork> =
            self.blocks.keys().flat_map(|it| it.except.iter().chain([&it.cidr])).copied().collect();
        // From wide to narrow, each range from what holds it: who is in the wider one's blocks is in the narrower one's.
        let mut by_width: Vec<_> = ranges.iter().copied().collect();
        by_width.sort_unstable_by_key(IpNetwork::prefix);
        let (mut opens, mut closes) = (BTreeMap::<_, Vec<u32>>::new(), BTreeMap::<_, Vec<u32>>::new());
        for (block, number) in &self.blocks {
            // The API refuses such a block, which is none.
            if block
                .except
                .iter()
                .any(|it| it.prefix() <= block.cidr.prefix() && it.contains(block.cidr.ip()))
            {
                continue;
            }
            opens.entry(block.cidr).or_default().push(*number);
            for except in &block.except {
                closes.entry(*except).or_default().push(*number);
            }
        }
        let mut held: BTreeMap<IpNetwork, BTreeSet<u32>> = BTreeMap::new();
        for range in by_width {
            let mut blocks = longest(&held, &range).cloned().unwrap_or_default();
            blocks.extend(opens.get(&range).into_iter().flatten());
            for number in closes.get(&range).into_iter().flatten() {
                blocks.remove(number);
            }
            held.insert(range, blocks);
        }
        held.into_iter()
            .map(|(range, blocks)| (range, Meaning::Blocks(blocks.into_iter().collect())))
            .collect()
    }

    /// What a pod's rules allow to whoever is known by these numbers.
    pub fn compile_ranges<'a>(
        &self,
        rules: &Rules,
        peers: impl Iterator<Item = (u32, &'a Meaning)>,
    ) -> Vec<PolicyRange> {
        let mut ranges = Vec::new();
        let mut by_number: BTreeMap<u32, &BTreeSet<(Direction, What)>> = BTreeMap::new();
        for (whom, allowed) in &rules.allowed {
            let number = match whom {
                Whom::Anybody => {
                    let anybody = allowed.iter().flat_map(|(direction, what)| {
                        self.spans(what, &[]).map(|(first, last)| {
                            span(*direction, penstock_ebpf_common::ANY_PEER, first, last)
                        })
                    });
                    ranges.extend(anybody);
                    continue;
                }
                Whom::Pods(peer) => self.selectors.get(peer),
                Whom::Block(block) => self.blocks.get(block),
            };
            by_number.extend(number.map(|number| (*number, allowed)));
        }
        for (peer, meaning) in peers {
            let (numbers, ports) = match meaning {
                Meaning::Pods(class) => (&class.selectors, &class.ports[..]),
                Meaning::Blocks(blocks) => (blocks, &[][..]),
            };
            for (direction, what) in numbers.iter().filter_map(|it| by_number.get(it)).copied().flatten() {
                let spans = self.spans(what, ports);
                ranges.extend(spans.map(|(first, last)| span(*direction, peer, first, last)));
            }
        }
        ranges
    }

    /// First and last protocol and port of what is meant, with a peer's own names for ports.
    fn spans(&self, what: &What, ports: &[(u32, u16)]) -> impl Iterator<Item = ((u8, u16), (u8, u16))> {
        let of = |protocol: Protocol, first, last| ((protocol.number(), first), (protocol.number(), last));
        match what {
            What::All => vec![((0, 0), (u8::MAX, u16::MAX))],
            What::Ports(protocol, first, last) => vec![of(*protocol, *first, *last)],
            What::Named(name) => {
                let number = self.names.get(name);
                let called = ports.iter().filter(|(it, _)| Some(it) == number);
                called.map(|(_, port)| of(name.protocol, *port, *port)).collect()
            }
        }
        .into_iter()
    }
}

fn span(direction: Direction, peer: u32, first: (u8, u16), last: (u8, u16)) -> PolicyRange {
    PolicyRange {
        first: policy_key(direction.bit(), peer, first.0, first.1),
        last: policy_key(direction.bit(), peer, last.0, last.1),
    }
}
