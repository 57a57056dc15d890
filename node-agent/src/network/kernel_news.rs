//! The kernel's word that something of the node's network changed, by rtnetlink(7).
//!
//! It exists for who looks anew when something may have changed. It must not know what is looked at: what the messages say
//! is not read.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::libc::c_int;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How long to wait for more after a change: things are set up several at a time.
const GATHER: Duration = Duration::from_millis(20);
/// How long to wait where the socket is broken.
const BROKEN_FOR: Duration = Duration::from_secs(10);
/// Longer messages are cut off, which does no harm.
const MESSAGE_MAX: usize = 4096;

/// A socket that can be read when something of some groups changed.
#[derive(Debug)]
pub struct KernelNews(AsyncFd<OwnedFd>);

impl KernelNews {
    /// Of these groups (RTMGRP_…), in this thread's network namespace.
    pub fn of(groups: c_int) -> std::io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups as u32))?;
        // SAFETY: the registration owns the descriptor, which nothing else closes.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        registered.map(Self).map_err(Into::into)
    }

    /// Returns a moment after a change. An error says that changes were missed, which is one.
    pub async fn next(&self) {
        let mut message = [0; MESSAGE_MAX];
        match self.0.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => return tokio::time::sleep(BROKEN_FOR).await,
        }
        tokio::time::sleep(GATHER).await;
        while recv(self.0.as_raw_fd(), &mut message, MsgFlags::empty()).is_ok() {}
    }
}
