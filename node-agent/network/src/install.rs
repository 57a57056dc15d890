//! Puts the plugin and its configuration where the container runtime looks.
//!
//! The configuration comes last and only when an ADD can be served: runtimes call a node's network ready as soon as
//! a file is there. Both are written beside their place and renamed into it, because a runtime may read or execute
//! them at any moment. It must not know the network's state.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

/// File name of the plugin in the runtime's binary directory, and `type` in the configuration.
const PLUGIN: &str = "penstock";
/// The plugin's second name (`penstock_cni::verbs::loopback`).
const LOOPBACK: &str = "loopback";
/// File name of the configuration. Runtimes take the first by name.
const CONFLIST: &str = "10-penstock.conflist";
/// `name` of the network.
pub(crate) const NETWORK: &str = "penstock";

/// A file could not be put into place.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written", path.display())]
pub struct InstallError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Writes the network configuration for the agent listening at `socket`.
pub fn ensure_conflist(conf_dir: &Path, socket: &Path) -> Result<(), InstallError> {
    // Runtimes before CNI 1.1 read only `cniVersion` and would refuse 1.1.0 there; newer ones take the highest of
    // `cniVersions` they speak.
    let conflist = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": NETWORK,
        "plugins": [{
            "type": PLUGIN,
            "socket": socket,
            "capabilities": { "portMappings": true, "bandwidth": true },
        }],
    });
    ensure_file(&conf_dir.join(CONFLIST), format!("{conflist:#}\n").as_bytes(), 0o644)
}

/// Copies the plugin from `source`. The runtime also calls for a `loopback` plugin: ours takes that name where the
/// machine has none.
pub fn ensure_plugin(bin_dir: &Path, source: &Path) -> Result<(), InstallError> {
    let bytes =
        fs::read(source).map_err(|error| InstallError { path: source.to_path_buf(), source: error })?;
    ensure_file(&bin_dir.join(PLUGIN), &bytes, 0o755)?;
    let loopback = bin_dir.join(LOOPBACK);
    if loopback.exists() {
        return Ok(());
    }
    // A name of our plugin, not a copy: it is replaced with it, and easy to tell from a machine's own.
    std::os::unix::fs::symlink(PLUGIN, &loopback).map_err(|source| InstallError { path: loopback, source })
}

fn ensure_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), InstallError> {
    let same = fs::read(path).is_ok_and(|found| found == bytes);
    if same {
        return Ok(());
    }
    // A dot in front: runtimes skip it, and its extension is not one they read.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.draft"));
    let parent = path.parent().unwrap_or(Path::new("/"));
    let written = fs::create_dir_all(parent)
        .and_then(|()| fs::write(&draft, bytes))
        .and_then(|()| fs::set_permissions(&draft, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&draft, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&draft);
        InstallError { path: path.to_path_buf(), source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_socket_and_leaves_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        ensure_conflist(dir.path(), Path::new("/run/p/cni.sock")).unwrap();
        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(files, [CONFLIST]);
        let text = fs::read_to_string(dir.path().join(CONFLIST)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["plugins"][0]["socket"], "/run/p/cni.sock");
        assert_eq!(value["plugins"][0]["type"], PLUGIN);
    }

    #[test]
    fn the_plugin_is_executable_and_replaced_when_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("built");
        let bin = dir.path().join("bin");
        for version in ["one", "two"] {
            fs::write(&source, version).unwrap();
            ensure_plugin(&bin, &source).unwrap();
            let installed = bin.join(PLUGIN);
            assert_eq!(fs::read_to_string(&installed).unwrap(), version);
            assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o777, 0o755);
        }
    }

    #[test]
    fn a_loopback_plugin_of_the_machine_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("built");
        fs::write(&source, "ours").unwrap();
        let (with, without) = (dir.path().join("with"), dir.path().join("without"));
        fs::create_dir(&with).unwrap();
        fs::write(with.join(LOOPBACK), "theirs").unwrap();
        for bin in [&with, &without] {
            ensure_plugin(bin, &source).unwrap();
        }
        assert_eq!(fs::read_to_string(with.join(LOOPBACK)).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(without.join(LOOPBACK)).unwrap(), "ours");
    }

    #[test]
    fn a_plugin_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = ensure_plugin(dir.path(), &dir.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
    }
}
