//! Addresses this node answers for though no interface has them, and until when.
//!
//! Who writes here has been elected; the programs only ask whether an address is here and the lease has not run out. A
//! node whose agent died therefore falls silent by itself.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use aya::maps::{HashMap, MapData};
use penstock_ebpf_common::{ANNOUNCED_LEASE, Address, Announced, map};

use crate::kernel::{failed, gone, open, pin};
use crate::{Dataplane, DataplaneError, sys};

/// The map of announced addresses. There is one writer on a node.
pub struct Announcements {
    entries: HashMap<MapData, Address, Announced>,
    fd: OwnedFd,
}

/// By which interface an address is answered for, and with which link address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Station {
    /// The interface.
    pub ifindex: u32,
    /// Its link address.
    pub mac: [u8; 6],
}

impl std::fmt::Debug for Announcements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announcements").finish_non_exhaustive()
    }
}

impl Dataplane {
    /// The map of announced addresses.
    pub fn announcements(&self) -> Result<Announcements, DataplaneError> {
        Announcements::open(self.directory())
    }
}

// === impl Announcements ===

impl Announcements {
    fn open(directory: &Path) -> Result<Self, DataplaneError> {
        let fd = sys::get(&pin(directory, map::ANNOUNCED)).map_err(|source| DataplaneError::Kernel {
            doing: "opening a pinned map",
            subject: map::ANNOUNCED.to_owned(),
            source,
        })?;
        Ok(Self { entries: open(directory, map::ANNOUNCED)?, fd })
    }

    /// How many addresses there is room for.
    pub fn addresses_max(&self) -> Result<usize, DataplaneError> {
        let info = sys::map_info(self.fd.as_fd()).map_err(|source| DataplaneError::Kernel {
            doing: "asking for a map",
            subject: map::ANNOUNCED.to_owned(),
            source,
        })?;
        Ok((info.entries_max as usize).saturating_sub(1))
    }

    /// Answers for an address from now on, while the lease lasts.
    pub fn put(&mut self, address: IpAddr, station: Station) -> Result<(), DataplaneError> {
        let Station { ifindex, mac } = station;
        let value = Announced { until_ns: 0, ifindex, mac, zero: [0; 6] };
        self.write(Address::from(address), value)
    }

    /// Answers for it no more.
    pub fn remove(&mut self, address: IpAddr) -> Result<(), DataplaneError> {
        gone(self.entries.remove(&Address::from(address)), map::ANNOUNCED)
    }

    /// Lets the lease run from now for this long; what was said before does not count.
    pub fn renew(&mut self, lease: Duration) -> Result<(), DataplaneError> {
        let until_ns =
            sys::monotonic_ns().saturating_add(u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX));
        self.write(ANNOUNCED_LEASE, Announced { until_ns, ..Announced::default() })
    }

    /// What is answered for, and by whom; also when the lease has run out.
    pub fn list(&self) -> Result<Vec<(IpAddr, Station)>, DataplaneError> {
        let mut found = Vec::new();
        for entry in self.entries.iter() {
            let (address, value) = entry.map_err(|error| failed("reading a map", map::ANNOUNCED, error))?;
            if address != ANNOUNCED_LEASE {
                found.push((address.into(), Station { ifindex: value.ifindex, mac: value.mac }));
            }
        }
        Ok(found)
    }

    fn write(&mut self, key: Address, value: Announced) -> Result<(), DataplaneError> {
        self.entries.insert(key, value, 0).map_err(|error| failed("writing a map", map::ANNOUNCED, error))
    }
}
