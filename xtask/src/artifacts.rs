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

pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
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
