//! Emptying the connection tracking table of this thread's namespace.

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, recv, send, socket};
use nix::sys::socket::{MsgFlags, NetlinkAddr, bind};
use std::os::fd::AsRawFd;

/// Deletes every entry, as `conntrack -F` does: IPCTNL_MSG_CT_DELETE without a tuple
/// (linux/netfilter/nfnetlink_conntrack.h).
pub fn flush() -> Result<()> {
    const NFNL_SUBSYS_CTNETLINK: u16 = 1;
    const IPCTNL_MSG_CT_DELETE: u16 = 2;
    const NLM_F_REQUEST: u16 = 1;
    const NLM_F_ACK: u16 = 4;
    const LENGTH: u32 = 20;

    let protocol = SockProtocol::NetlinkNetFilter;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .context("a netlink socket")?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("binding a netlink socket")?;
    // struct nlmsghdr, then struct nfgenmsg of no family.
    let mut request = Vec::new();
    request.extend(LENGTH.to_ne_bytes());
    request.extend((NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE).to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    request.extend([0; 12]);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty()).context("asking to flush")?;
    let mut answer = [0; 64];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty()).context("the answer")?;
    // struct nlmsgerr follows the header: the error, zero for success.
    let error = answer.get(16..20).filter(|_| length >= 20).and_then(|it| it.try_into().ok());
    match error.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(std::io::Error::from_raw_os_error(-error)).context("flushing tracked connections"),
        None => bail!("an answer of {length} bytes to flushing tracked connections"),
    }
}
