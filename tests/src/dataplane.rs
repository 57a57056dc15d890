//! A data plane of one test: its own bpf file system, cgroup and namespaces, all gone with the test.

use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::programs::{Program, TestRun, TestRunOptions};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe};
use penstock_dataplane::{Conversion, Dataplane, Desired, Inside, InsideRange, Limits, LoadOptions, Tc, Xdp};

/// The verdict of a program at an interface that leaves the packet to the kernel.
pub const NEXT: i32 = -1;
/// The verdict that drops the packet.
pub const DROP: i32 = 2;
/// The verdict that sends the packet on from the program.
pub const REDIRECT: i32 = 7;

/// Where the object is, or why the test cannot run. Ends the calling test as skipped:
/// `let Some(object) = dataplane::object() else { return };`
pub fn object() -> Option<PathBuf> {
    match find_object() {
        Ok(object) => Some(object),
        Err(why) => {
            println!("SKIPPED: {why:#}");
            None
        }
    }
}

/// Where the object is, or why nothing can be loaded.
pub fn find_object() -> Result<PathBuf> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("the data plane needs root");
    }
    if cgroup_root().is_none() {
        bail!("no cgroup v2 tree is mounted");
    }
    if let Some(object) = std::env::var_os("PENSTOCK_EBPF_OBJECT").map(PathBuf::from) {
        return if object.is_file() { Ok(object) } else { bail!("no eBPF object at {}", object.display()) };
    }
    // Beside the folder of the build that this program is of.
    let program = std::env::current_exe().context("finding this program")?;
    program
        .ancestors()
        .map(|folder| folder.join("ebpf/penstock.bpf.o"))
        .find(|object| object.is_file())
        .context("no eBPF object: build it with `cargo xtask ebpf`")
}

/// Where the cgroup v2 tree is mounted.
pub fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut fields = mounts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.find(|fields| fields.get(2) == Some(&"cgroup2")).map(|fields| PathBuf::from(fields[1]))
}

/// The surroundings of a data plane. Made inside `netns::isolated`.
pub struct Stand {
    options: LoadOptions,
    cgroup: PathBuf,
    _folder: tempfile::TempDir,
}

impl Stand {
    /// Mounts a bpf file system and makes a cgroup. `node_ip` may be two addresses with a comma between them.
    pub fn new(object: &Path, node_ip: &str, uplink_ifindex: Option<u32>) -> Result<Self> {
        let node_ips = node_ip.split(',').map(|text| text.parse::<IpAddr>()).collect::<Result<_, _>>()?;
        let folder = tempfile::tempdir()?;
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .context("mounting bpf")?;
        let name = folder.path().file_name().context("a temporary folder without name")?;
        let cgroup =
            cgroup_root().context("no cgroup v2")?.join(format!("penstock-test-{}", name.to_string_lossy()));
        fs::create_dir(&cgroup).context("making a cgroup")?;
        let options = LoadOptions {
            object: object.to_owned(),
            bpffs: folder.path().join("penstock"),
            cgroup_v2: cgroup.clone(),
            uplink_ifindex,
            services: true,
            xdp: Xdp::Off,
            tc: Tc::Auto,
            node_ips,
            inside: ["10.244.0.0/16", "fd00:244::/32"]
                .iter()
                .map(|cidr| inside(cidr, Inside::Pods))
                .chain(["10.96.0.0/16", "fd00:96::/112"].iter().map(|cidr| inside(cidr, Inside::Services)))
                .chain(["10.240.0.0/24", "fd00:240::/64"].iter().map(|cidr| inside(cidr, Inside::Neighbours)))
                .collect(),
            masquerade: true,
            limits: Limits {
                services_max: 256,
                vips_max: 1024,
                source_ranges_max: 64,
                flows_max: 4096,
                socket_flows_max: 1024,
                peers_max: 1024,
                affinity_max: 1024,
                policy_peers_max: 256,
                policy_flows_max: 1024,
            },
            conversions: penstock_dataplane::CONVERSIONS,
        };
        Ok(Self { options, cgroup, _folder: folder })
    }

    /// Meets packets from outside by this kind of XDP from the next load on.
    pub fn set_xdp(&mut self, xdp: Xdp) {
        self.options.xdp = xdp;
    }

    /// Leaves Services to others from the next load on.
    pub fn leave_services(&mut self) {
        self.options.services = false;
    }

    /// Attaches programs at interfaces by this way from the next load on.
    pub fn set_tc(&mut self, tc: Tc) {
        self.options.tc = tc;
    }

