//! The data directory: where things are in it, whose it is, and who this control plane is.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::files::{self, FileError};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("the data directory {path} is in use by another orchestrator")]
    InUse { path: PathBuf },
    #[error("there is no data directory {path}")]
    Absent { path: PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
}

/// A directory of the control plane's.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

/// Keeps other processes out until dropped. The kernel lets go of it when the process ends in any way.
#[derive(Debug)]
pub struct Owned {
    _lock: File,
}

// === impl DataDir ===

impl DataDir {
    /// The directory, made private if need be.
    pub fn ensure(root: &Path) -> Result<Self, DataDirError> {
        files::ensure_private_directory(root)?;
        let data = Self { root: root.to_owned() };
        files::ensure_private_directory(&data.pki())?;
        Ok(data)
    }

    /// A directory that is there already.
    pub fn existing(root: &Path) -> Result<Self, DataDirError> {
        if root.is_dir() {
            Ok(Self { root: root.to_owned() })
        } else {
            Err(DataDirError::Absent { path: root.to_owned() })
        }
    }

    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    pub fn store(&self) -> PathBuf {
        self.root.join("store/penstock.redb")
    }

    /// Where the control plane that runs answers `backup` and `check`.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// Whether the cluster's keys are there.
    pub fn has_keys(&self) -> bool {
        self.pki().join("ca.key").exists()
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.root.join("admin.kubeconfig")
    }

    /// Takes the directory for this process.
    pub fn own(&self) -> Result<Owned, DataDirError> {
        let lock = self.open_lock("lock")?;
        match lock.try_lock() {
            Ok(()) => Ok(Owned { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: self.root.clone() }),
            Err(TryLockError::Error(source)) => Err(self.failed("lock", source)),
        }
    }

    /// Waits for the turn to make keys: `run` and `credentials` may both be first.
    pub fn lock_pki(&self) -> Result<Owned, DataDirError> {
        let lock = self.open_lock("pki/lock")?;
        lock.lock().map_err(|source| self.failed("lock", source))?;
        Ok(Owned { _lock: lock })
    }

    /// Who this control plane is in elections. It outlives restarts, so that a control plane that comes back has its
    /// leases again at once instead of waiting for its former self to time out.
    pub fn ensure_identity(&self) -> Result<String, DataDirError> {
        let path = self.root.join("identity");
        if let Some(identity) = files::read_if_present(&path)?.map(|text| text.trim().to_owned())
            && !identity.is_empty()
        {
            return Ok(identity);
        }
        let host =
            nix::unistd::gethostname().map_or("host".to_owned(), |name| name.to_string_lossy().into_owned());
        let identity = format!("{host}_{}", uuid::Uuid::new_v4());
        files::write_private(&path, identity.as_bytes())?;
        Ok(identity)
    }

    fn open_lock(&self, name: &str) -> Result<File, DataDirError> {
        let path = self.root.join(name);
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| DataDirError::File(FileError { action: "open", path, source }))
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> DataDirError {
        DataDirError::File(FileError { action, path: self.root.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_owner_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::ensure(&directory.path().join("data")).unwrap();
        let owned = data.own().unwrap();
        let second = data.own().unwrap_err();
        assert!(second.to_string().ends_with("is in use by another orchestrator"), "{second}");
        drop(owned);
        data.own().unwrap();
    }

    #[test]
    fn the_identity_outlives_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::ensure(directory.path()).unwrap();
        let identity = data.ensure_identity().unwrap();
        assert_eq!(data.ensure_identity().unwrap(), identity);
        let other = DataDir::ensure(&directory.path().join("other")).unwrap();
        assert_ne!(other.ensure_identity().unwrap(), identity);
    }
}
