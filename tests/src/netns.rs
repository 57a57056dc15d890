//! Network namespaces for tests, gone with the test whatever becomes of it.
//!
//! Nothing has a name outside: a namespace lives in a thread and in open files, so a panic or a kill leaves nothing
//! behind. Threads and processes started inside inherit the namespaces of the thread that starts them.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Runs a test in a network and a mount namespace of its own, and passes on its panic.
pub fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("namespaces of our own (root is needed)");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("mounts of our own");
        // sysfs shows the interfaces and cgroups of the namespace it was mounted in; nothing here reads it.
        ip("link set lo up").expect("a loopback");
        test()
    };
    thread::scope(|scope| match scope.spawn(run).join() {
        Ok(value) => value,
        Err(panic) => resume_unwind(panic),
    })
}

/// Another network namespace, seen from the one that made it.
pub struct Netns {
    file: File,
}

impl Netns {
    /// Makes an empty one with a loopback.
    pub fn new() -> Result<Self> {
        let make = || -> Result<Self> {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
            ip("link set lo up")?;
            Self::current()
        };
        thread::scope(|scope| match scope.spawn(make).join() {
            Ok(made) => made,
            Err(panic) => resume_unwind(panic),
        })
    }

    /// The one this thread is in.
    pub fn current() -> Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/ns/net").context("opening the namespace")? })
    }

    /// What it is entered by, for processes that are started inside.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Runs something inside and waits for it.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let run = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
            inside()
        };
        thread::scope(|scope| match scope.spawn(run).join() {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        })
    }

    /// Starts something inside that goes on by itself.
    pub fn spawn(&self, inside: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
        let file = self.file.try_clone().context("sharing the namespace")?;
        Ok(thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
            inside();
        }))
    }

    /// Joins this namespace to the current one by a veth: `here` on this side, `there` inside; both up.
    pub fn plug(&self, here: &str, there: &str) -> Result<()> {
        // A namespace is named by the file that the child process inherits.
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd());
        ip(&format!("link add {here} type veth peer name {there} netns {path}"))?;
        ip(&format!("link set {here} up"))?;
        self.run(|| ip(&format!("link set {there} up")).map(drop))
    }

    /// The same with an address on each side, as CIDRs.
    pub fn join(&self, here: &str, here_address: &str, there: &str, there_address: &str) -> Result<()> {
        self.plug(here, there)?;
        ip(&format!("address add {here_address} dev {here}"))?;
        self.run(|| ip(&format!("address add {there_address} dev {there}")).map(drop))
    }
}

/// Taken by whoever starts a process here.
static STARTING: RwLock<()> = RwLock::new(());

/// Keeps [`ip`] from starting processes in any thread, this one included, for as long as what it returns is there. A process
/// that was forked and runs nothing yet has every socket of this one: what is closed meanwhile is not closed.
pub fn without_forks() -> RwLockWriteGuard<'static, ()> {
    STARTING.write().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `ip` with words separated by spaces, in the namespace of this thread.
pub fn ip(words: &str) -> Result<String> {
    run("ip", &words.split_whitespace().collect::<Vec<_>>())
}

/// Runs `tc` likewise. What belongs together stands in quotes.
pub fn tc(words: &str) -> Result<String> {
    let split = |(at, part): (usize, &str)| match at % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
        _ => vec![part.to_owned()],
    };
    let words: Vec<_> = words.split('"').enumerate().flat_map(split).collect();
    run("tc", &words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Runs a program of this machine likewise, and returns what it says.
pub fn run(program: &str, words: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = {
        let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
        // It returns when the other program runs.
        command.spawn()
    };
    let output =
        started.and_then(Child::wait_with_output).with_context(|| format!("running {program} (iproute2)"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The number of an interface of this thread's namespace.
pub fn ifindex(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("no interface {name}"))
}

/// Sets a switch below /proc/sys in this thread's namespace.
pub fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::write(&path, value).with_context(|| format!("writing {path}"))
}

/// What a card does for the kernel, or the kernel pretends it does.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Offload {
    /// Finishes checksums of what is sent: ETHTOOL_STXCSUM.
    Sums = 0x17,
    /// Puts received packets together: ETHTOOL_SGRO. A veth that does polls, and then receives what XDP sends to it.
    Together = 0x2c,
}

/// Switches an offload of an interface of this thread's namespace.
pub fn offload(name: &str, offload: Offload, on: bool) -> Result<()> {
    const SIOCETHTOOL: u64 = 0x8946;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("a socket")?;
    // struct ethtool_value.
    let mut value = [offload as u32, u32::from(on)];
    // SAFETY: plain bytes, for which zero is a value.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(nix::libc::IF_NAMESIZE - 1)) {
        *to = from as nix::libc::c_char;
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the request and the value it points to live through the call, and have the kernel's layout.
    let answer = unsafe { nix::libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
    if answer < 0 {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("{offload:?} of {name}"));
    }
    Ok(())
}
