//! Connected sockets of one network namespace, found and destroyed through sock_diag(7).
//!
//! A destroyed socket wakes its owner with ECONNABORTED; a TCP peer gets a reset. Needs CONFIG_INET_DIAG_DESTROY, and
//! works on the namespace of the thread that opens it. Must not know why a socket is to go.

use std::collections::BTreeMap;
use std::io;

use penstock_ebpf_common::{Address, PROTOCOL_TCP, SocketHead};

use crate::netlink::{self, NLM_F_ACK, NLMSG_ERROR, Netlink, error_of};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// struct inet_diag_req_v2: family, protocol, extensions and padding of a byte each, a word of states, the id.
const REQUEST: usize = 56;
/// struct inet_diag_msg: family, state, timer and retransmissions of a byte each, the id, five words.
const ANSWER: usize = 72;
/// Where the id is in an answer, and its length: struct inet_diag_sockid.
const ID_AT: usize = 4;
const ID: usize = 48;
/// Requests sent together. Were all refused, the answers, of a kilobyte each in the kernel's account, would fit the
/// smallest usual receive buffer of 208 KiB.
const DESTROYED_AT_ONCE: usize = 64;

/// enum of include/net/tcp_states.h: all states in which a socket has a peer. A connected UDP socket is "established".
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
const ESTABLISHED: u32 = 1 << 1;

/// The kernel's answers about sockets of one namespace.
#[derive(Debug)]
pub struct Diag {
    netlink: Netlink,
}

/// A socket as the kernel names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// AF_INET or AF_INET6.
    family: u8,
    /// IP protocol number.
    protocol: u8,
    id: [u8; ID],
}

/// What came of destroying sockets.
#[derive(Debug, Default)]
pub struct Destroyed {
    /// How many were: one that was gone before is none, and no error.
    pub count: usize,
    /// How many the kernel did not find.
    pub missing: usize,
    /// What the kernel said to the last that it refused.
    pub refusal: Option<io::Error>,
}

impl Diag {
    /// For the namespace of this thread.
    pub fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(libc::NETLINK_SOCK_DIAG)? })
    }

    /// All connected sockets of a family and protocol.
    pub fn connected(&mut self, family: u8, protocol: u8) -> io::Result<Vec<Found>> {
        let states = if protocol == PROTOCOL_TCP { CONNECTED } else { ESTABLISHED };
        let mut found = Vec::new();
        let body = request(family, protocol, states, &[0; ID]);
        self.netlink.list(SOCK_DIAG_BY_FAMILY, &body, |message| {
            if let (true, Some(id)) = (message.body.len() >= ANSWER, message.body.get(ID_AT..ID_AT + ID)) {
                let mut of = Found { family, protocol, id: [0; ID] };
                of.id.copy_from_slice(id);
                found.push(of);
            }
        })?;
        Ok(found)
    }

    /// Asks for the destruction of a socket that nobody has. An error says that the kernel destroys none.
    pub fn destroy_nobodys(&mut self, family: u8, protocol: u8) -> io::Result<()> {
        let done = self.destroy(&[Found { family, protocol, id: [0; ID] }])?;
        done.refusal.map_or(Ok(()), Err)
    }

    /// Destroys sockets, many in one call. After a refusal the others are still tried.
    pub fn destroy(&mut self, sockets: &[Found]) -> io::Result<Destroyed> {
        let mut done = Destroyed::default();
        for some in sockets.chunks(DESTROYED_AT_ONCE) {
            let mut messages = Vec::new();
            for (at, socket) in some.iter().enumerate() {
                // The kernel tells of refusals unasked and takes the requests in order: the last answer ends all.
                let flags = if at + 1 == some.len() { NLM_F_ACK } else { 0 };
                let body = request(socket.family, socket.protocol, 0, &socket.id);
                messages.extend(netlink::message(SOCK_DESTROY, flags, &body, at));
            }
            self.netlink.send(&messages)?;
            done.count += some.len();
            let mut is_last = false;
            while !is_last {
                self.netlink.receive(|message| {
                    if message.kind == NLMSG_ERROR {
                        is_last = message.sequence as usize + 1 == some.len();
                        if let Err(error) = error_of(message.body) {
                            done.count -= 1;
                            match error.raw_os_error() {
                                Some(libc::ENOENT) => done.missing += 1,
                                _ => done.refusal = Some(error),
                            }
                        }
                    }
                    Ok(is_last)
                })?;
            }
        }
        Ok(done)
    }
}

/// The own ports of this thread's namespace's connected sockets of a protocol, by the sockets' cookies.
pub fn socket_ports(protocol: u8) -> io::Result<BTreeMap<u64, u16>> {
    let mut ports = BTreeMap::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let found = Diag::open()?.connected(family as u8, protocol)?;
        ports.extend(found.iter().map(|socket| (socket.cookie(), socket.port())));
    }
    Ok(ports)
}

impl Destroyed {
    /// Adds what came of others.
    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.missing += other.missing;
        self.refusal = other.refusal.or(self.refusal.take());
    }
}

