//! What is done once the sets were swapped: clients of backends that left are sent elsewhere, each as it can be.
//!
//! Datagram flows and remembered clients are forgotten at once; connected sockets are destroyed and TCP flows forgotten
//! when there is no hope left in them. The first time after a start the sockets are compared with the whole cluster:
//! a backend may have gone while there was no agent.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use crate::image::{Endpoint, service_of};
use crate::kernel::KernelMaps;
use crate::leaving::{Ended, Leaving, Standing};
use crate::namespaces::Namespaces;
use crate::noted::Noted;
use crate::sweep::{self, Left};
use crate::{DataplaneError, Service, sockets};

/// What is remembered from one change to the next.
#[derive(Debug)]
pub struct Endings {
    leaving: Leaving,
    namespaces: Namespaces,
    /// Backends that sockets were connected to at the start and of whose services nothing was said since; none once the
    /// whole cluster was.
    suspects: Suspects,
    /// Sockets destroyed for the last change, whose owners may not have closed them yet. If one is connected anew, that
    /// began after the sets were swapped.
    dead: BTreeSet<u64>,
}

#[derive(Debug)]
enum Suspects {
    Unread,
    Are(BTreeSet<(u32, Endpoint)>),
    Cleared,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acted {
    /// Flow halves forgotten.
    pub flows_removed: usize,
    /// Connected sockets destroyed.
    pub sockets_destroyed: usize,
}

/// With whose clients it is over by a change.
#[derive(Debug, Default)]
pub struct Over {
    /// Backends that ended.
    pub ended: Ended,
    /// What had been noted for their services, and for those of backends that left, when it was looked for.
    pub noted: Noted,
}

/// What is said of a service now.
#[derive(Debug, Clone, Copy)]
pub enum Said<'a> {
    /// Nothing: it is as it was.
    Nothing,
    /// There is none of this number.
    Gone,
    /// All of it.
    Is(&'a Service),
}

// === impl Endings ===

impl Endings {
    /// For clients in this directory of the cgroup v2 tree.
    pub fn new(cgroup: &Path) -> Self {
        Self {
            leaving: Leaving::default(),
            namespaces: Namespaces::new(cgroup),
            suspects: Suspects::Unread,
            dead: BTreeSet::new(),
        }
    }

    /// The same for another thread, which remembers only whom it need not destroy again.
    pub fn again(&self) -> Self {
        Self {
            leaving: Leaving::default(),
            namespaces: self.namespaces.again(),
            suspects: Suspects::Cleared,
            dead: self.dead.clone(),
        }
    }

    /// Acts once more on what is over, when no program runs any more that saw the sets as they were. Nothing is looked for
    /// when nothing was noted since the first time.
    pub fn act_again(
        &mut self,
        maps: &mut KernelMaps,
        left: &Left,
        over: &Over,
    ) -> Result<Acted, DataplaneError> {
        let noted = maps.noted(&services_of(left, &over.ended))?;
        if noted == over.noted {
            return Ok(Acted::default());
        }
        self.act_on(maps, left, &over.ended, noted)
    }

    /// Acts on backends that left their sets, and on those that left before and are gone now. `all_was_said` says that
    /// by now something was said of every service since the start.
    pub fn act<'a>(
        &mut self,
        maps: &mut KernelMaps,
        left: &Left,
        said: impl Fn(u32) -> Said<'a>,
        all_was_said: bool,
    ) -> Result<(Acted, Over), DataplaneError> {
        let standing = |service, endpoint| standing(said(service), endpoint);
        let mut ended = self.leaving.step(&left.departed, standing);
        if matches!(self.suspects, Suspects::Unread) {
            self.suspects = Suspects::Are(connected(maps)?);
        }
        if let Suspects::Are(suspects) = &mut self.suspects {
            ended.merge(convict(suspects, standing));
        }
        if all_was_said {
            self.suspects = Suspects::Cleared;
        }
        self.dead.clear();
        // Before the maps are looked at: what is noted after a look is counted after it.
        let noted = maps.noted(&services_of(left, &ended))?;
        let acted = self.act_on(maps, left, &ended, noted)?;
        Ok((acted, Over { ended, noted }))
    }

