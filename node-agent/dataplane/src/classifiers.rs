//! Programs at interfaces as classifiers of the older kind: filters (cls_bpf) of a clsact queueing discipline, made by
//! rtnetlink(7). For kernels without tcx links.
//!
//! A filter lives in the kernel until somebody takes it away, whatever becomes of the agent and its pins. Ours have a
//! priority and a handle of their own and say by their name what they are, so that a later agent finds them and puts its own
//! program in their place at once. Filters of others are left alone, and so is a discipline that others have made or use.
//! Must not know what the programs do.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::DataplaneError;
use crate::interfaces::{HOOKS, Hook, Side};
use crate::netlink::{Message, NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute, put_attribute, text};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// The program's verdict is what becomes of the packet.
const ACT_DIRECT: u32 = 1;

/// struct tcmsg: family and padding of four bytes, interface, handle, parent, and of filters priority and protocol.
const TCMSG: usize = 20;
/// The place of a discipline that sorts packets before all others.
const TC_H_CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
const ETH_P_ALL: u16 = 3;

/// Before those to which the kernel gives a number itself (49152 and below), and hardly anybody else's.
const PRIORITY: u32 = 0x70;
/// Hardly anybody else's.
const HANDLE: u32 = 0x7073;
/// What the names of ours begin with.
const NAME: &str = "penstock:";

/// The filters of this thread's network namespace.
#[derive(Debug, Clone)]
pub struct Classifiers {
    /// Where it is noted, as folders with the interfaces' numbers for names, which disciplines are of our making.
    made: PathBuf,
}

/// A discipline at the place of clsact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Discipline {
    /// Sorts packets of both directions.
    Clsact,
    /// The older kind: what is put to either side of it meets what comes in.
    Ingress,
}

impl Classifiers {
    /// With notes in this folder, which exists once there is something to be noted.
    pub fn new(made: PathBuf) -> Self {
        Self { made }
    }

    /// Has a program at an interface, whatever of ours was there before.
    pub fn ensure(&self, hook: &Hook, program: BorrowedFd<'_>, ifindex: u32) -> Result<(), DataplaneError> {
        let refused = |source| DataplaneError::Kernel {
            doing: "attaching a program as a classifier (cls_bpf)",
            subject: format!("{} at interface {ifindex}", hook.name),
            source,
        };
        let mut netlink = Netlink::open(libc::NETLINK_ROUTE).map_err(refused)?;
        self.ensure_discipline(&mut netlink, hook.side, ifindex).map_err(refused)?;
        let there = find_filter(&mut netlink, hook.side, ifindex).map_err(refused)?;
        let flags = match there.as_deref() {
            None => NLM_F_CREATE | NLM_F_EXCL,
            Some(name) if name.starts_with(NAME) => NLM_F_CREATE,
            Some(name) => {
                return Err(refused(io::Error::other(format!(
                    "there is a filter {name:?} of somebody else with the same priority and handle"
                ))));
            }
        };
        netlink.order(RTM_NEWTFILTER, flags, &filter(hook, program, ifindex)).map_err(refused)
    }

    /// Whether a program of ours is at an interface.
    pub fn has(&self, hook: &Hook, ifindex: u32) -> Result<bool, DataplaneError> {
        let there = Netlink::open(libc::NETLINK_ROUTE)
            .and_then(|mut netlink| find_filter(&mut netlink, hook.side, ifindex))
            .map_err(|source| DataplaneError::Kernel {
                doing: "looking for a classifier",
                subject: format!("{} at interface {ifindex}", hook.name),
                source,
            })?;
        Ok(there.as_deref().and_then(|name| name.strip_prefix(NAME)) == Some(hook.name))
    }

    /// Takes a program off an interface, and the discipline if nobody needs it any more. Whether there was one.
    pub fn remove(&self, hook: &Hook, ifindex: u32) -> Result<bool, DataplaneError> {
        let removed = self.remove_filter(hook, ifindex)?;
        self.remove_discipline(ifindex)?;
        Ok(removed)
    }

