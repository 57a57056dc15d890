//! Processes that a measurement starts: where they run, what they cost, and that they end with it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::libc;
use penstock_tests::eventually::until;
use penstock_tests::netns::Netns;

/// Threads of an agent that go on with a change when the maps have it: they wait for the kernel's answer, and act once
/// more on backends that left.
const AFTERWARDS: &str = "settle";
const AFTERWARDS_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Control plane and agents run before ordinary processes, as `cargo xtask up` has them.
const NICE: &str = "-10";

/// A process that ends when it is dropped.
pub struct Running {
    child: Child,
    /// What it says to standard error.
    log: PathBuf,
}

/// One of our own programs, which lie beside this one.
pub fn command(program: &str) -> Result<Command> {
    let beside = std::env::current_exe().context("finding this program")?.with_file_name(program);
    if !beside.is_file() {
        bail!("{} is not built: run this by `cargo xtask bench dataplane`", beside.display());
    }
    Ok(preferred(&beside))
}

/// A program that runs before ordinary processes.
pub fn preferred(program: &Path) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", NICE]).arg(program);
    command
}

/// Has a command run in a namespace and a cgroup, and end with the thread that starts it.
pub fn place(command: &mut Command, netns: &Netns, cgroup: Option<&Path>) -> Result<()> {
    let namespace: File = netns.file().try_clone().context("sharing a namespace")?;
    let procs = match cgroup {
        Some(folder) => Some(
            File::options()
                .write(true)
                .open(folder.join("cgroup.procs"))
                .with_context(|| format!("opening the cgroup {}", folder.display()))?,
        ),
        None => None,
    };
    // SAFETY: between fork and exec only system calls on descriptors that were opened before.
    unsafe {
        command.pre_exec(move || {
            // With the program that measures goes everything it started.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            if let Some(procs) = &procs
                && libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
            {
                return Err(std::io::Error::last_os_error());
            }
            nix::sched::setns(namespace.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET)?;
            Ok(())
        });
    }
    Ok(())
}

/// Returns when a process has done with a change what it does on threads of their own.
pub fn wait_until_settled(pid: u32) -> Result<()> {
    until(AFTERWARDS_MAX, "the end of the threads of a change", || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        !tasks
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
            .any(|name| name.trim_end() == AFTERWARDS)
    })
}

/// Resident bytes of a process.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let file = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("a process without VmRSS")? * 1024)
}

/// CPU nanoseconds of a process: all its threads, and what the kernel did on their behalf.
pub fn cpu_ns(pid: u32) -> u64 {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both places live through the calls.
    let read = unsafe {
        libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) == 0
            && libc::clock_gettime(clock, &mut time) == 0
    };
    if read { time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 } else { 0 }
}

// === impl Running ===

impl Running {
    /// Starts a command whose complaints go to a file. It ends with the calling thread too.
    pub fn spawn(mut command: Command, netns: &Netns, log: PathBuf) -> Result<Running> {
        let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        place(&mut command, netns, None)?;
        let spawned = command.spawn();
        let child = spawned.with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Running { child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets a moment pass for what it is doing; an error, with its last words, when it has ended or its time is up.
    pub fn wait_a_little(&self, deadline: Instant) -> Result<()> {
        // What ended and was not waited for has no descriptors any more.
        let is_alive = Path::new(&format!("/proc/{}/fd/0", self.pid())).exists();
        if Instant::now() > deadline || !is_alive {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let why = if is_alive { "is not done in time" } else { "has ended" };
            bail!("it {why}, and said last: {}", log.lines().last().unwrap_or("nothing"));
        }
        std::thread::sleep(LOOK_EVERY);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
