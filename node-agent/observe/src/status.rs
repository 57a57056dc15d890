//! Where packets from outside are met.

use std::path::Path;

use penstock_dataplane::{DataplaneError, TcKind, XdpKind, observe_tc, observe_xdp};
use serde::Serialize;

/// Where the programs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The kind of XDP on the uplink; none when tc alone meets what arrives.
    pub xdp: Option<XdpKind>,
    /// The number of the interface with the XDP program.
    pub xdp_ifindex: Option<u32>,
    /// By which way programs are attached behind it; none when none are, in this network namespace.
    pub tc: Option<TcKind>,
}

/// For people.
pub fn status_table(status: &Status) -> String {
    let xdp = match (status.xdp, status.xdp_ifindex) {
        (Some(kind), Some(ifindex)) => format!("XDP {} on interface {ifindex}", kind.name()),
        _ => "no XDP (the agent's log says why)".to_owned(),
    };
    let tc = match status.tc {
        Some(kind) => format!("tc by {}", kind.name()),
        None => "no programs at tc in this network namespace".to_owned(),
    };
    format!("uplink: {xdp}, then {tc}\n")
}

// === impl Status ===

impl Status {
    /// Reads it from an agent's directory on its bpf file system, and this network namespace.
    pub fn observe(directory: &Path) -> Result<Self, DataplaneError> {
        let xdp = observe_xdp(directory)?;
        let tc = observe_tc(directory)?;
        Ok(Self { xdp: xdp.map(|(kind, _)| kind), xdp_ifindex: xdp.map(|(_, ifindex)| ifindex), tc })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_xdp_is_named_and_its_absence_too() {
        let with = Status { xdp: Some(XdpKind::Generic), xdp_ifindex: Some(2), tc: Some(TcKind::Links) };
        assert_eq!(status_table(&with), "uplink: XDP generic on interface 2, then tc by links\n");
        let without = Status { xdp: None, xdp_ifindex: None, tc: Some(TcKind::Classifiers) };
        assert!(status_table(&without).contains("no XDP (the agent's log says why), then tc by classifiers"));
        let nothing = Status { tc: None, ..without };
        assert!(status_table(&nothing).contains("no programs at tc"));
    }
}
