//! What `up` and the tests run: our programs and the eBPF object, built by cargo and put beside each other.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// The programs of a cluster.
const PROGRAMS: &[&str] = &["orchestrator", "node-agent", "cni"];

/// Folder of the workspace that this program was built from.
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Cargo in the workspace, as if called from a shell. `cargo run` leaves variables that name this package; build
/// scripts that ask for them would see others than in a shell, and half of the dependencies would be built again.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(names_a_package) {
            command.env_remove(name);
        }
    }
    command
}

fn names_a_package(variable: &str) -> bool {
    const OF_THE_RUN: &[&str] = &["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];
    variable.starts_with("CARGO_PKG_")
        || variable.starts_with("CARGO_MANIFEST_")
        || OF_THE_RUN.contains(&variable)
}

/// Builds the programs and returns the folder they are in.
pub fn build_programs() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--locked"]);
    for program in PROGRAMS {
        build.args(["--package", program]);
    }
    command::show(&mut build).context("the programs do not build")?;
    Ok(target().join("debug"))
}

/// Builds the demo so that it runs in an image with nothing else in it.
pub fn build_static_demo() -> Result<PathBuf> {
    // A folder of its own: other flags in the shared one would build the same crates over and over.
    let folder = target().join("static");
    command::show(
        cargo()
            .args(["rustc", "--quiet", "--locked", "--package", "demo", "--bin", "demo", "--target-dir"])
            .arg(&folder)
            .args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]),
    )
    .context("the demo does not build")?;
    Ok(folder.join("debug").join("demo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_this_package_is_kept_from_nested_builds_and_a_users_settings_are_not() {
        for variable in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "OUT_DIR"] {
            assert!(names_a_package(variable), "{variable}");
        }
        for variable in ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "CARGO_NET_OFFLINE"] {
            assert!(!names_a_package(variable), "{variable}");
        }
    }
}
