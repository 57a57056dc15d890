//! Why the kubelet half cannot run at all. Failures of single pods are events and conditions, never these.

use std::path::PathBuf;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    /// A directory or file of ours cannot be used.
    #[error("cannot use {}", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kubelet API cannot listen.
    #[error("cannot listen on {address} for the kubelet API")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificates given are not usable.
    #[error("kubelet API certificate: {message}")]
    Certificate {
        /// What is wrong with which file.
        message: String,
    },
}
