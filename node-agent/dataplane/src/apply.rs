//! From changes to the kernel's maps: plans them, writes them, and acts on what left.
//!
//! The one place where the plan and the maps meet. Must not decide what a service is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::endings::{Endings, Over, Said};
use crate::kernel::{KernelMaps, Looks};
use crate::load::State;
use crate::planner::Planner;
use crate::sets::Settling;
use crate::sink::MapSink;
use crate::sweep::Left;
use crate::{Dataplane, DataplaneError, Desired, NodeFacts, Service, ServiceChange, ServiceKey};

/// What was written for some changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Changes written to maps; zero when the kernel already had everything.
    pub operations: usize,
    /// Service ports now served.
    pub services: usize,
    /// Flow halves forgotten because their backend went away.
    pub flows_removed: usize,
    /// Connected sockets destroyed because their backend is gone.
    pub sockets_destroyed: usize,
    /// Service ports that are not served, wholly or in part, because the maps are full.
    pub unplaced: Vec<ServiceKey>,
    /// Whether there is room by now for some of them: they are to be said again.
    pub has_room: bool,
    /// Addresses (with port) that lead to another service, of all ports of the changed services and of `affected`.
    pub conflicts: Vec<(ServiceKey, IpAddr, u16)>,
    /// Services that lost an address to a changed one, or got one back: namespace and name.
    pub affected: BTreeSet<(String, String)>,
}

/// Whether more is to come before the whole cluster was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// What was not said yet may still come.
    Unfinished,
    /// Everything was said since the data plane was loaded, or since an error: what was not said is gone.
    Complete,
}

impl Dataplane {
    /// Brings the maps from what they hold to what is desired of the whole cluster. What does not fit is reported in
    /// the answer, the rest is served. After an error the next call starts from what the maps really hold.
    pub fn apply(&self, desired: &Desired) -> Result<Applied, DataplaneError> {
        self.state().planner.doubt_all();
        let mut services: BTreeMap<(&str, &str), ServiceChange> = BTreeMap::new();
        for (key, service) in &desired.services {
            let change = services.entry((&key.namespace, &key.name)).or_insert_with(|| ServiceChange {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                ports: BTreeMap::new(),
            });
            change.ports.insert(key.port.clone(), service.clone());
        }
        let changes: Vec<_> = services.into_values().collect();
        self.apply_changes(&changes, &desired.facts(), Listing::Complete)
    }

    /// Writes what these Services are now; all others stay as they are. It costs what these services cost. When `facts`
    /// are others than before, all Services are to be said.
    ///
    /// After an error the maps hold part of it, and everything is to be said again, the last with
    /// [`Listing::Complete`].
    pub fn apply_changes(
        &self,
        changes: &[ServiceChange],
        facts: &NodeFacts,
        listing: Listing,
    ) -> Result<Applied, DataplaneError> {
        let mut state = self.state();
        let State { maps, planner, limits, endings, .. } = &mut *state;
        for change in changes {
            planner.change(change, facts);
        }
        if listing == Listing::Complete {
            planner.drop_unconfirmed();
        }
        let planned = planner.take();
        if let Err(error) = maps.write_all(&planned.operations) {
            *planner = Planner::recover(maps.observe()?, limits);
            return Err(error);
        }
        let said = said_of(changes, planner);
        let said = |service| match said.get(&service) {
            Some(service) => Said::Is(service),
            None if planner.image().names.contains_key(&service) => Said::Nothing,
            None => Said::Gone,
        };
        let (acted, over) = endings.act(maps, &planned.left, said, listing == Listing::Complete)?;
        let settling = maps.take_settling();
        let acted_on_some = planned.left != Left::default() || !over.ended.is_empty();
        if acted_on_some && !settling.is_settled() {
            self.act_again(settling, planned.left, over, endings.again(), maps.looks()?);
        }
        Ok(Applied {
            operations: planned.operations.len(),
            flows_removed: acted.flows_removed,
            sockets_destroyed: acted.sockets_destroyed,
            ..planner.outcome(changes)
        })
    }

    /// Acts once more on backends that left, when no program runs any more that may have chosen one: such a program may
    /// have noted its choice after the first time.
    fn act_again(&self, settling: Settling, left: Left, over: Over, mut endings: Endings, looks: Looks) {
        let (directory, again) = (self.directory().to_owned(), self.again.clone());
        settling.then(Box::new(move || {
            let mut again = again.lock();
            let maps = match again.take() {
                Some(maps) => Ok(maps),
                None => KernelMaps::open(&directory),
            };
            let acted = maps.and_then(|mut maps| {
                maps.look_by(looks);
                endings.act_again(&mut maps, &left, &over)?;
                *again = Some(maps);
                Ok(())
            });
            if let Err(error) = acted {
                tracing::warn!("flows and sockets of backends that left may linger: {error}");
            }
        }));
    }
}

/// What is said of services in these changes, by their numbers.
fn said_of<'a>(changes: &'a [ServiceChange], planner: &Planner) -> BTreeMap<u32, &'a Service> {
    let ports = changes.iter().flat_map(|change| {
        change
            .ports
            .iter()
            .map(|(port, service)| (ServiceKey::new(&change.namespace, &change.name, port), service))
    });
    ports.filter_map(|(key, service)| Some((planner.ids().services.get(&key)?, service))).collect()
}
