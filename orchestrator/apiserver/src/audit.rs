//! The audit log: who asked for what, when, and what became of it, as far as a policy wants to know.
//!
//! [`policy`] decides how much of a request is noted, [`trail`] follows one request, [`event`] writes what it saw in
//! upstream's form, and [`log`] keeps it. A request waits until its events are taken: none is dropped.
//!
//! Form: <https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/>.

pub mod event;
pub mod log;
pub mod policy;
pub mod trail;

use std::path::PathBuf;
use std::sync::Arc;

pub use log::LogConfig;
pub use policy::Policy;
pub use trail::Trail;

/// What is noted, and where.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    pub policy: Arc<Policy>,
    pub log: LogConfig,
}

/// Why there can be no audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the audit policy {file} is none: {why}")]
    Policy { file: String, why: String },
    #[error("the audit log {path} cannot be written", path = path.display())]
    Log {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The audit of a server.
pub struct Audit {
    policy: Arc<Policy>,
    log: log::Log,
}

// === impl Audit ===

impl Audit {
    /// Opens the log.
    pub fn open(config: &AuditConfig) -> Result<Self, AuditError> {
        Ok(Self { policy: config.policy.clone(), log: log::Log::open(&config.log)? })
    }
}
