//! Running other programs: one way to do it, with errors that show the command and the last of what it said.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `program` with `arguments` and returns its standard output, trimmed. Fails with what it printed on standard error.
pub fn capture<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", shown(program, arguments), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a command line given as words separated by spaces; for fixed commands such as `ip link set lo up`.
pub fn words(line: &str) -> Result<String> {
    let mut parts = line.split_whitespace();
    let program = parts.next().context("empty command line")?;
    capture(program, &parts.collect::<Vec<_>>())
}

/// Runs a prepared command with its output shown to the user.
pub fn show(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    if !status.success() {
        let arguments: Vec<_> = command.get_args().collect();
        bail!("{} failed ({status})", shown(&command.get_program().to_string_lossy(), &arguments));
    }
    Ok(())
}

/// Prepares a command to take the processors only when nobody else wants them, and to end with this program.
pub fn in_idle_time(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only calls into the kernel, on nothing that is shared with other threads.
    unsafe {
        command.pre_exec(|| {
            // Niceness counts among the processes of one session; sessions have theirs, where the kernel groups by them.
            nix::unistd::setsid()?;
            let _ungrouped = std::fs::write("/proc/self/autogroup", "19");
            let _as_before = nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, 19);
            // In a session of its own no terminal ends it.
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
            Ok(())
        })
    }
}

/// Whether a program of this name is on the PATH.
pub fn is_on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| is_executable(&folder.join(program))))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn shown<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> String {
    let mut line = program.to_owned();
    for argument in arguments {
        line.push(' ');
        line.push_str(&argument.as_ref().to_string_lossy());
    }
    line
}
