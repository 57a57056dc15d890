//! Who a node is to its API server: how it joins with a token, and how it stays somebody.
//!
//! [`join`] turns a token into a kubeconfig: it finds the cluster ([`cluster_info`]), recognises it ([`pin`], [`token`]), and
//! asks for a certificate ([`request`]). [`renew`] exchanges the certificate for a new one while the agent runs, and
//! [`credentials`] gives clients that go on with whatever is present. [`serving`] asks for the certificate of the node's own
//! server. Must not know what the halves do with their clients. See docs/adr/0044-joining-and-renewing.md.

mod certificate;
mod cluster_info;
mod credentials;
mod failure;
mod join;
mod kubeconfig;
mod pin;
mod renew;
mod request;
mod serving;
mod token;

pub use credentials::Credentials;
pub use join::{Join, JoinError, join};
pub use kubeconfig::{KubeconfigError, is_usable, read};
pub use pin::KeyHash;
pub use renew::Renewal;
pub use serving::Serving;
pub use token::JoinToken;
