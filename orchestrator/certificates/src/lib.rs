//! Certificates as a cluster's authority signs them, and the requests for them.
//!
//! What rcgen cannot say: a subject with any number of groups, and a subject taken over from a request as it stands.
//! Keys and signatures are still rcgen's and ring's. Knows bytes, neither files nor the Kubernetes API, so that the API
//! server (which judges requests), the controllers (which sign them) and the wiring (which issues the control plane's
//! own certificates) share one reading of both.

mod authority;
mod names;
mod pem;
mod request;
mod usages;

pub use authority::{Authority, AuthorityError, Lifetime, Subject, Wanted};
pub use names::AlternativeName;
pub use pem::{ChainError, check_chain, expiry};
pub use request::{Request, RequestError};
pub use usages::{USAGES, UnknownUsage, Usages};
