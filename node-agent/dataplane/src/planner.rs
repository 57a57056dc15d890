//! The image as it stands, and what a change of one service makes of it: a change costs what changed.
//!
//! Services are said one by one; the operations gathered meanwhile are taken all at once, in an order in which no packet
//! meets a number that leads nowhere. Of a service only what the maps hold is kept, and which addresses it asked for.
//! Any sequence of changes ends in the image that [`compile()`](crate::compile()) gives for the whole.
//! Must not do I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use penstock_ebpf_common::{VipKey, VipValue};

use crate::compile::{CompiledPort, compile_port, conflict, is_served, yields};
use crate::diff::{Dirty, Operation};
use crate::ids::Ids;
use crate::image::{MapImage, Set, set_ids};
use crate::sweep::Left;
use crate::{Applied, Limits, NodeFacts, Service, ServiceChange, ServiceKey};

/// The service ports that are served, and what is to be written for them.
#[derive(Debug, Default)]
pub struct Planner {
    ids: Ids,
    image: MapImage,
    ports: BTreeMap<Arc<ServiceKey>, Port>,
    /// Addresses that lead to another service, which comes first. Rare, so the holders are not in here.
    losers: BTreeMap<VipKey, BTreeMap<Arc<ServiceKey>, VipValue>>,
    /// Service ports that lost an address to another that changed, or got one back, since they were last taken.
    affected: BTreeSet<Arc<ServiceKey>>,
    /// Service ports that do not fit, wholly or in part.
    waiting: BTreeSet<ServiceKey>,
    /// Addresses asked for by all ports, those lost to others too.
    claims: usize,
    vips_max: usize,
    dirty: Dirty,
}

/// What is remembered of a service port.
#[derive(Debug, Default)]
struct Port {
    number: u32,
    /// The addresses it asked for and has room for.
    claims: Box<[VipKey]>,
    /// Whether the cluster was seen to have it; not so for what an earlier agent left in the maps.
    confirmed: bool,
}

/// What there is to write.
#[derive(Debug, Default)]
pub struct Planned {
    /// In the order in which they are to be carried out.
    pub operations: Vec<Operation>,
    /// The backends that services no longer have.
    pub left: Left,
}

// === impl Planner ===

impl Planner {
    /// Goes on from what the maps hold, with room for this much.
    pub fn recover(image: MapImage, limits: &Limits) -> Self {
        let ids = Ids::recover(&image, limits);
        let mut claims: BTreeMap<u32, Vec<VipKey>> = BTreeMap::new();
        for (vip, value) in &image.vips {
            claims.entry(value.service).or_default().push(*vip);
        }
        let ports = image.names.iter().map(|(number, key)| {
            let claims = claims.remove(number).unwrap_or_default().into();
            (key.clone(), Port { number: *number, claims, confirmed: false })
        });
        let (ports, claims) = (ports.collect(), image.vips.len());
        Self { ids, image, ports, claims, vips_max: limits.vips_max as usize, ..Self::default() }
    }

    /// Makes room for more. Never less.
    pub fn grow(&mut self, limits: &Limits) {
        self.ids.grow(limits);
        self.vips_max = self.vips_max.max(limits.vips_max as usize);
    }

    /// What the maps hold once everything planned is written.
    pub fn image(&self) -> &MapImage {
        &self.image
    }

    /// The numbers given out.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Service ports for which there is no room, wholly or in part. They are to be said again when [`Self::has_room`].
    pub fn waiting(&self) -> &BTreeSet<ServiceKey> {
        &self.waiting
    }

    /// Whether something that waits would find room.
    pub fn has_room(&self) -> bool {
        let has_number = |key: &ServiceKey| self.ids.services.get(key).is_some();
        self.claims < self.vips_max
            && self.waiting.first().is_some()
            && (self.ids.services.free() > 0 || self.waiting.iter().any(has_number))
    }

    /// How many service ports want a number, with those that found none.
    pub fn wanted_services(&self) -> usize {
        let without = self.waiting.iter().filter(|key| self.ids.services.get(key).is_none());
        self.served() + without.count()
    }

    /// How many addresses are asked for, at least: a port that found no room for all of its addresses counts one more.
    pub fn wanted_vips(&self) -> usize {
        self.claims + self.waiting.len()
    }

    /// How many service ports are served.
    pub fn served(&self) -> usize {
        self.image.names.len()
    }

    /// Service ports that lost an address since the last call, or got one back, because others changed.
    pub fn take_affected(&mut self) -> BTreeSet<Arc<ServiceKey>> {
        std::mem::take(&mut self.affected)
    }

