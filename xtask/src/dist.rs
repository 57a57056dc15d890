//! `cargo xtask dist`: what ships: optimised, stripped programs beside the eBPF object, in one folder.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{artifacts, command, ebpf};

#[derive(clap::Args)]
pub struct Options {
    /// Folder to put everything in
    #[arg(long, default_value = "target/dist-out")]
    out: PathBuf,
}

pub fn run(options: &Options) -> Result<()> {
    let object = ebpf::build()?;
    let programs = ["orchestrator", "node-agent", "cni"];
    let mut build = artifacts::cargo();
    build.args(["build", "--locked", "--profile", "dist"]);
    for program in programs {
        build.args(["--package", program]);
    }
    command::show(&mut build).context("the programs do not build")?;
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let mut parts = vec![(object, "penstock.bpf.o")];
    parts.extend(programs.map(|program| (artifacts::target().join("dist").join(program), program)));
    for (from, name) in parts {
        let to = options.out.join(name);
        let bytes = std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        println!("{:>7.1} MB  {}", bytes as f64 / 1_000_000.0, to.display());
    }
    Ok(())
}
