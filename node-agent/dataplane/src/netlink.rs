//! Netlink sockets of one network namespace: requests sent, answers read message by message.
//!
//! By hand, because what is asked here is little, asked on threads without a runtime, and what others have set up must not
//! keep an answer from being read. Must not know what the messages are about.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_ACK: u16 = 4;
const NLM_F_ECHO: u16 = 8;
const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_EXCL: u16 = 0x200;
pub const NLM_F_CREATE: u16 = 0x400;

pub const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// struct nlmsghdr.
const HEADER: usize = 16;
/// struct nlattr.
const ATTRIBUTE: usize = 4;
/// The type of an attribute without the flags in it.
const TYPE_MASK: u16 = 0x3fff;
/// More than one message of a dump: the kernel fills at most 32 KiB.
const BUFFER: usize = 1 << 16;

/// A socket.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// A message that was received.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The number of the request that it answers.
    pub sequence: u32,
    /// What it is.
    pub kind: u16,
    /// What is behind the header.
    pub body: &'a [u8],
}

impl Netlink {
    /// For the namespace of this thread, and a family such as NETLINK_ROUTE.
    pub fn open(family: libc::c_int) -> io::Result<Self> {
        // SAFETY: the call takes numbers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, family) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave this descriptor to us alone.
        Ok(Self { socket: unsafe { OwnedFd::from_raw_fd(fd) }, buffer: vec![0; BUFFER] })
    }

    /// Sends requests, one or several.
    pub fn send(&self, messages: &[u8]) -> io::Result<()> {
        // SAFETY: the buffer lives through the call and its length is given.
        let sent =
            unsafe { libc::send(self.socket.as_raw_fd(), messages.as_ptr().cast(), messages.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads one datagram and hands each message in it on, until one is the last.
    pub fn receive(&mut self, mut each: impl FnMut(Message<'_>) -> io::Result<bool>) -> io::Result<bool> {
        // SAFETY: the buffer lives through the call and its length is given.
        let length = unsafe {
            libc::recv(self.socket.as_raw_fd(), self.buffer.as_mut_ptr().cast(), self.buffer.len(), 0)
        };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let mut rest = self.buffer.get(..length).unwrap_or_default();
        while let Some((message, after)) = split_message(rest) {
            if each(message)? {
                return Ok(true);
            }
            rest = after;
        }
        Ok(false)
    }

    /// Has something done, and waits for the kernel's word on it.
    pub fn order(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.send(&message(kind, flags | NLM_F_ACK, body, 0))?;
        let is_answer = |message: Message<'_>| match message.kind {
            NLMSG_ERROR => error_of(message.body).map(|()| true),
            _ => Ok(false),
        };
        while !self.receive(is_answer)? {}
        Ok(())
    }

    /// Asks for one thing, and reads the answer. Of some things that are not there the kernel says nothing at all, but that it
    /// has heard.
    pub fn ask<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        read: impl Fn(Message<'_>) -> T,
    ) -> io::Result<Option<T>> {
        // 6.1 tells of a queueing discipline only those who want to hear of what they ask for as listeners do.
        self.send(&message(kind, NLM_F_ACK | NLM_F_ECHO, body, 0))?;
        let mut answer = None;
        let mut is_last = |message: Message<'_>| match message.kind {
            NLMSG_ERROR => error_of(message.body).map(|()| true),
            _ => {
                answer = Some(read(message));
                Ok(false)
            }
        };
        while !self.receive(&mut is_last)? {}
        Ok(answer)
    }

    /// Asks for a list, and hands on what is in it.
    pub fn list(&mut self, kind: u16, body: &[u8], mut each: impl FnMut(Message<'_>)) -> io::Result<()> {
        self.send(&message(kind, NLM_F_DUMP, body, 0))?;
        let mut is_last = |message: Message<'_>| match message.kind {
            NLMSG_DONE => Ok(true),
            NLMSG_ERROR => error_of(message.body).map(|()| true),
            _ => {
                each(message);
                Ok(false)
            }
        };
        while !self.receive(&mut is_last)? {}
        Ok(())
    }
}

/// A request. Several of them one behind the other are told apart by their numbers.
pub fn message(kind: u16, flags: u16, body: &[u8], sequence: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend_from_slice(&(sequence as u32).to_ne_bytes());
    // The sender, whom the kernel knows.
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(body);
    message
}

/// The first message, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((Message { sequence, kind, body }, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// What an error message says: zero is an acknowledgement.
pub fn error_of(body: &[u8]) -> io::Result<()> {
    let number = body.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if number == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-number)) }
}

/// Appends an attribute.
pub fn put_attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend_from_slice(&((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// The value of the first attribute of a kind.
pub fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..ATTRIBUTE)?.try_into().ok()?);
        let value = bytes.get(ATTRIBUTE..length)?;
        if kind & TYPE_MASK == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

/// Text as the kernel writes it, which ends with a zero.
pub fn text(value: &[u8]) -> &str {
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_and_broken_ones_end_the_reading() {
        let mut bytes = message(21, 0, &[7; 56], 3);
        let one = bytes.len();
        bytes.extend(message(20, 0, &[8; 56], 4));
        let (first, rest) = split_message(&bytes).expect("a message");
        assert_eq!(
            (first.sequence, first.kind, first.body.len(), rest.len()),
            (3, 21, 56, bytes.len() - one)
        );
        assert_eq!(split_message(rest).map(|(it, _)| (it.sequence, it.kind)), Some((4, 20)));
        for broken in [&bytes[..3], &bytes[..20], &[0xff; 40], &[0; 40]] {
            assert!(split_message(broken).is_none(), "{broken:?}");
        }
    }

    #[test]
    fn attributes_are_found_by_kind_and_broken_ones_end_the_search() {
        let mut bytes = Vec::new();
        put_attribute(&mut bytes, 1, b"bpf\0");
        put_attribute(&mut bytes, 2, &[9; 5]);
        put_attribute(&mut bytes, 0x8003, &[3]);
        assert_eq!(attribute(&bytes, 1).map(text), Some("bpf"));
        assert_eq!(attribute(&bytes, 2), Some(&[9; 5][..]));
        assert_eq!(attribute(&bytes, 3), Some(&[3][..]), "flags are no part of the kind");
        assert_eq!(attribute(&bytes, 4), None);
        for broken in [&bytes[..10], &[0; 8], &[0xff; 8], &[3, 0, 9, 0]] {
            assert_eq!(attribute(broken, 9), None, "{broken:?}");
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error() {
        let mut netlink = Netlink::open(libc::NETLINK_ROUTE).expect("a socket");
        // RTM_GETLINK of an interface that nobody has.
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        let error = netlink.ask(18, &body, |_| ()).expect_err("there is none");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
