//! Sight: what the kernel programs did, why they dropped what they dropped, and how full their maps are.
//!
//! The data comes from `penstock-dataplane`, which reads the pins; this crate turns it into tables for people, JSON for
//! scripts and the Prometheus text format. It needs no running agent. Must not know how anything was counted.

mod explain;
mod filter;
mod histogram;
mod live;
mod metrics;
mod names;
mod sighting;
mod status;
mod table;

use std::path::Path;

pub use explain::{
    Destination, Established, Explanation, Kept, NoAnswer, Question, Source, Step, explain, find_service,
};
pub use filter::{Filter, NoSuchReason};
pub use histogram::{Histogram, NETWORK_PROGRAMMING_BOUNDS, PROGRAMMING_BOUNDS};
pub use live::{ObserveError, Show, observe};
pub use metrics::{counters_metrics, maps_metrics};
pub use names::Names;
pub use penstock_dataplane::{
    Counters, DataplaneError, MapFill, PodDrops, ServiceTraffic, observe_counters, observe_maps,
};
pub use sighting::{Clock, End, Sighting, protocol_name};
pub use status::{Status, status_table};
pub use table::{counters_table, maps_table};

/// How something observed is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON value.
    Json,
    /// The Prometheus text format.
    Metrics,
}

/// `node-agent counters`: `directory` is the agent's own on its bpf file system, such as `/sys/fs/bpf/penstock`; `pod` says
/// which pod's link has a number.
pub fn show_counters(
    directory: &Path,
    pod: impl Fn(u32) -> Option<String>,
    format: Format,
) -> Result<String, DataplaneError> {
    let mut counters = observe_counters(directory)?;
    counters.name_pods(pod);
    Ok(match format {
        Format::Table => counters_table(&counters),
        Format::Json => json(&counters),
        Format::Metrics => counters_metrics(&counters),
    })
}

/// `node-agent maps`: how full each map is. Lists every key, so it is for people and not for a loop.
pub fn show_maps(directory: &Path, format: Format) -> Result<String, DataplaneError> {
    let maps = observe_maps(directory)?;
    Ok(match format {
        Format::Table => maps_table(&maps),
        Format::Json => json(&maps),
        Format::Metrics => maps_metrics(&maps),
    })
}

/// `node-agent status`: where packets from outside are met.
pub fn show_status(directory: &Path, format: Format) -> Result<String, DataplaneError> {
    let status = Status::observe(directory)?;
    Ok(match format {
        Format::Table => status_table(&status),
        Format::Json => json(&status),
        Format::Metrics => metrics::status_metrics(&status),
    })
}

fn json(value: &impl serde::Serialize) -> String {
    // These are structs of numbers, strings and maps with string keys: nothing that JSON cannot hold.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
