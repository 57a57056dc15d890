//! What programs may have noted for some services, told from what they counted for them.
//!
//! It exists because most changes are of services that no client of this node uses, and reading maps of a hundred thousand
//! places to find nothing costs more than all the rest of the change. Programs note first and count after: who must not
//! miss a note asks again when none runs any more that may be between the two. Counts must not be set back while
//! something is noted: a service's number starts anew only after all of the former service was forgotten.

use std::path::Path;

use penstock_ebpf_common::ServiceCount;

use crate::DataplaneError;
use crate::counts::Counts;

/// Which maps may have entries of some services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noted {
    /// Peers of connected sockets, and how many there are.
    pub connects: bool,
    /// Flows of sockets that are not connected.
    pub datagrams: bool,
    /// Flows of interfaces.
    pub packets: bool,
}

// === impl Noted ===

impl Noted {
    /// What may have been noted for some services, by counts that are pinned in an agent's directory.
    pub fn observe<'a>(
        directory: &Path,
        services: impl Iterator<Item = &'a u32>,
    ) -> Result<Self, DataplaneError> {
        Self::of(&mut Counts::open(directory)?, services)
    }

    /// The same by these counts.
    pub fn of<'a>(
        counts: &mut Counts,
        services: impl Iterator<Item = &'a u32>,
    ) -> Result<Self, DataplaneError> {
        let mut noted = Self::default();
        for service in services {
            noted = noted.with(&counts.get(*service)?);
        }
        Ok(noted)
    }

    /// Adds what may have been noted for one more service.
    fn with(self, count: &ServiceCount) -> Self {
        Self {
            connects: self.connects || count.connects > 0,
            datagrams: self.datagrams || count.datagrams > 0,
            // A flow's first packet may have been dropped after the flow was noted.
            packets: self.packets || count.packets > 0 || count.replies > 0 || count.drops > 0,
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
        assert_eq!(connects, Noted { connects: true, ..Noted::default() });
        let both = connects.with(&ServiceCount { datagrams: 1, ..none });
        assert_eq!(both, Noted { connects: true, datagrams: true, packets: false });
        assert!(Noted::default().with(&ServiceCount { drops: 1, ..none }).packets);
    }
}