    /// The addresses of a service port that lead to another.
    pub fn conflicts(&self, key: &ServiceKey) -> Vec<(ServiceKey, IpAddr, u16)> {
        let lost = |vip: &&VipKey| self.losers.get(vip).is_some_and(|losers| losers.contains_key(key));
        let claims = self.ports.get(key).map_or(&[][..], |port| &port.claims);
        claims.iter().filter(lost).map(|vip| conflict(key, vip)).collect()
    }

    /// What a Service is now, with all its ports.
    pub fn change(&mut self, change: &ServiceChange, facts: &NodeFacts) {
        let mut known = self.keys_of(&change.namespace, &change.name);
        for (port, service) in change.ports.iter().filter(|(_, service)| is_served(service)) {
            let key = ServiceKey::new(&change.namespace, &change.name, port);
            // One allocation of a name for as long as the port lives.
            let key = known.take(&key).unwrap_or_else(|| Arc::new(key));
            self.put(key, service, facts);
        }
        for gone in known {
            self.remove(&gone);
        }
        let first = ServiceKey::new(&change.namespace, &change.name, "");
        let waiting = self.waiting.range(first..);
        let waiting = waiting.take_while(|key| key.namespace == change.namespace && key.name == change.name);
        let unwanted = waiting.filter(|key| !change.ports.get(&key.port).is_some_and(is_served));
        for key in unwanted.cloned().collect::<Vec<_>>() {
            self.waiting.remove(&key);
        }
    }

