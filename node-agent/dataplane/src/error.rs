//! What can go wrong between the desired state and the kernel, in words a user can act on.

use std::io;
use std::path::PathBuf;

/// Why the data plane could not be loaded, changed or read.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The compiled programs are not where they should be.
    #[error("no eBPF object at {path}: build it with `cargo xtask ebpf` or name it with --ebpf-object", path = path.display())]
    NoObject {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file or directory could not be used.
    #[error("{doing} {path}", path = path.display())]
    Path {
        /// What was being done.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The pins' directory is not on a bpf file system.
    #[error("{path} is not on a bpf file system: mount one with `mount -t bpf bpf DIR` and name it with --bpffs", path = path.display())]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// The object does not load: not an object of ours, or refused by this kernel.
    #[error("loading the eBPF object {path}: {reason}", path = path.display())]
    Object {
        /// The object file.
        path: PathBuf,
        /// The loader's or the verifier's words.
        reason: String,
    },
    /// The object misses a program or a map, or one has another shape.
    #[error("the eBPF object has no usable {what} {name:?}: it was built from another version of Penstock")]
    Mismatch {
        /// "program" or "map".
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// One bpf(2) command failed.
    #[error("{doing} ({subject})")]
    Kernel {
        /// The command, in words.
        doing: &'static str,
        /// The program, map or link it was about.
        subject: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A limit of the data plane is reached; what fits is served.
    #[error("{count} {what} wanted, at most {max} fit: raise the limit or remove some")]
    Full {
        /// What is counted.
        what: &'static str,
        /// How many are wanted.
        count: usize,
        /// How many fit.
        max: usize,
    },
}
