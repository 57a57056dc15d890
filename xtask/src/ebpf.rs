//! `cargo xtask ebpf`: builds the eBPF programs, with whichever toolchain this machine has.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{artifacts, command};

#[derive(clap::Args)]
pub struct Options {}

pub fn run(_: &Options) -> Result<()> {
    println!("{}", build()?.display());
    Ok(())
}

/// Builds the programs if needed and returns the object.
pub fn build() -> Result<PathBuf> {
    let target = artifacts::target().join("ebpf");
    let mut build = artifacts::cargo();
    build
        .current_dir(artifacts::workspace().join("ebpf"))
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &target)
        .args([
            "build",
            "--release",
            "--target",
            "bpfel-unknown-none",
            "-Z",
            "build-std=core",
        ]);
    command::show(&mut build).context("the eBPF programs do not build")?;
    let object = target.join("penstock.bpf.o");
    std::fs::copy(target.join("bpfel-unknown-none/release/penstock-ebpf"), &object)
        .context("no object was built")?;
    Ok(object)
}
