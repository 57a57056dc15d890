//! The two ends of a measurement: small processes of their own, in a pod's namespace and cgroup, on one CPU.
//!
//! They are this program again under another verb, so that each is what a pod's process is: its sockets belong to the
//! cgroup and namespace it was started in. Must not know what lies between them.

pub mod client;
pub mod crowd;
pub mod prober;
pub mod server;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::libc;
use penstock_tests::netns::Netns;

use crate::process;

pub use client::Kind;

/// Above every ordinary process of the machine, so that a slice is not cut in two by them.
const PRIORITY: i32 = 10;

/// Ports on which a server listens: two of each kind, so that a service has two backends in one pod.
pub const SERVER_PORTS: [u16; 2] = [7000, 7100];

/// A process at one end.
pub struct Worker {
    child: Child,
    says: BufReader<ChildStdout>,
    hears: ChildStdin,
}

/// What one slice measured.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// Median nanoseconds of an operation; of a transfer nanoseconds a megabyte.
    pub p50_ns: f64,
    /// CPU of both ends in nanoseconds an operation, or a megabyte.
    pub cpu_ns: f64,
}

impl Worker {
    /// Starts a server in a pod.
    pub fn server(pod: &Netns, cgroup: Option<&Path>, cpu: usize, address: Ipv4Addr) -> Result<Worker> {
        let (cpu, address) = (cpu.to_string(), address.to_string());
        Self::start(&["server", "--cpu", &cpu, "--address", &address], pod, cgroup)
    }

    /// Starts a client in a pod, whose sockets have this address.
    pub fn client(pod: &Netns, cgroup: Option<&Path>, cpu: usize) -> Result<Worker> {
        Self::start(&["client", "--cpu", &cpu.to_string(), "--address", "0.0.0.0"], pod, cgroup)
    }

    /// Starts a client that watches where a service leads.
    pub fn prober(netns: &Netns, cgroup: &Path) -> Result<Worker> {
        Self::start(&["prober"], netns, Some(cgroup))
    }

    /// Starts a client that holds many connections.
    pub fn crowd(netns: &Netns, cgroup: &Path) -> Result<Worker> {
        Self::start(&["crowd"], netns, Some(cgroup))
    }

    /// Starts a server that accepts at these addresses and holds what it accepts.
    pub fn holder(netns: &Netns, addresses: &[SocketAddrV4]) -> Result<Worker> {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let words: Vec<&str> = ["holder"].into_iter().chain(addresses.iter().map(String::as_str)).collect();
        Self::start(&words, netns, None)
    }

    fn start(arguments: &[&str], netns: &Netns, cgroup: Option<&Path>) -> Result<Worker> {
        let role = arguments.first().copied().unwrap_or_default();
        let mut command = Command::new("/proc/self/exe");
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        process::place(&mut command, netns, cgroup)?;
        let mut child = command.spawn().with_context(|| format!("starting a {role}"))?;
        let (hears, says) = (child.stdin.take(), child.stdout.take());
        let mut worker = Worker {
            hears: hears.context("a pipe to the worker")?,
            says: BufReader::new(says.context("a pipe from the worker")?),
            child,
        };
        let ready = worker.answer()?;
        if ready != "ready" {
            bail!("the {role} does not start: {ready}");
        }
        Ok(worker)
    }

    /// Its process, by which the other end reads its CPU time.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes a path of this kind to a target ready; its slot is used in `run`.
    pub fn open(&mut self, kind: Kind, target: SocketAddrV4) -> Result<usize> {
        let said = self.ask(&format!("open {} {target}", kind.name()))?;
        said.parse().with_context(|| format!("{} to {target}: {said}", kind.name()))
    }

    /// Runs so many operations (or milliseconds of a transfer) against a server with this process.
    pub fn run(&mut self, slot: usize, amount: u32, server: u32) -> Result<Slice> {
        let said = self.ask(&format!("run {slot} {amount} {server}"))?;
        let numbers: Vec<f64> = said.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        match numbers[..] {
            [p50_ns, cpu_ns] => Ok(Slice { p50_ns, cpu_ns }),
            _ => bail!("{said}"),
        }
    }

    /// Has a prober watch for the first connection from a service to a /24; returns when it does.
    pub fn watch(&mut self, service: SocketAddrV4, prefix: Ipv4Addr) -> Result<()> {
        match self.ask(&format!("watch {service} {prefix}"))?.as_str() {
            "watching" => Ok(()),
            said => bail!("{said}"),
        }
    }

    /// Has a crowd make so many connections to a service; returns when all are there.
    pub fn hold(&mut self, count: usize, service: SocketAddrV4) -> Result<()> {
        match self.ask(&format!("hold {count} {service}"))?.as_str() {
            "holding" => Ok(()),
            said => bail!("{said}"),
        }
    }

    /// When what was watched for or held was seen, or had ended, in nanoseconds of the monotonic clock.
    pub fn seen_at_ns(&mut self) -> Result<u64> {
        let said = self.answer()?;
        said.parse().with_context(|| said)
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.hears, "{question}").context("asking a worker")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.says.read_line(&mut line).context("reading a worker's answer")? == 0 {
            bail!("a worker ended before it answered");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Binds this process to a CPU and puts it above ordinary ones. Returns whether the latter was allowed.
pub fn pin(cpu: usize) -> Result<bool> {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu).with_context(|| format!("CPU {cpu}"))?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
        .with_context(|| format!("binding to CPU {cpu}"))?;
    Ok(set_priority(libc::SCHED_FIFO, PRIORITY))
}

fn set_priority(policy: i32, priority: i32) -> bool {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the structure lives through the call.
    unsafe { libc::sched_setscheduler(0, policy, &parameters) == 0 }
}
