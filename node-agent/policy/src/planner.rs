//! From changes of the cluster to changes of the maps, in an order in which no packet is judged by a mixture.
//!
//! A number means the same to all tables, and tables are swapped one by one, each as a whole. So when policies change:
//!
//! 1. Peers that the new policies tell apart and the old ones do not get numbers of their own, which the old tables treat
//!    alike; then their addresses get these numbers. Nothing is judged otherwise yet.
//! 2. Each pod's new table takes the old one's place. It knows all numbers in use, several of which may mean the same by now.
//! 3. Addresses lose the numbers that are too many, or all where no rule speaks of them any more; and so do tables.
//!
//! What a former agent left is taken over in the same way: nobody needs to know what its numbers meant. Where only pods came,
//! went or changed their labels their addresses alone are written. Pure; must not know how maps are written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use penstock_ebpf_common::{PolicyRange, policy_key};

use crate::classes::{Meaning, Vocabulary};
use crate::desired::{Labels, Pod, PodName, Policy};
use crate::image::{Direction, Image, Operation, Table, longest};
use crate::rules::{Rules, compile_rules};

/// Numbers that mean something and that nobody has, before they are given back.
const IDLE_MAX: usize = 256;

/// What is known of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    policies: BTreeMap<PodName, Policy>,
    namespaces: BTreeMap<String, Labels>,
    pods: BTreeMap<PodName, Pod>,
    /// This node's pods by their links, as they were when they were last known.
    links: BTreeMap<u32, (PodName, Option<Pod>)>,
}

/// Keeps what maps hold, and plans what they are to hold.
#[derive(Debug, Default)]
pub struct Planner {
    cluster: Cluster,
    /// What the maps hold.
    image: Image,
    rules: BTreeMap<u32, Rules>,
    vocabulary: Vocabulary,
    /// What numbers mean to the tables.
    meanings: BTreeMap<u32, Meaning>,
    /// Addresses of pods, whose they are, and what they mean.
    known: BTreeMap<IpAddr, (PodName, Option<Meaning>)>,
    /// The last number given.
    last: u32,
    rules_changed: bool,
    /// With the addresses they had.
    changed_pods: BTreeMap<PodName, Vec<IpAddr>>,
}

/// What numbers are to mean, and which of them the tables of before do not know.
struct Numbers<'a> {
    before: &'a BTreeMap<u32, Meaning>,
    now: BTreeMap<u32, Option<Meaning>>,
    /// New numbers that tables are to treat as others until they are swapped.
    copies: Vec<(u32, u32)>,
    last: u32,
}

// === impl Planner: what is known ===

impl Planner {
    /// Goes on from what maps hold.
    pub fn recover(image: Image) -> Self {
        let in_tables =
            image.tables.values().flat_map(|table| &table.ranges).map(|range| peer_of(range.last));
        let last = image.peers.values().chain(image.blocks.values()).copied().chain(in_tables).max();
        Self { image, last: last.unwrap_or_default(), rules_changed: true, ..Self::default() }
    }

    /// Goes on from what maps hold now, whatever was planned.
    pub fn doubt(&mut self, image: Image) {
        let cluster = std::mem::take(&mut self.cluster);
        let last = self.last;
        *self = Self { cluster, ..Self::recover(image) };
        self.last = self.last.max(last);
    }

    /// What the maps hold when all that was planned is written.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Whether any policy is known.
    pub fn has_policies(&self) -> bool {
        !self.cluster.policies.is_empty()
    }

    /// Whether a policy of this namespace is known.
    pub fn has_policies_in(&self, namespace: &str) -> bool {
        let from = PodName::new(namespace, "");
        self.cluster.policies.range(from..).next().is_some_and(|(name, _)| name.namespace == namespace)
    }

    /// Whether a pod is known.
    pub fn knows(&self, pod: &PodName) -> bool {
        self.cluster.pods.contains_key(pod)
    }

    /// Says what a policy is now.
    pub fn set_policy(&mut self, name: PodName, policy: Option<Policy>) {
        self.rules_changed |= replace(&mut self.cluster.policies, name, policy);
    }

    /// The names of all policies.
    pub fn policies(&self) -> impl Iterator<Item = &PodName> {
        self.cluster.policies.keys()
    }

    /// Says what labels a namespace has now.
    pub fn set_namespace(&mut self, name: String, labels: Option<Labels>) {
        if !replace(&mut self.cluster.namespaces, name.clone(), labels) {
            return;
        }
        let from = PodName::new(name.as_str(), "");
        let pods = self.cluster.pods.range(from..).take_while(|(it, _)| it.namespace == name);
        for (name, pod) in pods {
            self.changed_pods.entry(name.clone()).or_insert_with(|| pod.addresses.clone());
        }
    }

