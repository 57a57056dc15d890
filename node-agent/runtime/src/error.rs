//! What can go wrong between the agent and the runtime, sorted by what the caller should do about it.

/// A failed call to the runtime.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// The thing asked about does not exist.
    #[error("{what} not found")]
    NotFound {
        /// The call and the runtime's words.
        what: String,
    },
    /// The runtime cannot be reached; the connection comes back by itself.
    #[error("container runtime not reachable at {endpoint}: {message}")]
    Unavailable {
        /// The socket.
        endpoint: String,
        /// The transport's words.
        message: String,
    },
    /// The call took longer than its deadline.
    #[error("{call} did not finish within {seconds} s")]
    Timeout {
        /// Name of the call.
        call: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The runtime does not have this call.
    #[error("{call} is not implemented by the container runtime")]
    Unsupported {
        /// Name of the call.
        call: &'static str,
    },
    /// The runtime refused or failed.
    #[error("{message}")]
    Failed {
        /// Name of the call.
        call: &'static str,
        /// The runtime's words.
        message: String,
    },
    /// The endpoint is not one we can talk to.
    #[error("runtime endpoint {endpoint:?} is not of the form unix:///path/to/socket")]
    BadEndpoint {
        /// As given.
        endpoint: String,
    },
}

impl RuntimeError {
    /// Whether the thing asked about is gone; removal then counts as done.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the runtime itself is away, so that nothing can be concluded about containers.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
