//! Doing something inside another network namespace.
//!
//! A namespace belongs to a thread, and async tasks move between threads, so the work runs on a thread made for it
//! that ends with it: no thread of the runtime ever changes namespace. Sockets stay in the namespace they were
//! opened in, so only opening them needs the thread. It must not know what is done there.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netns {
    /// The one this process runs in.
    Own,
    /// The one a file names: `/run/netns/x`, `/proc/1/ns/net`.
    At(PathBuf),
}

/// Why a namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path cannot be opened.
    #[error("network namespace {path:?} cannot be opened")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was opened and cannot be entered.
    #[error("network namespace {path:?} cannot be entered")]
    Enter {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: nix::Error,
    },
    /// No thread could be made, or the work on it panicked.
    #[error("no thread for work in a network namespace")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A netlink socket could not be opened there.
    #[error("no netlink socket in the network namespace")]
    Netlink {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Netns {
    /// Runs `work` inside. Blocks for as long as it takes.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let Self::At(path) = self else { return Ok(work()) };
        let file = open(path)?;
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || setns(&file, CloneFlags::CLONE_NEWNET).map(|()| work()));
            let thread = thread.map_err(|source| NetnsError::Thread { source })?;
            match thread.join() {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(source)) => Err(NetnsError::Enter { path: path.clone(), source }),
                Err(_) => Err(NetnsError::Thread { source: io::Error::other("the work panicked") }),
            }
        })
    }

    /// A route netlink handle whose socket is inside. Must be called within a tokio runtime; the connection ends
    /// when the last clone of the handle is dropped.
    pub fn netlink(&self) -> Result<rtnetlink::Handle, NetnsError> {
        let runtime = tokio::runtime::Handle::current();
        let opened = self.run(|| {
            let _guard = runtime.enter();
            rtnetlink::new_connection().map(|(connection, handle, _)| {
                runtime.spawn(connection);
                handle
            })
        })?;
        opened.map_err(|source| NetnsError::Netlink { source })
    }
}

/// Opens a namespace file, so that it stays that namespace whatever happens to the path.
pub(crate) fn open(path: &Path) -> Result<File, NetnsError> {
    File::open(path).map_err(|source| NetnsError::Open { path: path.to_path_buf(), source })
}