    fn act_on(
        &mut self,
        maps: &mut KernelMaps,
        left: &Left,
        ended: &Ended,
        noted: Noted,
    ) -> Result<Acted, DataplaneError> {
        let victims = sockets::observe_victims(maps, ended, &self.dead, noted)?;
        let (namespaces, dead) = (&mut self.namespaces, &mut self.dead);
        let destroy = || sockets::apply_end(namespaces, &victims, dead);
        let mut sweep = || sweep::apply_departure(maps, left, &ended.gone, noted);
        if victims.is_empty() {
            return Ok(Acted { flows_removed: sweep()?, sockets_destroyed: 0 });
        }
        // Neither waits for the other: the owners of sockets and those who send datagrams do.
        let (destroyed, swept) = std::thread::scope(|scope| {
            // It goes to where the sockets are, and does not come back.
            let destroying = scope.spawn(destroy);
            let swept = sweep();
            (destroying.join(), swept)
        });
        // A panic there is a defect of ours that must not end the agent.
        let sockets_destroyed = destroyed.unwrap_or_else(|_| {
            tracing::error!("destroying sockets of backends that are gone panicked");
            Ok(0)
        })?;
        Ok(Acted { flows_removed: swept?, sockets_destroyed })
    }
}

/// The services that something is over for.
fn services_of(left: &Left, ended: &Ended) -> BTreeSet<u32> {
    let of_sets = left.unkept.keys().map(|set| service_of(*set));
    left.departed.keys().chain(ended.services()).copied().chain(of_sets).collect()
}

/// Backends that sockets are connected to.
fn connected(maps: &KernelMaps) -> Result<BTreeSet<(u32, Endpoint)>, DataplaneError> {
    let mut connected = BTreeSet::new();
    maps.peer_memory()?.each(|_, peer| {
        connected.insert((peer.service, (peer.backend, peer.backend_port)));
    });
    Ok(connected)
}

/// Takes those away of whom it is known by now how they stand; returns those with whose clients it is over.
fn convict(suspects: &mut BTreeSet<(u32, Endpoint)>, standing: impl Fn(u32, Endpoint) -> Standing) -> Ended {
    let mut ended = Ended::default();
    suspects.retain(|(service, endpoint)| {
        let of = match standing(*service, *endpoint) {
            Standing::Unsaid => return true,
            Standing::Serving => return false,
            Standing::Gone => &mut ended.gone,
            Standing::Silent => &mut ended.silent,
        };
        of.entry(*service).or_default().insert(*endpoint);
        false
    });
    ended
}

fn standing(said: Said<'_>, (address, port): Endpoint) -> Standing {
    let service = match said {
        Said::Nothing => return Standing::Unsaid,
        Said::Gone => return Standing::Gone,
        Said::Is(service) => service,
    };
    let (address, port) = (IpAddr::from(address), u16::from_be(port));
    let of = service.backends.iter().filter(|backend| backend.address == address && backend.port == port);
    // One endpoint may be in two slices while it moves from one to the other: the better one counts.
    of.map(|backend| if backend.ready || backend.serving { Standing::Serving } else { Standing::Silent })
        .min()
        .unwrap_or(Standing::Gone)
}

#[cfg(test)]
mod tests {
    use penstock_ebpf_common::Address;

    use super::*;
    use crate::Backend;

    #[test]
    fn a_suspect_is_waited_for_until_something_is_said_of_its_service() {
        let at = |last: u8| (Address::from(IpAddr::from([10, 0, 0, last])), 53_u16.to_be());
        let mut suspects = BTreeSet::from([(7, at(1)), (7, at(2)), (8, at(1))]);
        let ended = convict(&mut suspects, |service, endpoint| match (service, endpoint) {
            (8, _) => Standing::Unsaid,
            (_, endpoint) if endpoint == at(1) => Standing::Gone,
            _ => Standing::Serving,
        });
        assert_eq!(
            ended,
            Ended { gone: [(7, BTreeSet::from([at(1)]))].into(), silent: sweep::Departed::new() }
        );
        assert_eq!(suspects, BTreeSet::from([(8, at(1))]));
    }

    #[test]
    fn a_backend_stands_as_the_best_of_its_endpoints_does() {
        let address = IpAddr::from([10, 0, 0, 9]);
        let endpoint = (Address::from(address), 53_u16.to_be());
        let of = |ready, serving, terminating| Backend {
            address,
            port: 53,
            ready,
            serving,
            terminating,
            ..Backend::default()
        };
        let with = |backends: &[Backend]| {
            let service = Service { backends: backends.to_vec(), ..Service::default() };
            standing(Said::Is(&service), endpoint)
        };
        let (ends, silent) = (of(false, true, true), of(false, false, false));
        assert_eq!(with(&[]), Standing::Gone);
        assert_eq!(with(std::slice::from_ref(&ends)), Standing::Serving);
        assert_eq!(with(std::slice::from_ref(&silent)), Standing::Silent);
        assert_eq!(with(&[silent, ends]), Standing::Serving);
        assert_eq!(standing(Said::Nothing, endpoint), Standing::Unsaid);
        assert_eq!(standing(Said::Gone, endpoint), Standing::Gone);
    }
}
