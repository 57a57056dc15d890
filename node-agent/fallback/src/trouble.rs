//! What cannot be served, and why: for whoever tells people.

use std::fmt;
use std::net::SocketAddr;

use penstock_dataplane::{Protocol, ServiceKey};

/// An address of a service port that is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Whose address it is.
    pub service: ServiceKey,
    /// The address.
    pub address: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Why not.
    pub why: Why,
}

/// Why an address is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Somebody else on the node listens there.
    InUse,
    /// There is no proxy for the protocol in user space.
    Protocol,
    /// There are as many listeners as there may be.
    Limit,
    /// The kernel refused for another reason.
    Refused(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, address, .. } = self;
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(f, "{service} is not served at {address}/{protocol}: ")?;
        match &self.why {
            Why::InUse => write!(
                f,
                "another process on the node has the port; stop it, or have it listen on the node's own address \
                 instead of on all"
            ),
            Why::Protocol => write!(f, "the userspace proxy does not serve SCTP"),
            Why::Limit => write!(f, "the userspace proxy has as many listeners as it may"),
            Why::Refused(reason) => write!(f, "{reason}"),
        }
    }
}
