//! From one image to another, in an order in which no packet meets a number that leads nowhere.
//!
//! What is pointed at comes before what points: names, then sets and ranges, then addresses. What goes, goes the other
//! way round. A set that changes is replaced as a whole by one operation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_ebpf_common::{VipKey, VipValue};

use crate::ServiceKey;
use crate::image::{Endpoint, MapImage, Set, SourceRange, service_of, set_ids};
use crate::planner::Planned;
use crate::sweep::{Departed, Left};

/// One change of one map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Names a service number; its counters start anew.
    PutName(u32, Arc<ServiceKey>),
    /// Makes or replaces a set.
    PutSet(u32, Set),
    /// Lets clients use a service's load balancer addresses.
    PutRange(SourceRange),
    /// Makes an address lead somewhere.
    PutVip(VipKey, VipValue),
    /// Makes an address lead nowhere.
    DeleteVip(VipKey),
    /// Lets clients no longer use a service's load balancer addresses.
    DeleteRange(SourceRange),
    /// Removes a set nothing leads to.
    DeleteSet(u32),
    /// Frees a service number.
    DeleteName(u32),
}

/// What an image held before it was changed, of all that was touched.
#[derive(Debug, Default)]
pub struct Dirty {
    names: BTreeMap<u32, Option<Arc<ServiceKey>>>,
    sets: BTreeMap<u32, Option<Set>>,
    ranges: BTreeMap<SourceRange, Option<()>>,
    vips: BTreeMap<VipKey, Option<VipValue>>,
}

/// The operations that turn `from` into `to`: the plain way, which looks at everything.
pub fn diff(from: &MapImage, to: &MapImage) -> Vec<Operation> {
    let mut dirty = Dirty::default();
    for number in from.names.keys().chain(to.names.keys()) {
        dirty.touch_name(*number, from);
    }
    for id in from.sets.keys().chain(to.sets.keys()) {
        dirty.touch_set(*id, from);
    }
    for range in from.ranges.iter().chain(&to.ranges) {
        dirty.touch_range(*range, from);
    }
    for vip in from.vips.keys().chain(to.vips.keys()) {
        dirty.touch_vip(*vip, from);
    }
    dirty.planned(to).operations
}

// === impl Dirty ===

impl Dirty {
    /// To be called before a name changes.
    pub fn touch_name(&mut self, number: u32, image: &MapImage) {
        self.names.entry(number).or_insert_with(|| image.names.get(&number).cloned());
    }

    /// To be called before a set changes.
    pub fn touch_set(&mut self, id: u32, image: &MapImage) {
        self.sets.entry(id).or_insert_with(|| image.sets.get(&id).cloned());
    }

    /// To be called before a range changes.
    pub fn touch_range(&mut self, range: SourceRange, image: &MapImage) {
        self.ranges.entry(range).or_insert_with(|| image.ranges.contains(&range).then_some(()));
    }

    /// To be called before an address changes.
    pub fn touch_vip(&mut self, vip: VipKey, image: &MapImage) {
        self.vips.entry(vip).or_insert_with(|| image.vips.get(&vip).copied());
    }

    /// What is to be written so that maps that hold what was, hold what is.
    pub fn planned(self, now: &MapImage) -> Planned {
        let left = Left { departed: self.departed(now), unkept: self.unkept(now) };
        let mut operations = Vec::new();
        let (mut vips, mut ranges, mut sets, mut names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (number, before) in self.names {
            match now.names.get(&number) {
                is if is == before.as_ref() => {}
                Some(name) => operations.push(Operation::PutName(number, name.clone())),
                None => names.push(Operation::DeleteName(number)),
            }
        }
        for (id, before) in self.sets {
            match now.sets.get(&id) {
                is if is == before.as_ref() => {}
                Some(set) => operations.push(Operation::PutSet(id, set.clone())),
                None => sets.push(Operation::DeleteSet(id)),
            }
        }
        for (range, before) in self.ranges {
            match (before.is_some(), now.ranges.contains(&range)) {
                (false, true) => operations.push(Operation::PutRange(range)),
                (true, false) => ranges.push(Operation::DeleteRange(range)),
                _ => {}
            }
        }
        for (vip, before) in self.vips {
            match now.vips.get(&vip) {
                is if is == before.as_ref() => {}
                Some(value) => operations.push(Operation::PutVip(vip, *value)),
                None => vips.push(Operation::DeleteVip(vip)),
            }
        }
        operations.extend([vips, ranges, sets, names].into_iter().flatten());
        Planned { operations, left }
    }

    /// The backends that sets had whose clients kept theirs, and that clients of the same sets are not to keep now.
    fn unkept(&self, now: &MapImage) -> BTreeMap<u32, BTreeSet<Endpoint>> {
        let kept = self.sets.iter().filter_map(|(id, before)| Some((*id, before.as_ref()?)));
        let kept = kept.filter(|(_, before)| before.affinity_seconds > 0);
        let unkept = kept.map(|(id, before)| {
            let mut gone: BTreeSet<_> = before.endpoints().collect();
            let now = now.sets.get(&id).filter(|set| set.affinity_seconds > 0);
            now.into_iter().flat_map(Set::endpoints).for_each(|endpoint| {
                gone.remove(&endpoint);
            });
            (id, gone)
        });
        unkept.filter(|(_, gone)| !gone.is_empty()).collect()
    }

    /// The backends that services had before in any of their sets, and have in none now.
    fn departed(&self, now: &MapImage) -> Departed {
        let mut departed = BTreeMap::new();
        let services: BTreeSet<u32> = self.sets.keys().map(|id| service_of(*id)).collect();
        for service in services {
            let before = set_ids(service).filter_map(|id| match self.sets.get(&id) {
                Some(before) => before.as_ref(),
                None => now.sets.get(&id),
            });
            let mut gone: BTreeSet<_> = before.flat_map(Set::endpoints).collect();
            for endpoint in now.sets.range(set_ids(service)).flat_map(|(_, set)| set.endpoints()) {
                gone.remove(&endpoint);
            }
            if !gone.is_empty() {
                departed.insert(service, gone);
            }
        }
        departed
    }
}