    /// Takes a program off an interface and leaves the discipline: to make or remove one takes an interface out of service
    /// for a moment, in which the kernel loses what is sent by it. Whether there was one.
    pub fn remove_filter(&self, hook: &Hook, ifindex: u32) -> Result<bool, DataplaneError> {
        let refused = |source| DataplaneError::Kernel {
            doing: "taking a classifier off",
            subject: format!("{} at interface {ifindex}", hook.name),
            source,
        };
        let mut netlink = Netlink::open(libc::NETLINK_ROUTE).map_err(refused)?;
        let there = find_filter(&mut netlink, hook.side, ifindex).map_err(refused)?;
        if there.as_deref().and_then(|name| name.strip_prefix(NAME)) != Some(hook.name) {
            return Ok(false);
        }
        let mut body = place_of_filter(hook.side, ifindex);
        put_attribute(&mut body, TCA_KIND, b"bpf\0");
        absent(netlink.order(RTM_DELTFILTER, 0, &body)).map_err(refused)?;
        Ok(true)
    }

    /// Removes all disciplines of our making that nobody needs any more.
    pub fn remove_disciplines(&self) -> Result<(), DataplaneError> {
        let notes = match std::fs::read_dir(&self.made) {
            Ok(notes) => notes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                return Err(DataplaneError::Path { doing: "reading", path: self.made.clone(), source });
            }
        };
        let made = notes.flatten().filter_map(|note| note.file_name().to_str()?.parse().ok());
        made.collect::<Vec<u32>>().into_iter().try_for_each(|ifindex| self.remove_discipline(ifindex))
    }

    /// All of ours, and where they are.
    pub fn observe(&self) -> Result<Vec<(&'static Hook, u32)>, DataplaneError> {
        let refused = |source| DataplaneError::Kernel {
            doing: "looking for classifiers",
            subject: "all interfaces".to_owned(),
            source,
        };
        let mut netlink = Netlink::open(libc::NETLINK_ROUTE).map_err(refused)?;
        let mut interfaces = Vec::new();
        netlink
            .list(RTM_GETQDISC, &place(0, 0, 0, 0), |message| {
                if let (Some(_), Some(ifindex)) = (discipline(message), ifindex(message)) {
                    interfaces.push(ifindex);
                }
            })
            .map_err(refused)?;
        let mut found = Vec::new();
        for ifindex in interfaces {
            for side in [Side::Egress, Side::Ingress] {
                let there = find_filter(&mut netlink, side, ifindex).map_err(refused)?;
                let name = there.as_deref().and_then(|name| name.strip_prefix(NAME));
                let hook = HOOKS.iter().find(|hook| hook.side == side && Some(hook.name) == name);
                found.extend(hook.map(|hook| (*hook, ifindex)));
            }
        }
        Ok(found)
    }

    fn ensure_discipline(&self, netlink: &mut Netlink, side: Side, ifindex: u32) -> io::Result<()> {
        match find_discipline(netlink, ifindex)? {
            Some(Discipline::Clsact) => return Ok(()),
            Some(Discipline::Ingress) if side == Side::Ingress => return Ok(()),
            Some(Discipline::Ingress) => {
                return Err(io::Error::other(
                    "the interface has an ingress queueing discipline of somebody else, beside which there can be no \
                     clsact: remove it, or make it a clsact one (tc qdisc replace dev NAME clsact)",
                ));
            }
            None => {}
        }
        // Noted first: what is made is never forgotten.
        let note = self.made.join(ifindex.to_string());
        std::fs::create_dir_all(&note)?;
        let mut body = place(ifindex, CLSACT_HANDLE, TC_H_CLSACT, 0);
        put_attribute(&mut body, TCA_KIND, b"clsact\0");
        match netlink.order(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &body) {
            Ok(()) => Ok(()),
            Err(error) => {
                std::fs::remove_dir(&note)?;
                // Somebody else was faster.
                if error.raw_os_error() == Some(libc::EEXIST) { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Removes a discipline of our making that has no filters any more.
    fn remove_discipline(&self, ifindex: u32) -> Result<(), DataplaneError> {
        let note = self.made.join(ifindex.to_string());
        if !note.exists() {
            return Ok(());
        }
        remove_unused(ifindex, &note).map_err(|source| DataplaneError::Kernel {
            doing: "removing a queueing discipline (clsact) that is not used any more",
            subject: format!("interface {ifindex}"),
            source,
        })
    }
}

/// Removes a discipline, and the note of it, unless it has filters.
fn remove_unused(ifindex: u32, note: &Path) -> io::Result<()> {
    let mut netlink = Netlink::open(libc::NETLINK_ROUTE)?;
    for parent in [INGRESS, EGRESS] {
        let mut is_used = false;
        let listed = netlink.list(RTM_GETTFILTER, &place(ifindex, 0, parent, 0), |_| is_used = true);
        absent(listed)?;
        if is_used {
            return Ok(());
        }
    }
    let mut body = place(ifindex, CLSACT_HANDLE, TC_H_CLSACT, 0);
    put_attribute(&mut body, TCA_KIND, b"clsact\0");
    absent(netlink.order(RTM_DELQDISC, 0, &body))?;
    std::fs::remove_dir(note)
}

/// The name of the filter with our priority and handle, if there is one.
fn find_filter(netlink: &mut Netlink, side: Side, ifindex: u32) -> io::Result<Option<String>> {
    let mut body = place_of_filter(side, ifindex);
    put_attribute(&mut body, TCA_KIND, b"bpf\0");
    let name = |message: Message<'_>| {
        let options = attribute(message.body.get(TCMSG..)?, TCA_OPTIONS)?;
        Some(text(attribute(options, TCA_BPF_NAME)?).to_owned())
    };
    let answer = absent(netlink.ask(RTM_GETTFILTER, &body, |it| name(it).unwrap_or_default()))?;
    Ok(answer.flatten())
}

/// The discipline at the place of clsact.
fn find_discipline(netlink: &mut Netlink, ifindex: u32) -> io::Result<Option<Discipline>> {
    let answer = netlink.ask(RTM_GETQDISC, &place(ifindex, 0, TC_H_CLSACT, 0), discipline);
    match answer {
        // It is told from an interface that is not there.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(error),
        answer => Ok(absent(answer)?.flatten().flatten()),
    }
}

fn discipline(message: Message<'_>) -> Option<Discipline> {
    match attribute(message.body.get(TCMSG..)?, TCA_KIND).map(text)? {
        "clsact" => Some(Discipline::Clsact),
        "ingress" => Some(Discipline::Ingress),
        _ => None,
    }
}

fn ifindex(message: Message<'_>) -> Option<u32> {
    message.body.get(4..8)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Nothing where the kernel says that the interface, its discipline or the filter is not there.
fn absent<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        // Of a discipline or a chain that is not there it says EINVAL.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The body of a request about a filter, without attributes.
fn place_of_filter(side: Side, ifindex: u32) -> Vec<u8> {
    let parent = match side {
        Side::Ingress => INGRESS,
        Side::Egress => EGRESS,
    };
    place(ifindex, HANDLE, parent, PRIORITY << 16 | u32::from(ETH_P_ALL.to_be()))
}

fn filter(hook: &Hook, program: BorrowedFd<'_>, ifindex: u32) -> Vec<u8> {
    let mut options = Vec::new();
    put_attribute(&mut options, TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
    put_attribute(&mut options, TCA_BPF_NAME, format!("{NAME}{}\0", hook.name).as_bytes());
    put_attribute(&mut options, TCA_BPF_FLAGS, &ACT_DIRECT.to_ne_bytes());
    let mut body = place_of_filter(hook.side, ifindex);
    put_attribute(&mut body, TCA_KIND, b"bpf\0");
    put_attribute(&mut body, TCA_OPTIONS, &options);
    body
}

/// struct tcmsg.
fn place(ifindex: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let words = [0, ifindex, handle, parent, info];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