impl Found {
    /// A socket of this cookie by what is in the kernel's memory where it was; none when it is another or has no port yet.
    pub fn read(protocol: u8, cookie: u64, head: &SocketHead) -> Option<Self> {
        if head.cookie != cookie || head.local_port == 0 {
            return None;
        }
        // struct inet_diag_sockid: ports, own address, peer's address, interface, cookie.
        let (local, remote) = match i32::from(head.family) {
            libc::AF_INET => ([head.local_v4, 0, 0, 0], [head.remote_v4, 0, 0, 0]),
            libc::AF_INET6 => (head.local.words, head.remote.words),
            _ => return None,
        };
        let ports = u32::from(head.local_port.to_be()) | u32::from(head.remote_port) << 16;
        let words = [ports].into_iter().chain(local).chain(remote).chain([
            head.ifindex,
            cookie as u32,
            (cookie >> 32) as u32,
        ]);
        let mut id = [0; ID];
        for (to, word) in id.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        Some(Self { family: head.family as u8, protocol, id })
    }

    /// The kernel's number of the socket.
    pub fn cookie(&self) -> u64 {
        u64::from(self.word(40)) | u64::from(self.word(44)) << 32
    }

    /// Its own port.
    pub fn port(&self) -> u16 {
        u16::from_be_bytes([self.id[0], self.id[1]])
    }

    /// Whom it is connected to: address, and port in network order.
    pub fn peer(&self) -> (Address, u16) {
        let port = u16::from_ne_bytes([self.id[2], self.id[3]]);
        let words = [self.word(20), self.word(24), self.word(28), self.word(32)];
        let is_v4 = i32::from(self.family) == libc::AF_INET;
        (if is_v4 { Address::from_v4(words[0]) } else { Address { words } }, port)
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes([self.id[at], self.id[at + 1], self.id[at + 2], self.id[at + 3]])
    }
}

/// The body of a request.
fn request(family: u8, protocol: u8, states: u32, id: &[u8; ID]) -> [u8; REQUEST] {
    let mut body = [0; REQUEST];
    body[..2].copy_from_slice(&[family, protocol]);
    body[4..8].copy_from_slice(&states.to_ne_bytes());
    body[8..].copy_from_slice(id);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_as_the_kernel_would_by_what_its_memory_begins_with() {
        let address = |last| Address::from(std::net::IpAddr::from([10, 0, 0, last]));
        let head = SocketHead {
            local_v4: address(1).v4(),
            remote_v4: address(9).v4(),
            local_port: 40_000,
            remote_port: 53_u16.to_be(),
            family: libc::AF_INET as u16,
            ifindex: 3,
            cookie: 1 << 32 | 7,
            ..SocketHead::default()
        };
        let found = Found::read(6, head.cookie, &head).expect("a name");
        assert_eq!((found.cookie(), found.peer()), (head.cookie, (address(9), 53_u16.to_be())));
        let mut id = [0; ID];
        id[..2].copy_from_slice(&40_000_u16.to_be_bytes());
        id[2..4].copy_from_slice(&53_u16.to_be_bytes());
        id[4..8].copy_from_slice(&[10, 0, 0, 1]);
        id[20..24].copy_from_slice(&[10, 0, 0, 9]);
        id[36..40].copy_from_slice(&3_u32.to_ne_bytes());
        id[40..44].copy_from_slice(&7_u32.to_ne_bytes());
        id[44..].copy_from_slice(&1_u32.to_ne_bytes());
        assert_eq!(found.id, id);

        let six = SocketHead { family: libc::AF_INET6 as u16, remote: address(8), ..head };
        assert_eq!(Found::read(6, six.cookie, &six).map(|it| it.peer()), Some((address(8), 53_u16.to_be())));
        assert_eq!(Found::read(6, 7, &head), None, "another socket");
        let unbound = SocketHead { local_port: 0, ..head };
        assert_eq!(Found::read(6, head.cookie, &unbound), None, "it has no port yet");
    }

    #[test]
    fn connected_sockets_are_known_by_their_ports() {
        use std::net::{TcpListener, TcpStream};
        use std::os::fd::AsRawFd;
        const SO_COOKIE: libc::c_int = 57;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let mut cookie = 0_u64;
        let mut length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the buffer is eight bytes and `length` says so; both live through the call.
        let answer = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_COOKIE,
                (&raw mut cookie).cast(),
                &mut length,
            )
        };
        assert_eq!(answer, 0, "the socket's number");
        let ports = socket_ports(PROTOCOL_TCP).expect("a list");
        assert_eq!(ports.get(&cookie).copied(), stream.local_addr().map(|it| it.port()).ok());
    }

    #[test]
    fn a_socket_s_peer_is_read_by_family() {
        let mut id = [0; ID];
        id[2..4].copy_from_slice(&53_u16.to_be_bytes());
        id[20..24].copy_from_slice(&[10, 0, 0, 9]);
        let found = Found { family: libc::AF_INET as u8, protocol: 17, id };
        assert_eq!(found.peer(), (Address::from(std::net::IpAddr::from([10, 0, 0, 9])), 53_u16.to_be()));
    }
}
