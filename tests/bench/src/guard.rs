//! What remains when a measurement is interrupted is removed: the measuring process is watched by one that outlives it.
//!
//! Namespaces, links, rules, mounts and pins go with the last process in them; a cgroup and a folder do not.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use penstock_tests::dataplane::cgroup_root;
use penstock_tests::eventually::until;

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs this program again as the one that measures, with these arguments, and cleans up after it.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let prefix = format!("penstock-bench-{}", std::process::id());
    let folder = std::env::temp_dir().join(&prefix);
    std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    let status = watch(arguments, &folder, &prefix);
    for left in leftovers(&prefix) {
        let removed = || std::fs::remove_dir(&left).is_ok() || !left.exists();
        if until(PATIENCE, "", removed).is_err() {
            eprintln!("left behind: the cgroup {}", left.display());
        }
    }
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        eprintln!("left behind: {}: {error}", folder.display());
    }
    let status = status?;
    if let Some(signal) = status.signal() {
        eprintln!("ended by signal {signal}; everything was removed");
    }
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(130)))
}

fn watch(arguments: &[String], folder: &Path, prefix: &str) -> Result<std::process::ExitStatus> {
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        ends.add(signal);
    }
    ends.thread_block().context("holding signals back")?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("measure")
        .args(arguments)
        .env("PENSTOCK_BENCH_FOLDER", folder)
        .env("PENSTOCK_BENCH_PREFIX", prefix);
    // SAFETY: two system calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            ends.thread_unblock()?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
    let mut child = command.spawn().context("starting the measurement")?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    std::thread::spawn(move || {
        if ends.wait().is_ok() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    child.wait().context("waiting for the measurement")
}

fn leftovers(prefix: &str) -> Vec<PathBuf> {
    let entries = cgroup_root().and_then(|root| std::fs::read_dir(root).ok());
    let ours =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    entries
        .map_or_else(Vec::new, |entries| entries.flatten().map(|entry| entry.path()).filter(ours).collect())
}
