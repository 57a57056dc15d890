//! `cargo xtask vm`: the programs and their packet tests on other kernels than this machine's, in virtual machines.
//!
//! A kernel of Debian's, our own test programs and what they need in an initramfs, and qemu's software emulation: it needs no
//! KVM, no root and no image. The kernels are unpacked below the target folder, never installed.

mod archive;
mod kernel;
mod machine;
mod programs;

use anyhow::{Result, bail};

use crate::{ebpf, packages};
use kernel::Kernel;

#[derive(clap::Args)]
pub struct Options {
    /// Which kernel: a version, or `all`
    #[arg(long, default_value = "all", value_name = "VERSION")]
    kernel: String,
    /// Only tests whose name has this in it
    #[arg(long, value_name = "FILTER")]
    test: Option<String>,
    /// Show everything the machine says
    #[arg(long)]
    verbose: bool,
}

/// What the tests on one kernel came to.
pub struct Outcome {
    pub kernel: &'static str,
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

pub fn run(options: &Options) -> Result<()> {
    let kernels = kernel::named(&options.kernel)?;
    packages::ensure(packages::FOR_MACHINES)?;
    kernels.iter().try_for_each(|kernel| kernel.ensure())?;
    let outcomes = run_on(&kernels, options.test.as_deref(), options.verbose)?;
    if outcomes.iter().all(|it| it.passed + it.failed == 0) {
        bail!("no test ran: --test {} names none", options.test.as_deref().unwrap_or_default());
    }
    match outcomes.iter().filter(|it| it.failed > 0).map(|it| it.kernel).collect::<Vec<_>>() {
        failed if failed.is_empty() => Ok(()),
        failed => bail!("tests failed on Linux {}", failed.join(" and ")),
    }
}

/// The same as a stage of `cargo xtask test`, which installs and downloads nothing for it: all kernels, or why not.
pub fn run_if_there() -> Result<std::result::Result<Vec<Outcome>, String>> {
    if std::env::var_os(ASKED_BY).is_none() {
        return Ok(Err(format!(
            "tests on other kernels run when {ASKED_BY} is set, and by `cargo xtask vm`"
        )));
    }
    if let Some(missing) = packages::missing(packages::FOR_MACHINES) {
        return Ok(Err(format!("tests on other kernels need {missing}: run `cargo xtask vm` once")));
    }
    let kernels: Vec<_> = kernel::ALL.iter().collect();
    if let Some(missing) = kernels.iter().find(|it| !it.is_there()) {
        return Ok(Err(format!("Linux {} is not unpacked yet: run `cargo xtask vm` once", missing.version)));
    }
    run_on(&kernels, None, false).map(Ok)
}

/// By this variable `cargo xtask test` is asked to run them.
const ASKED_BY: &str = "PENSTOCK_VM_TESTS";

fn run_on(kernels: &[&'static Kernel], filter: Option<&str>, verbose: bool) -> Result<Vec<Outcome>> {
    let object = ebpf::build()?;
    let programs = programs::build()?;
    let mut outcomes = Vec::new();
    for kernel in kernels {
        println!("== Linux {}", kernel.version);
        let initramfs = programs::initramfs(kernel, &programs, &object, filter)?;
        let outcome = machine::boot(kernel, &initramfs, programs.len(), verbose)?;
        let Outcome { passed, failed, skipped, .. } = outcome;
        println!("   Linux {}: {passed} passed, {failed} failed, {skipped} skipped", kernel.version);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}
