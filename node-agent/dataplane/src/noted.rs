//! What programs may have noted for some services, told from what they counted for them.
//!
//! It exists because most changes are of services that no client of this node uses, and reading maps of a hundred thousand
//! places to find nothing costs more than all the rest of the change. Programs note first and count after: who must not
//! miss a note asks again when none runs any more that may be between the two. Counts must not be set back while
//! something is noted: a service's number starts anew only after all of the former service was forgotten.

use std::collections::BTreeSet;

use penstock_ebpf_common::ServiceCount;

use crate::DataplaneError;
use crate::counts::Counts;

/// What was counted for some services: zero where the map in question has no entries of them. Nothing was noted between two
/// looks at the same counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noted {
    /// Peers of connected sockets, and how many there are.
    pub connects: u64,
    /// Flows of sockets that are not connected.
    pub datagrams: u64,
    /// Flows of interfaces.
    pub packets: u64,
}

// === impl Noted ===

impl Noted {
    /// What may have been noted for some services, by these counts.
    pub fn of(counts: &mut Counts, services: &BTreeSet<u32>) -> Result<Self, DataplaneError> {
        let mut noted = Self::default();
        for service in services {
            noted = noted.with(&counts.get(*service)?);
        }
        Ok(noted)
    }

    /// Adds what may have been noted for one more service.
    fn with(self, count: &ServiceCount) -> Self {
        Self {
            connects: self.connects + count.connects,
            datagrams: self.datagrams + count.datagrams,
            // A flow's first packet may have been dropped after the flow was noted.
            packets: self.packets + count.packets + count.replies + count.drops,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_traffic_is_noted_in_its_own_map() {
        let none = ServiceCount { refused: 9, ..ServiceCount::default() };
        assert_eq!(Noted::default().with(&none), Noted::default(), "who is refused leaves no trace");
        let connects = Noted::default().with(&ServiceCount { connects: 1, ..none });
        assert_eq!(connects, Noted { connects: 1, ..Noted::default() });
        let both = connects.with(&ServiceCount { connects: 2, datagrams: 1, ..none });
        assert_eq!(both, Noted { connects: 3, datagrams: 1, packets: 0 });
        assert_eq!(Noted::default().with(&ServiceCount { drops: 1, ..none }).packets, 1);
    }
}