    /// The names of all namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &String> {
        self.cluster.namespaces.keys()
    }

    /// Says what a pod is now.
    pub fn set_pod(&mut self, name: PodName, pod: Option<Pod>) {
        if let Some(pod) = &pod {
            for (_, last_known) in self.cluster.links.values_mut().filter(|(of, _)| *of == name) {
                self.rules_changed |= last_known.as_ref() != Some(pod);
                *last_known = Some(pod.clone());
            }
        }
        let before = self.cluster.pods.get(&name).map(|pod| pod.addresses.clone()).unwrap_or_default();
        if replace(&mut self.cluster.pods, name.clone(), pod) {
            self.changed_pods.entry(name).or_insert(before);
        }
    }

    /// The names of all pods.
    pub fn pods(&self) -> impl Iterator<Item = &PodName> {
        self.cluster.pods.keys()
    }

    /// Says whose a link of this node is now.
    pub fn set_link(&mut self, link: u32, pod: Option<PodName>) {
        let now = pod.map(|name| {
            let last_known = self.cluster.pods.get(&name).cloned();
            (name, last_known)
        });
        let before = self.cluster.links.get(&link);
        if before.map(|it| &it.0) == now.as_ref().map(|it| &it.0) {
            return;
        }
        self.rules_changed = true;
        replace(&mut self.cluster.links, link, now);
    }

    /// The numbers of all links.
    pub fn links(&self) -> impl Iterator<Item = u32> + '_ {
        self.cluster.links.keys().copied()
    }

    /// Whether pods' addresses are needed: some policy selects a pod of this node.
    pub fn is_needed(&self) -> bool {
        !self.rules.is_empty()
    }
}

// === impl Planner: planning ===

impl Planner {
    /// What is to be written, in this order, for the maps to hold what they should.
    pub fn plan(&mut self) -> Vec<Operation> {
        let mut whole = false;
        if std::mem::take(&mut self.rules_changed) {
            let rules = self.compile_rules();
            let vocabulary = Vocabulary::of(rules.values(), &self.vocabulary);
            whole = rules != self.rules
                || !vocabulary.is_same(&self.vocabulary)
                || self.image.tables.keys().ne(rules.keys());
            self.rules = rules;
            self.vocabulary = vocabulary;
        }
        let changed = std::mem::take(&mut self.changed_pods);
        let classes = self.meanings.values().filter(|it| matches!(it, Meaning::Pods(_))).count();
        let idle = classes.saturating_sub(self.known.len());
        if whole || idle > IDLE_MAX {
            self.learn_all();
            return self.plan_whole();
        }
        self.plan_pods(changed)
    }

    fn compile_rules(&self) -> BTreeMap<u32, Rules> {
        let rules = self.cluster.links.iter().filter_map(|(link, (name, pod))| {
            let pod = pod.as_ref()?;
            let from = PodName::new(name.namespace.as_str(), "");
            let there =
                self.cluster.policies.range(from..).take_while(|(it, _)| it.namespace == name.namespace);
            let selecting = there.map(|(_, policy)| policy).filter(|it| it.pods.selects(&pod.labels));
            Some((*link, compile_rules(&name.namespace, pod, selecting)))
        });
        rules.filter(|(_, rules)| rules.flags != 0).collect()
    }

    fn meaning_of(&self, name: &PodName, pod: &Pod) -> Option<Meaning> {
        let nothing = Labels::new();
        let labels = self.cluster.namespaces.get(&name.namespace).unwrap_or(&nothing);
        self.vocabulary.class((&name.namespace, labels), pod)
    }

    /// What all addresses mean.
    fn learn_all(&mut self) {
        let mut known = BTreeMap::new();
        if !self.rules.is_empty() {
            for (name, pod) in &self.cluster.pods {
                let meaning = self.meaning_of(name, pod);
                known.extend(pod.addresses.iter().map(|it| (*it, (name.clone(), meaning.clone()))));
            }
        }
        self.known = known;
    }

