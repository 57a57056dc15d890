//! Backends that left their sets and still run: who may go on, and from when no more.
//!
//! A backend that ends gets no new connections, yet serves those it has; one whose endpoint is gone serves nobody, and
//! whoever is connected to it would wait in vain. Between the two lies time, which this remembers. Pure: what it finds
//! is acted on by [`crate::sockets`] and [`crate::sweep`].

use std::collections::BTreeMap;

use crate::image::Endpoint;
use crate::sweep::Departed;

/// How a backend stands with its service now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing was said of the service.
    Unsaid,
    /// It answers: because it is ready, though perhaps not in a set of this node, or until it has ended.
    Serving,
    /// Its endpoint is there and does not answer.
    Silent,
    /// There is no such endpoint.
    Gone,
}

/// Backends that left and were not gone yet, by service, with whether they answered.
#[derive(Debug, Default)]
pub struct Leaving(BTreeMap<(u32, Endpoint), Standing>);

/// Backends with whose clients it is over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Gone: connections cannot come to a good end.
    pub gone: Departed,
    /// Silent: a connection may be waited for, but datagrams are not answered and should go elsewhere.
    pub silent: Departed,
}

// === impl Leaving ===

impl Leaving {
    /// Takes note of backends that left their sets just now, and looks again at those that left before. Each is told of
    /// once as silent and once as gone.
    pub fn step(&mut self, departed: &Departed, standing: impl Fn(u32, Endpoint) -> Standing) -> Ended {
        for (service, endpoints) in departed {
            for endpoint in endpoints {
                self.0.entry((*service, *endpoint)).or_insert(Standing::Serving);
            }
        }
        let mut ended = Ended::default();
        self.0.retain(|(service, endpoint), known| {
            let now = match standing(*service, *endpoint) {
                // Of a service that is not said its backends cannot have left, unless it is gone as a whole.
                Standing::Unsaid if departed.contains_key(service) => Standing::Gone,
                Standing::Unsaid => *known,
                now => now,
            };
            let tell = |to: &mut Departed| {
                to.entry(*service).or_default().insert(*endpoint);
            };
            match now {
                Standing::Gone => tell(&mut ended.gone),
                Standing::Silent if *known != Standing::Silent => tell(&mut ended.silent),
                _ => {}
            }
            *known = now;
            matches!(now, Standing::Serving | Standing::Silent)
        });
        ended
    }
}

// === impl Ended ===

impl Ended {
    /// Adds what another way found.
    pub fn merge(&mut self, other: Self) {
        for (to, from) in [(&mut self.gone, other.gone), (&mut self.silent, other.silent)] {
            for (service, endpoints) in from {
                to.entry(service).or_default().extend(endpoints);
            }
        }
    }

    /// Whose backends they were.
    pub fn services(&self) -> impl Iterator<Item = &u32> {
        self.gone.keys().chain(self.silent.keys())
    }

    /// Whether there is nothing to act on.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.silent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use penstock_ebpf_common::Address;

    use super::*;

    fn at(last: u8) -> Endpoint {
        (Address::from(std::net::IpAddr::from([10, 0, 0, last])), 53)
    }

    fn of(service: u32, endpoint: Endpoint) -> Departed {
        Departed::from([(service, BTreeSet::from([endpoint]))])
    }

    #[test]
    fn a_backend_that_ends_is_left_alone_until_its_endpoint_is_gone() {
        let mut leaving = Leaving::default();
        assert!(leaving.step(&of(7, at(1)), |_, _| Standing::Serving).is_empty());
        assert!(leaving.step(&Departed::new(), |_, _| Standing::Unsaid).is_empty(), "nothing new of it");
        let ended = leaving.step(&Departed::new(), |_, _| Standing::Gone);
        assert_eq!(ended, Ended { gone: of(7, at(1)), silent: Departed::new() });
        assert!(leaving.step(&Departed::new(), |_, _| Standing::Gone).is_empty(), "told once");
    }

    #[test]
    fn a_backend_removed_abruptly_or_with_its_service_is_gone_at_once() {
        for standing in [Standing::Gone, Standing::Unsaid] {
            let ended = Leaving::default().step(&of(7, at(1)), |_, _| standing);
            assert_eq!(ended.gone, of(7, at(1)));
        }
    }

    #[test]
    fn a_backend_that_falls_silent_is_told_of_once_and_again_when_it_goes() {
        let mut leaving = Leaving::default();
        assert_eq!(leaving.step(&of(7, at(1)), |_, _| Standing::Silent).silent, of(7, at(1)));
        assert!(leaving.step(&Departed::new(), |_, _| Standing::Silent).is_empty());
        assert_eq!(leaving.step(&Departed::new(), |_, _| Standing::Gone).gone, of(7, at(1)));
    }
}