    /// What it is loaded from.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// Loads the data plane, as an agent that starts does.
    pub fn load(&self) -> Dataplane {
        Dataplane::load(self.options.clone()).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// How much fits that data plane.
    pub fn limits(&self) -> Limits {
        self.options.limits
    }

    /// Loads it with room for this much.
    pub fn load_with(&self, limits: Limits) -> Dataplane {
        let loaded = Dataplane::load(LoadOptions { limits, ..self.options.clone() });
        loaded.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Loads it over what an earlier version left.
    pub fn load_from(&self, conversions: &'static [Conversion]) -> Dataplane {
        let loaded = Dataplane::load(LoadOptions { conversions, ..self.options.clone() });
        loaded.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Has another process load it with room for this much, and kills that after some time.
    pub fn load_and_kill(&self, limits: Limits, after: Duration) {
        // SAFETY: the child only allocates, which the C library makes safe after a fork, and makes system calls; it
        // leaves by `_exit` or by a signal.
        match unsafe { fork() }.expect("a process") {
            ForkResult::Child => {
                close_all_but(None);
                let loaded =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.load_with(limits)));
                std::mem::forget(loaded);
                // SAFETY: ends this process at once.
                unsafe { nix::libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                std::thread::sleep(after);
                let _ = kill(child, Signal::SIGKILL);
                waitpid(child, None).expect("the end of the process");
            }
        }
    }

    /// The agent's directory on the bpf file system.
    pub fn bpffs(&self) -> &Path {
        &self.options.bpffs
    }

    /// Runs something in a process of the cgroup, in this thread's namespaces, and returns what it says.
    pub fn in_cgroup(&self, inside: impl FnOnce() -> String) -> String {
        let (reader, writer) = pipe().expect("a pipe");
        // SAFETY: the child only allocates, which the C library makes safe after a fork, and makes system calls; it
        // leaves by `_exit` without running anything of the parent's.
        match unsafe { fork() }.expect("a process") {
            ForkResult::Child => {
                close_all_but(Some(&writer));
                let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    fs::write(self.cgroup.join("cgroup.procs"), "0").expect("joining the cgroup");
                    inside()
                }));
                let _ = write_all(writer, said.as_deref().unwrap_or("panicked"));
                // SAFETY: ends this process at once.
                unsafe { nix::libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                drop(writer);
                let mut said = String::new();
                let read = fs::File::from(reader).read_to_string(&mut said);
                assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))), "the child died");
                read.expect("what the child says");
                said
            }
        }
    }
}

/// Closes what a forked child has of everything its parent had open. The tests of one process run side by side: a connection
/// of another would not end by its parent's closing it as long as the child has it too.
fn close_all_but(kept: Option<&OwnedFd>) {
    let first = nix::libc::STDERR_FILENO as u32 + 1;
    let close = |first: u32, last: u32| {
        // SAFETY: nothing in the child uses what it inherited, and it leaves without running destructors.
        if unsafe { nix::libc::syscall(nix::libc::SYS_close_range, first, last, 0) } != 0 {
            // SAFETY: ends this process at once, which its parent takes for a failure.
            unsafe { nix::libc::_exit(1) }
        }
    };
    match kept.map(|fd| fd.as_raw_fd() as u32) {
        Some(kept) => {
            if kept > first {
                close(first, kept - 1);
            }
            close(kept + 1, u32::MAX);
        }
        None => close(first, u32::MAX),
    }
}

fn write_all(writer: OwnedFd, text: &str) -> std::io::Result<()> {
    fs::File::from(writer).write_all(text.as_bytes())
}

impl Drop for Stand {
    fn drop(&mut self) {
        // Pins go with the mount namespace; a cgroup does not. No process is left in it: children were waited for.
        if let Err(error) = fs::remove_dir(&self.cgroup) {
            eprintln!("left behind: {}: {error}", self.cgroup.display());
        }
        let _ = nix::mount::umount2(self._folder.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

fn inside(cidr: &str, of: Inside) -> InsideRange {
    let parsed = cidr.split_once('/').and_then(|(address, prefix)| {
        Some(InsideRange { address: address.parse().ok()?, prefix: prefix.parse().ok()?, of })
    });
    parsed.unwrap_or_else(|| panic!("{cidr} is no range"))
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// A desired state in YAML.
pub fn desired(yaml: &str) -> Desired {
    serde_yaml::from_str(yaml).expect("the desired state in the test")
}

/// What a program made of a frame.
#[derive(Debug)]
pub struct Outcome {
    /// Its verdict.
    pub verdict: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// What the program at XDP does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Early {
    /// Drops it.
    Drop,
    /// Leaves it to tc.
    Pass,
    /// Sends it out of the interface it came by.
    Send,
}

/// Runs the program at XDP on a frame, as if it came in by an interface of this namespace.
pub fn run_early(dataplane: &Dataplane, ifindex: u32, frame: &[u8]) -> (Early, Vec<u8>) {
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let mut context = [0_u8; 24];
    context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
    context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
    let mut out = vec![0_u8; frame.len() + 64];
    let program = dataplane.program("uplink_xdp");
    let Some(Program::Xdp(loaded)) = program.as_deref() else { panic!("no program uplink_xdp") };
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    let result = loaded.test_run(options).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let length = result.data_size_out as usize;
    out.truncate(length);
    let verdict = match result.return_value {
        1 => Early::Drop,
        2 => Early::Pass,
        3 => Early::Send,
        other => panic!("verdict {other} at XDP"),
    };
    (verdict, out)
}

/// Runs a program at an interface on a frame, as if it came in by an interface of this namespace.
pub fn run(dataplane: &Dataplane, program: &str, ifindex: u32, frame: &[u8]) -> Outcome {
    // struct __sk_buff: the fields before ifindex, which stands at 40, must be zero.
    let mut context = [0_u8; 192];
    context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
    let mut out = vec![0_u8; frame.len() + 64];
    let found = dataplane.program(program);
    let Some(Program::SchedClassifier(loaded)) = found.as_deref() else { panic!("no program {program}") };
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    let result = loaded.test_run(options).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let length = result.data_size_out as usize;
    out.truncate(length);
    Outcome { verdict: result.return_value as i32, frame: out }
}