    /// Pods changed, and nothing else did.
    fn plan_pods(&mut self, changed: BTreeMap<PodName, Vec<IpAddr>>) -> Vec<Operation> {
        if self.rules.is_empty() {
            return Vec::new();
        }
        let mut moves: BTreeMap<IpAddr, Option<Meaning>> = BTreeMap::new();
        for (name, had) in &changed {
            for address in had {
                // Another pod may have it by now.
                if self.known.get(address).is_some_and(|(of, _)| of == name) {
                    self.known.remove(address);
                    moves.insert(*address, None);
                }
            }
        }
        for name in changed.into_keys() {
            let Some(pod) = self.cluster.pods.get(&name) else { continue };
            let meaning = self.meaning_of(&name, pod);
            for address in &pod.addresses {
                self.known.insert(*address, (name.clone(), meaning.clone()));
                moves.insert(*address, meaning.clone());
            }
        }
        let mut ids: BTreeMap<Meaning, u32> = BTreeMap::new();
        for (id, meaning) in &self.meanings {
            ids.entry(meaning.clone()).or_insert(*id);
        }
        let (mut writes, mut takes, last) = (Vec::new(), false, self.last);
        for (address, meaning) in moves {
            let before = self.image.peers.get(&address).copied();
            let now = meaning.map(|meaning| {
                *ids.entry(meaning.clone()).or_insert_with(|| {
                    self.last += 1;
                    self.meanings.insert(self.last, meaning);
                    self.last
                })
            });
            if before == now {
                continue;
            }
            takes |= before.is_some();
            writes.push(match now {
                Some(peer) => Operation::PutPeer(address, peer),
                None => Operation::DeletePeer(address),
            });
        }
        let mut operations = Vec::new();
        if self.last != last {
            operations = self.tables_to_write(self.meanings.iter().map(|(id, meaning)| (*id, meaning)));
        }
        operations.extend(writes);
        // Who is allowed more is judged when it asks; who is allowed less may be in the middle of it.
        operations.extend(takes.then_some(Operation::Bump));
        operations.iter().for_each(|it| self.image.apply(it));
        operations
    }

    /// Policies changed, or a former agent's are to be replaced.
    fn plan_whole(&mut self) -> Vec<Operation> {
        let ranges = self.vocabulary.ranges();
        let mut numbers =
            Numbers { before: &self.meanings, now: BTreeMap::new(), copies: Vec::new(), last: self.last };
        let pods: BTreeSet<IpAddr> = self.image.peers.keys().chain(self.known.keys()).copied().collect();
        let pods = pods.into_iter().map(|address| {
            let now = self.known.get(&address).and_then(|(_, meaning)| meaning.clone());
            (address, (self.image.peers.get(&address).copied(), now))
        });
        let peers = numbers.assign(pods.collect());
        let blocks: BTreeSet<IpNetwork> = self.image.blocks.keys().chain(ranges.keys()).copied().collect();
        let blocks = blocks
            .into_iter()
            .map(|range| (range, (self.image.block_of(&range), longest(&ranges, &range).cloned())));
        let blocks = numbers.assign(blocks.collect());
        let Numbers { now, copies, last, .. } = numbers;
        self.last = last;

        // What is judged stays the same.
        let mut operations = Vec::new();
        if !copies.is_empty() {
            for (link, table) in &self.image.tables {
                let extended = with_copies(table, &copies);
                if extended != *table {
                    operations.push(Operation::PutTable(*link, extended));
                }
            }
            if !operations.is_empty() {
                operations.push(Operation::Settle);
            }
        }
        let other_peers = peers.iter().filter(|(address, peer)| self.image.peers.get(address) != Some(peer));
        operations.extend(other_peers.map(|(address, peer)| Operation::PutPeer(*address, *peer)));
        let other_blocks = blocks.iter().filter(|(range, peer)| self.image.blocks.get(range) != Some(peer));
        operations.extend(other_blocks.map(|(range, peer)| Operation::PutBlock(*range, *peer)));
        operations.iter().for_each(|it| self.image.apply(it));

        // What is judged changes, for one pod after the other.
        let means = now.iter().filter_map(|(id, meaning)| Some((*id, meaning.as_ref()?)));
        let mut swaps = self.tables_to_write(means.clone());
        let without = self.image.tables.keys().filter(|link| !self.rules.contains_key(link));
        swaps.extend(without.map(|link| Operation::DeleteTable(*link)));
        swaps.iter().for_each(|it| self.image.apply(it));
        if !swaps.is_empty() {
            operations.extend(swaps);
            operations.push(Operation::Bump);
        }

        // What is judged stays the same.
        let mut only: BTreeMap<Meaning, u32> = BTreeMap::new();
        for (id, meaning) in means {
            only.entry(meaning.clone()).or_insert(id);
        }
        let meant = |id: &u32| now.get(id).and_then(Option::as_ref).and_then(|it| only.get(it)).copied();
        let mut rest: Vec<Operation> = Vec::new();
        for (address, peer) in &self.image.peers {
            match meant(peer) {
                Some(only) if only == *peer => {}
                Some(only) => rest.push(Operation::PutPeer(*address, only)),
                None => rest.push(Operation::DeletePeer(*address)),
            }
        }
        for (range, peer) in &self.image.blocks {
            match (meant(peer), ranges.contains_key(range)) {
                (Some(only), true) if only == *peer => {}
                (Some(only), true) => rest.push(Operation::PutBlock(*range, only)),
                _ => rest.push(Operation::DeleteBlock(*range)),
            }
        }
        if !rest.is_empty() {
            operations.push(Operation::Settle);
        }
        rest.iter().for_each(|it| self.image.apply(it));
        operations.extend(rest);
        self.meanings = only.into_iter().map(|(meaning, id)| (id, meaning)).collect();
        let last = self.tables_to_write(self.meanings.iter().map(|(id, meaning)| (*id, meaning)));
        last.iter().for_each(|it| self.image.apply(it));
        operations.extend(last);
        operations
    }

