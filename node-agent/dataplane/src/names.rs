//! The names of service ports, asked one by one: numbers are given out again, so nobody should remember them for long.

use std::path::Path;

use aya::maps::{HashMap, MapData};
use penstock_ebpf_common::{ServiceName, map};

use crate::DataplaneError;
use crate::kernel::{open, text};

/// The map of names, read only.
pub struct ServiceNames(HashMap<MapData, u32, ServiceName>);

impl ServiceNames {
    /// Opens them from an agent's directory on its bpf file system.
    pub fn open(directory: &Path) -> Result<Self, DataplaneError> {
        Ok(Self(open(directory, map::NAMES)?))
    }

    /// `namespace/name:port` of a number, if it is a service port's.
    pub fn get(&self, number: u32) -> Option<String> {
        self.0.get(&number, 0).ok().map(|name| text(&name))
    }
}

impl std::fmt::Debug for ServiceNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceNames")
    }
}
