//! Where the data plane joins in: what is called for each pod's link.
//!
//! It exists so that the network runs, and is tested, without eBPF. It must not know what the hooks do.

use std::net::IpAddr;

/// The node's end of a pod's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// In the node's network namespace.
    pub ifindex: u32,
    /// Device name.
    pub name: String,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether what goes to the pod is limited by a queue of this device, which no packet may be led past.
    pub is_shaped: bool,
    /// The link address of the pod's end.
    pub pod_mac: [u8; 6],
    /// The pod's namespace; empty when the runtime did not say.
    pub namespace: String,
    /// The pod's name; empty when the runtime did not say.
    pub pod: String,
    /// Whether the pod is about to start: whoever needs to be ready before its first packet has it wait.
    pub begins: bool,
}

/// Called on a thread that may block. Both must be idempotent: `attach` comes again for every link that is found
/// when the agent starts, `detach` for links that are already gone.
pub trait PodHooks: Send + Sync + 'static {
    /// The link is up and its routes are in place; no container has started yet. An error fails the ADD.
    fn attach(&self, link: &PodLink) -> Result<(), HookError>;
    /// The link is about to go. Errors are logged: a pod that is gone must not hold its address.
    fn detach(&self, link: &PodLink) -> Result<(), HookError>;
}

/// What a hook reports.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct HookError {
    /// For a person.
    pub message: String,
}

/// No data plane: the links alone.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoHooks;

impl PodHooks for NoHooks {
    fn attach(&self, _: &PodLink) -> Result<(), HookError> {
        Ok(())
    }

    fn detach(&self, _: &PodLink) -> Result<(), HookError> {
        Ok(())
    }
}