    /// The tables that are to be others when numbers mean this.
    fn tables_to_write<'a>(&self, means: impl Iterator<Item = (u32, &'a Meaning)> + Clone) -> Vec<Operation> {
        let tables = self.rules.iter().map(|(link, rules)| {
            (*link, Table::new(rules.flags, self.vocabulary.compile_ranges(rules, means.clone())))
        });
        let others = tables.filter(|(link, table)| self.image.tables.get(link) != Some(table));
        others.map(|(link, table)| Operation::PutTable(link, table)).collect()
    }
}

// === impl Numbers ===

impl Numbers<'_> {
    /// Gives numbers to what had one before (or none), and is to mean something (or nothing): of those that had one number,
    /// those that mean the same keep one. In the tables of before no number means less or more than it did.
    fn assign<K: Ord + Clone>(
        &mut self,
        members: BTreeMap<K, (Option<u32>, Option<Meaning>)>,
    ) -> BTreeMap<K, u32> {
        let mut parts: BTreeMap<u32, BTreeMap<Option<Meaning>, Vec<K>>> = BTreeMap::new();
        let mut newcomers: BTreeMap<Meaning, Vec<K>> = BTreeMap::new();
        for (key, (before, now)) in members {
            match (before, now) {
                (Some(before), now) => parts.entry(before).or_default().entry(now).or_default().push(key),
                (None, Some(now)) => newcomers.entry(now).or_default().push(key),
                (None, None) => {}
            }
        }
        let mut assigned = BTreeMap::new();
        for (before, parts) in parts {
            let same = parts.keys().find(|now| now.is_some() && now.as_ref() == self.before.get(&before));
            let most = || parts.iter().max_by_key(|(_, keys)| keys.len()).map(|it| it.0);
            let Some(stays) = same.or_else(most).cloned() else { continue };
            for (now, keys) in parts {
                let id = if now == stays { before } else { self.next() };
                if id != before {
                    self.copies.push((id, before));
                }
                self.now.insert(id, now);
                assigned.extend(keys.into_iter().map(|key| (key, id)));
            }
        }
        for (now, keys) in newcomers {
            let is_unchanged = |(id, meaning): &(&u32, &Option<Meaning>)| {
                meaning.as_ref() == Some(&now) && self.before.get(id) == Some(&now)
            };
            let unchanged = self.now.iter().find(is_unchanged).map(|it| *it.0);
            let id = unchanged.unwrap_or_else(|| self.next());
            self.now.insert(id, Some(now));
            assigned.extend(keys.into_iter().map(|key| (key, id)));
        }
        assigned
    }

    fn next(&mut self) -> u32 {
        self.last += 1;
        self.last
    }
}

/// A table that treats some numbers as others.
fn with_copies(table: &Table, copies: &[(u32, u32)]) -> Table {
    let mut ranges = table.ranges.clone();
    for (copy, of) in copies {
        for direction in Direction::ALL {
            let first = policy_key(direction.bit(), *of, 0, 0);
            let last = policy_key(direction.bit(), *of, u8::MAX, u16::MAX);
            let moved = |key| policy_key(direction.bit(), *copy, 0, 0) + (key - first);
            let of_it = table.ranges.iter().filter(|it| it.last >= first && it.first <= last);
            ranges.extend(
                of_it.map(|it| PolicyRange {
                    first: moved(it.first.max(first)),
                    last: moved(it.last.min(last)),
                }),
            );
        }
    }
    Table::new(table.flags, ranges)
}

/// The peer that a place on the line is of.
const fn peer_of(key: u64) -> u32 {
    (key >> 24) as u32
}

/// Sets or removes; whether that changed anything.
fn replace<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    match value {
        Some(value) => {
            let changed = map.get(&key) != Some(&value);
            map.insert(key, value);
            changed
        }
        None => map.remove(&key).is_some(),
    }
}
