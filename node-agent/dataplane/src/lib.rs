//! The data plane: desired state, compiled, compared, applied.
//!
//! [`Desired`] is what the cluster wants; `compile` (pure) turns it into the image the kernel's maps should hold;
//! `diff` (pure) orders the changes so that no packet meets a dangling id; [`Dataplane`] writes them and owns
//! the programs. Must not know the Kubernetes API, CNI or any node but its own.

mod desired;
mod error;
mod load;

pub use desired::{Backend, BadServiceKey, Desired, Protocol, Service, ServiceKey};
pub use error::DataplaneError;
pub use load::{Applied, Dataplane, Limits, LoadOptions, PodLink};
