//! Where packets from outside are met.

use std::path::Path;

use penstock_dataplane::{DataplaneError, XdpKind, observe_xdp};
use serde::Serialize;

/// Where the programs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The kind of XDP on the uplink; none when tc alone meets what arrives.
    pub xdp: Option<XdpKind>,
    /// The number of the interface with the XDP program.
    pub xdp_ifindex: Option<u32>,
}

/// For people.
pub fn status_table(status: &Status) -> String {
    match (status.xdp, status.xdp_ifindex) {
        (Some(kind), Some(ifindex)) => {
            format!("uplink: XDP {} on interface {ifindex}, then tc\n", kind.name())
        }
        _ => "uplink: tc alone; the agent's log says why there is no XDP\n".to_owned(),
    }
}

// === impl Status ===

impl Status {
    /// Reads it from an agent's directory on its bpf file system.
    pub fn observe(directory: &Path) -> Result<Self, DataplaneError> {
        let xdp = observe_xdp(directory)?;
        Ok(Self { xdp: xdp.map(|(kind, _)| kind), xdp_ifindex: xdp.map(|(_, ifindex)| ifindex) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_xdp_is_named_and_its_absence_too() {
        let with = Status { xdp: Some(XdpKind::Generic), xdp_ifindex: Some(2) };
        assert_eq!(status_table(&with), "uplink: XDP generic on interface 2, then tc\n");
        assert!(status_table(&Status { xdp: None, xdp_ifindex: None }).contains("tc alone"));
    }
}
