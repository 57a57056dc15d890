//! Kernel settings under /proc/sys.
//!
//! It exists so that a setting that is already right is not written: /proc/sys may be read-only in a container
//! whose host is set up well. It must not know which settings matter.

use std::io;
use std::path::PathBuf;

/// A setting that is wrong and cannot be changed.
#[derive(Debug, thiserror::Error)]
#[error("{} should be {wanted} and cannot be written", path.display())]
pub struct SysctlError {
    /// File below /proc/sys.
    pub path: PathBuf,
    /// The value it should have.
    pub wanted: String,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Sets `name` (with slashes: `net/ipv4/ip_forward`) in the calling thread's network namespace.
pub(crate) fn ensure_sysctl(name: &str, wanted: &str) -> Result<(), SysctlError> {
    let path = PathBuf::from("/proc/sys").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == wanted) {
        return Ok(());
    }
    std::fs::write(&path, wanted).map_err(|source| SysctlError { path, wanted: wanted.into(), source })
}
