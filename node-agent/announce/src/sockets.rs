//! The sockets of announcing: one for beats, one for frames, one for membership in groups.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::beat::{Beat, LENGTH};
use crate::frames::{Mac, solicited_node};

/// What a packet starts with that a router has never seen: nothing else can have this many hops left (RFC 5082).
const HOPS: i32 = 255;

/// Why nothing can be announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The port for beats is not to be had.
    #[error(
        "opening UDP port {address} for beats between nodes: stop what uses it, or choose another with --announce-port"
    )]
    Port {
        /// Address and port.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The interface does not exist, or frames cannot be sent by it.
    #[error("{doing} interface {ifindex}")]
    Interface {
        /// What was being done.
        doing: &'static str,
        /// Its number.
        ifindex: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Sends and receives beats.
pub struct BeatSocket {
    socket: UdpSocket,
    port: u16,
}

/// Sends whole frames by one interface, and knows its link address.
pub struct FrameSocket {
    socket: OwnedFd,
    ifindex: u32,
    mac: Mac,
}

/// Has the interface, and the switches behind it, pass on questions for IPv6 addresses: they go to groups, of which the
/// kernel joins only those of its own addresses.
pub struct Groups {
    socket: Option<StdUdpSocket>,
    ifindex: u32,
    members: BTreeMap<Ipv6Addr, usize>,
}

// === impl BeatSocket ===

impl BeatSocket {
    /// Opens it. To be called within a runtime.
    pub fn open(node_ip: IpAddr, port: u16) -> Result<Self, AnnounceError> {
        let address = SocketAddr::new(node_ip, port);
        let open = || -> io::Result<UdpSocket> {
            let socket = StdUdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            if address.is_ipv4() {
                setsockopt(&socket, sockopt::Ipv4Ttl, &HOPS)?;
                setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            } else {
                setsockopt(&socket, sockopt::Ipv6Ttl, &HOPS)?;
                setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            }
            UdpSocket::from_std(socket)
        };
        let socket = open().map_err(|source| AnnounceError::Port { address, source })?;
        Ok(Self { socket, port })
    }

    /// The next beat that comes from the link, and from where. What is no beat, or has crossed a router, is passed over.
    pub async fn receive(&self) -> io::Result<(IpAddr, Beat)> {
        loop {
            let received = self.socket.async_io(Interest::READABLE, || self.receive_one()).await?;
            if let Some(beat) = received {
                return Ok(beat);
            }
        }
    }

    /// A beat that is there already.
    pub fn receive_now(&self) -> Option<(IpAddr, Beat)> {
        self.socket.try_io(Interest::READABLE, || self.receive_one()).ok().flatten()
    }

    fn receive_one(&self) -> io::Result<Option<(IpAddr, Beat)>> {
        let mut bytes = [0_u8; 2 * LENGTH];
        let mut control = nix::cmsg_space!(i32);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let is_near = message.cmsgs()?.any(|message| {
            matches!(message, ControlMessageOwned::Ipv4Ttl(HOPS) | ControlMessageOwned::Ipv6HopLimit(HOPS))
        });
        let from = message.address.and_then(|from| ip_of(&from));
        let length = message.bytes;
        let beat = Beat::from_bytes(&bytes[..length.min(2 * LENGTH)]);
        Ok(from.filter(|_| is_near).zip(beat))
    }

    /// Sends a beat. What does not arrive is missed by nobody: the next one comes soon.
    pub fn send(&self, to: IpAddr, beat: Beat) {
        if let Err(error) = self.socket.try_send_to(&beat.to_bytes(), SocketAddr::new(to, self.port)) {
            tracing::debug!(%to, %error, "a beat was not sent");
        }
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(v4.ip().into()),
        (_, Some(v6)) => Some(v6.ip().into()),
        _ => None,
    }
}

// === impl FrameSocket ===

impl FrameSocket {
    /// Opens it; it receives nothing.
    pub fn open(ifindex: u32) -> Result<Self, AnnounceError> {
        let wrap = |doing| move |source| AnnounceError::Interface { doing, ifindex, source };
        // SAFETY: the call takes numbers; protocol zero receives nothing.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(wrap("opening a packet socket for")(io::Error::last_os_error()));
        }
        // SAFETY: the kernel just gave this descriptor to us alone.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let mac = link_address(&socket, ifindex).map_err(wrap("reading the link address of"))?;
        Ok(Self { socket, ifindex, mac })
    }

    /// The interface's link address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the structure is plain integers and bytes, for which zero is a value.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = self.ifindex as i32;
        to.sll_halen = 6;
        to.sll_addr[..6].copy_from_slice(&frame[..6]);
        // SAFETY: the frame and the address live through the call, and their lengths are given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn link_address(socket: &OwnedFd, ifindex: u32) -> io::Result<Mac> {
    // SAFETY: the structure is plain integers and bytes, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer has room for IF_NAMESIZE bytes, which the call needs.
    if unsafe { libc::if_indextoname(ifindex, request.ifr_name.as_mut_ptr()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the structure is the one this request takes, and lives through the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this request fills this member.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    if address.sa_family != libc::ARPHRD_ETHER {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is no Ethernet"));
    }
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(address.sa_data) {
        *to = from as u8;
    }
    Ok(mac)
}

// === impl Groups ===

impl Groups {
    /// Of an interface, a member of none.
    pub fn new(ifindex: u32) -> Self {
        Self { socket: None, ifindex, members: BTreeMap::new() }
    }

    /// Joins the group of an address.
    pub fn join(&mut self, address: IpAddr) -> io::Result<()> {
        let IpAddr::V6(address) = address else { return Ok(()) };
        let socket = match &self.socket {
            Some(socket) => socket,
            None => self.socket.insert(StdUdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?),
        };
        let group = solicited_node(address);
        if !self.members.contains_key(&group) {
            socket.join_multicast_v6(&group, self.ifindex)?;
        }
        *self.members.entry(group).or_default() += 1;
        Ok(())
    }

    /// Leaves it again, when no other address needs it.
    pub fn leave(&mut self, address: IpAddr) {
        let IpAddr::V6(address) = address else { return };
        let group = solicited_node(address);
        let Some(count) = self.members.get_mut(&group) else { return };
        *count -= 1;
        if *count == 0 {
            self.members.remove(&group);
            let left = self.socket.as_ref().map(|socket| socket.leave_multicast_v6(&group, self.ifindex));
            if let Some(Err(error)) = left {
                tracing::debug!(%group, %error, "a group was not left");
            }
        }
    }
}
