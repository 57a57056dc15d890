//! A node's containerd: its configuration and the images it is given.

use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};

use super::layout::NodeLayout;
use crate::command;

/// The capability that lets a process lower its OOM score (include/uapi/linux/capability.h).
const CAP_SYS_RESOURCE: u32 = 24;

/// Writes the node's `config.toml`. Version 2 is understood by containerd 1.6 to 2.x.
pub fn write_config(node: &NodeLayout) -> Result<()> {
    let file = node.run.join("containerd.toml");
    std::fs::write(&file, config(node, !has_capability(CAP_SYS_RESOURCE)))
        .with_context(|| format!("cannot write {}", file.display()))
}

fn config(node: &NodeLayout, restrict_oom_score: bool) -> String {
    let handler = |name: &str| {
        format!(
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}]\n\
             runtime_type = \"io.containerd.runc.v2\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}.options]\n\
             SystemdCgroup = false\n"
        )
    };
    format!(
        "version = 2\n\
         root = \"{root}\"\n\
         state = \"{state}\"\n\
         disabled_plugins = [\"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.btrfs\", \
         \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\", \
         \"io.containerd.tracing.processor.v1.otlp\", \"io.containerd.internal.v1.tracing\"]\n\
         [grpc]\n\
         address = \"{socket}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
         sandbox_image = \"{pause}\"\n\
         restrict_oom_score_adj = {restrict_oom_score}\n\
         stream_server_address = \"127.0.0.1\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".registry]\n\
         config_path = \"/etc/containerd/certs.d\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
         default_runtime_name = \"runc\"\n\
         {runc}{test_handler}",
        root = node.data.join("containerd").display(),
        state = node.run.join("containerd").display(),
        socket = node.containerd_socket().display(),
        pause = crate::image::PAUSE,
        runc = handler("runc"),
        // The handler that the conformance suite's RuntimeClass tests ask for.
        test_handler = handler("test-handler"),
    )
}

fn has_capability(bit: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set & (1 << bit) != 0)
}

/// Whether a program can be connected to at `socket`. Its file is there a moment earlier, between bind and listen.
pub fn listens(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Imports an image archive (OCI or Docker) where the runtime's Kubernetes side sees it.
pub fn import(node: &NodeLayout, archive: &Path) -> Result<()> {
    let socket = node.containerd_socket();
    command::capture(
        "ctr",
        &[
            "--address".as_ref(),
            socket.as_os_str(),
            "--namespace".as_ref(),
            "k8s.io".as_ref(),
            "images".as_ref(),
            "import".as_ref(),
            archive.as_os_str(),
        ],
    )
    .map(drop)
    .with_context(|| format!("{} did not take the image archive {}", node.name, archive.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_that_only_has_its_file_is_not_listened_on() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("containerd.sock");
        assert!(!listens(&socket), "no file yet");

        let listener = UnixListener::bind(&socket).unwrap();
        assert!(listens(&socket));

        drop(listener);
        assert!(socket.exists() && !listens(&socket), "the file alone refuses");
    }
}
