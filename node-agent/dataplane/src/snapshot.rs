//! All that decides what becomes of a connection, read from the pins at one moment: for whoever asks what would happen.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use penstock_ebpf_common::{Config, InsideKey, map};

use crate::DataplaneError;
use crate::image::MapImage;
use crate::kernel::{KernelMaps, failed};
use crate::policies;
use crate::sink::MapSink;

/// What the programs decide by, but for flows that are there already.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Services, sets and who may reach them.
    pub image: MapImage,
    /// The node.
    pub config: Config,
    /// Ranges of the cluster and whose they are (`INSIDE_*`).
    pub inside: Vec<(InsideKey, u32)>,
    /// The addresses of this node's pods, and their links.
    pub pods: BTreeMap<IpAddr, u32>,
    /// Network policies of this node's pods.
    pub policies: penstock_policy::Image,
}

impl Snapshot {
    /// Reads it from an agent's directory on its bpf file system.
    pub fn observe(directory: &Path) -> Result<Self, DataplaneError> {
        let maps = KernelMaps::open(directory)?;
        let config = maps.config.get(&0, 0).map_err(|error| failed("reading a map", map::CONFIG, error))?;
        let inside = maps.inside.iter().map(|entry| {
            let (key, of) = entry.map_err(|error| failed("reading a map", map::INSIDE, error))?;
            Ok((InsideKey { prefix_len: key.prefix_len(), address: key.data() }, of))
        });
        Ok(Self {
            inside: inside.collect::<Result<_, DataplaneError>>()?,
            image: maps.observe()?,
            config,
            pods: maps.pod_links()?,
            policies: policies::observe(directory)?,
        })
    }
}
