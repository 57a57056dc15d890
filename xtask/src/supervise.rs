//! `xtask supervise`: keeps a cluster's processes running until told to stop.
//!
//! Stands in for the init system of a real machine: starts what [`plan_processes`] lists, restarts what dies (at once
//! the first time, then with growing pauses), stops everything in order on SIGTERM.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;

use crate::cluster::layout::Layout;
use crate::cluster::processes::{Process, plan_processes};
use crate::preflight;

const LOOK_EVERY: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A process that ran this long has earned a restart without a pause.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// How long one process may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Options {
    /// Name of the cluster
    #[arg(long)]
    name: String,
}

struct Running {
    process: Process,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
}

static STOPPING: AtomicBool = AtomicBool::new(false);

extern "C" fn note_stop(_: i32) {
    STOPPING.store(true, Ordering::Relaxed);
}

pub fn run(options: &Options) -> Result<()> {
    let Some(layout) = Layout::load(&options.name)? else { bail!("no cluster named {}", options.name) };
    let action = SigAction::new(SigHandler::Handler(note_stop), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.context("cannot handle signals")?;
    }
    let tree = preflight::cgroup_v2_mount()?;
    let mut running: Vec<Running> =
        plan_processes(&layout).into_iter().map(|process| start_first(&tree, process)).collect();
    while !STOPPING.load(Ordering::Relaxed) {
        for it in &mut running {
            step(&tree, it);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    stop_all(&mut running);
    Ok(())
}

fn start_first(tree: &Path, process: Process) -> Running {
    let mut it = Running { process, child: None, started: Instant::now(), pause: Duration::ZERO };
    start(tree, &mut it);
    it
}

/// Looks after one process: notices its end and starts it again when its pause is over.
fn step(tree: &Path, it: &mut Running) {
    let Some(child) = &mut it.child else {
        if it.started.elapsed() >= it.pause {
            start(tree, it);
        }
        return;
    };
    let Ok(Some(status)) = child.try_wait() else {
        return;
    };
    eprintln!("{} ended ({status})", it.process.name);
    it.pause = match it.started.elapsed() > STEADY_AFTER {
        true => Duration::ZERO,
        false => (it.pause * 2).clamp(Duration::from_millis(200), PAUSE_MAX),
    };
    it.child = None;
    it.started = Instant::now();
}

fn start(tree: &Path, it: &mut Running) {
    it.started = Instant::now();
    match spawn(tree, &it.process) {
        Ok(child) => it.child = Some(child),
        Err(error) => {
            eprintln!("cannot start {}: {error:#}", it.process.name);
            it.pause = PAUSE_MAX;
        }
    }
}

fn spawn(tree: &Path, process: &Process) -> Result<Child> {
    let folder = tree.join(process.cgroup.trim_start_matches('/'));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let log = append_to(&process.log)?;
    let membership = OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?;
    let mut command = Command::new(&process.argv[0]);
    command
        .args(&process.argv[1..])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    // SAFETY: between fork and exec only write(2) is called, on a file opened before; "0" means the writer itself.
    unsafe {
        command
            .pre_exec(move || nix::unistd::write(&membership, b"0").map(drop).map_err(std::io::Error::from));
    }
    command.spawn().with_context(|| format!("cannot run {}", process.argv[0]))
}

fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Stops one rank after another: agents, containerd, the orchestrator, its database.
fn stop_all(running: &mut [Running]) {
    let last = running.iter().map(|it| it.process.stop_order).max().unwrap_or(0);
    for rank in 0..=last {
        let mut ranked: Vec<&mut Running> =
            running.iter_mut().filter(|it| it.process.stop_order == rank).collect();
        for it in &mut ranked {
            signal(it, Signal::SIGTERM);
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline && ranked.iter_mut().any(|it| is_alive(it)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        for it in &mut ranked {
            if is_alive(it) {
                eprintln!("{} did not stop in {} s; killing it", it.process.name, STOP_TIMEOUT.as_secs());
                signal(it, Signal::SIGKILL);
            }
        }
    }
}

fn is_alive(it: &mut Running) -> bool {
    it.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
}

fn signal(it: &Running, signal: Signal) {
    if let Some(pid) = it.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