    /// Forgets what an earlier agent left and nobody confirmed since.
    pub fn drop_unconfirmed(&mut self) {
        let unconfirmed = self.ports.iter().filter(|(_, port)| !port.confirmed);
        for key in unconfirmed.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    /// Makes everything unconfirmed: what is not said again until [`Self::drop_unconfirmed`] goes.
    pub fn doubt_all(&mut self) {
        self.ports.values_mut().for_each(|port| port.confirmed = false);
        self.waiting.clear();
    }

    /// What is to be told of changes that were planned: what is served, what has no room, and what leads elsewhere.
    pub fn outcome(&mut self, changes: &[ServiceChange]) -> Applied {
        let affected = self.take_affected();
        let affected: BTreeSet<_> =
            affected.iter().map(|key| (key.namespace.clone(), key.name.clone())).collect();
        let changed = changes.iter().map(|change| (change.namespace.clone(), change.name.clone()));
        let of_interest: BTreeSet<_> = changed.chain(affected.iter().cloned()).collect();
        let keys = of_interest.iter().flat_map(|(namespace, name)| self.keys_of(namespace, name));
        Applied {
            services: self.served(),
            unplaced: self.waiting().iter().cloned().collect(),
            has_room: self.has_room(),
            conflicts: keys.flat_map(|key| self.conflicts(&key)).collect(),
            affected,
            ..Applied::default()
        }
    }

    /// What is to be written for all changes since the last call.
    pub fn take(&mut self) -> Planned {
        self.ids.end_change();
        std::mem::take(&mut self.dirty).planned(&self.image)
    }

    /// The ports of a Service that are served.
    pub fn keys_of(&self, namespace: &str, name: &str) -> BTreeSet<Arc<ServiceKey>> {
        let first = ServiceKey::new(namespace, name, "");
        let known = self.ports.range::<ServiceKey, _>(&first..).map(|(key, _)| key);
        known.take_while(|key| key.namespace == namespace && key.name == name).cloned().collect()
    }

    fn put(&mut self, key: Arc<ServiceKey>, service: &Service, facts: &NodeFacts) {
        let Some(number) = self.ids.services.ensure(&key) else {
            self.waiting.insert((*key).clone());
            return;
        };
        let CompiledPort { sets, mut vips, ranges } = compile_port(service, number, facts);

        let before = self.ports.get(&key).map_or(0, |port| port.claims.len());
        let room = self.vips_max.saturating_sub(self.claims - before);
        let mut fits = true;
        while vips.len() > room {
            vips.pop_last();
            fits = false;
        }
        if fits {
            self.waiting.remove(&*key);
        } else {
            self.waiting.insert((*key).clone());
        }

        self.dirty.touch_name(number, &self.image);
        self.image.names.entry(number).or_insert_with(|| key.clone());
        for id in set_ids(number) {
            if !sets.contains_key(&id) {
                self.remove_set(id);
            }
        }
        for (id, set) in sets {
            self.put_set(id, set);
        }
        self.put_ranges(number, ranges);

        let former = self.ports.remove(&key).map_or_else(Box::default, |port| port.claims);
        for vip in former.iter().filter(|vip| !vips.contains_key(vip)) {
            self.unclaim(&key, number, vip);
        }
        self.claims = self.claims - former.len() + vips.len();
        let claims = vips.keys().copied().collect();
        for (vip, value) in vips {
            self.claim(&key, vip, value);
        }
        self.ports.insert(key, Port { number, claims, confirmed: true });
    }

    fn remove(&mut self, key: &ServiceKey) {
        let Some(port) = self.ports.remove(key) else { return };
        for vip in &port.claims {
            self.unclaim(key, port.number, vip);
        }
        self.claims -= port.claims.len();
        self.put_ranges(port.number, Vec::new());
        for id in set_ids(port.number) {
            self.remove_set(id);
        }
        self.dirty.touch_name(port.number, &self.image);
        self.image.names.remove(&port.number);
        self.ids.services.release(key);
    }

    fn put_set(&mut self, id: u32, mut set: Set) {
        // The new backends are noted before the old ones are let go: who stays keeps its number.
        for backend in &mut set.backends {
            backend.id = self.ids.backends.acquire((backend.address, backend.port));
        }
        self.dirty.touch_set(id, &self.image);
        if let Some(former) = self.image.sets.insert(id, set) {
            former.endpoints().for_each(|endpoint| self.ids.backends.release(&endpoint));
        }
    }

    fn remove_set(&mut self, id: u32) {
        if !self.image.sets.contains_key(&id) {
            return;
        }
        self.dirty.touch_set(id, &self.image);
        if let Some(former) = self.image.sets.remove(&id) {
            former.endpoints().for_each(|endpoint| self.ids.backends.release(&endpoint));
        }
    }

    fn put_ranges(&mut self, number: u32, ranges: Vec<crate::image::SourceRange>) {
        let former: Vec<_> = self.image.ranges_of(number).copied().collect();
        for range in former.into_iter().filter(|range| !ranges.contains(range)) {
            self.dirty.touch_range(range, &self.image);
            self.image.ranges.remove(&range);
        }
        for range in ranges {
            self.dirty.touch_range(range, &self.image);
            self.image.ranges.insert(range);
        }
    }

    /// Gives an address to a service port, unless one has it that comes first: one it was allocated to before one that
    /// names it itself, and then the first by name.
    fn claim(&mut self, key: &Arc<ServiceKey>, vip: VipKey, value: VipValue) {
        self.dirty.touch_vip(vip, &self.image);
        let holder = self.image.vips.get(&vip).copied();
        let others = self.losers.get(&vip).is_some_and(|losers| losers.keys().any(|other| other != key));
        if holder.is_none_or(|it| it.service == value.service) && !others {
            self.image.vips.insert(vip, value);
            self.losers.remove(&vip);
            return;
        }
        // All who ask for it, the holder too, whose rank may have changed with what it asks for now.
        let mut asking = self.losers.remove(&vip).unwrap_or_default();
        let holder = holder.and_then(|it| Some((self.image.names.get(&it.service)?.clone(), it)));
        asking.extend(holder.clone());
        asking.insert(key.clone(), value);
        self.settle(vip, asking);
        if let Some((holder, _)) = holder.filter(|(holder, _)| holder != key)
            && self.losers.get(&vip).is_some_and(|losers| losers.contains_key(&holder))
        {
            self.affected.insert(holder);
        }
    }

    /// Gives an address to the first of those who ask for it.
    fn settle(&mut self, vip: VipKey, mut asking: BTreeMap<Arc<ServiceKey>, VipValue>) {
        let first = asking.iter().min_by_key(|(key, value)| (yields(value), (*key).clone()));
        match first.map(|(key, _)| key.clone()).and_then(|key| asking.remove(&key)) {
            Some(value) => self.image.vips.insert(vip, value),
            None => self.image.vips.remove(&vip),
        };
        if !asking.is_empty() {
            self.losers.insert(vip, asking);
        }
    }

    /// Takes an address from a service port; the next that asked for it gets it.
    fn unclaim(&mut self, key: &ServiceKey, number: u32, vip: &VipKey) {
        self.dirty.touch_vip(*vip, &self.image);
        let mut asking = self.losers.remove(vip).unwrap_or_default();
        if self.image.vips.get(vip).is_some_and(|holder| holder.service == number) {
            self.settle(*vip, asking);
            let heir = self.image.vips.get(vip).and_then(|heir| self.image.names.get(&heir.service));
            self.affected.extend(heir.cloned());
        } else {
            asking.remove(key);
            if !asking.is_empty() {
                self.losers.insert(*vip, asking);
            }
        }
    }
}

#[cfg(test)]
mod tests;
