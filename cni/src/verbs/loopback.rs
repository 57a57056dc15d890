//! The network of type `loopback`: brings `lo` up in the sandbox.
//!
//! containerd and CRI-O attach it before every other network and expect a plugin of that name beside ours, which a
//! machine without the reference plugins does not have. It is the one thing the plugin does itself: it needs no
//! address and no agent, and a pod must have it even when the agent is not ours.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use serde_json::{Value, json};

use crate::spec::{Code, Environment, Failure, NetworkConfig, Verb};

/// `type` of the network in the configuration, and the plugin's file name for it.
pub const LOOPBACK: &str = "loopback";

pub(super) fn run(
    verb: Verb,
    environment: &Environment,
    config: &NetworkConfig,
) -> Result<Option<Value>, Failure> {
    match verb {
        Verb::Add => {
            let netns = environment.netns()?;
            bring_up(&netns)?;
            Ok(Some(json!({
                "cniVersion": config.version.as_str(),
                "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns }],
                "ips": [{ "version": "4", "interface": 0, "address": "127.0.0.1/8" }],
                "dns": {},
            })))
        }
        // `lo` goes with its namespace, and nothing else was given.
        Verb::Del | Verb::Check | Verb::Gc | Verb::Status | Verb::Version => Ok(None),
    }
}

fn bring_up(netns: &str) -> Result<(), Failure> {
    let failed = |what: &str| {
        let cause = std::io::Error::last_os_error().to_string();
        Failure::new(Code::InputOutput, format!("{what} in {netns}")).details(cause)
    };
    let namespace = File::open(netns).map_err(|error| {
        Failure::new(Code::InputOutput, format!("the namespace {netns} cannot be opened"))
            .details(error.to_string())
    })?;
    // SAFETY: the descriptor is open; the process has one thread and ends after this verb, so nothing else is moved.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(failed("this process cannot enter the network namespace"));
    }
    // SAFETY: plain numbers; a negative result is checked before it is owned.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(failed("no socket can be opened"));
    }
    // SAFETY: the descriptor was just opened and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all bytes zero are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a complete ifreq that lives through the call (netdevice(7)).
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } != 0 {
        return Err(failed("lo cannot be brought up"));
    }
    Ok(())
}
