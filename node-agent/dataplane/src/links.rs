//! Attachments that outlive the agent: each is a link with a pin.
//!
//! A link found under its pin gets the new program in place; only a link whose interface or cgroup is gone, or is
//! another than wanted, is made anew. So a restart never leaves a moment without programs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::DataplaneError;
use crate::interfaces::{Hook, Side, TUNNEL_HOOK};
use crate::sys::{self, AttachType, LinkTarget, Target};
use crate::uplink::XdpKind;

/// The programs of the node's cgroup.
pub const CGROUP_HOOKS: &[(&str, AttachType)] = &[
    // First the ways back, then the ways out: nobody meets an address that is not turned round.
    ("release", AttachType::SockRelease),
    ("recvmsg4", AttachType::Recvmsg4),
    ("recvmsg6", AttachType::Recvmsg6),
    ("getpeername4", AttachType::Getpeername4),
    ("getpeername6", AttachType::Getpeername6),
    ("sendmsg4", AttachType::Sendmsg4),
    ("sendmsg6", AttachType::Sendmsg6),
    ("connect4", AttachType::Connect4),
    ("connect6", AttachType::Connect6),
    ("bind4", AttachType::Bind4),
    ("bind6", AttachType::Bind6),
];
/// The program that meets packets on the uplink before all others.
pub const XDP_PROGRAM: &str = "uplink_xdp";

/// Of a pod's link, by what comes in by it and what leaves by it.
const POD_PREFIXES: [(Side, &str); 2] = [(Side::Ingress, "pod_"), (Side::Egress, "podout_")];

/// The pins of links, in a directory of the agent's.
#[derive(Debug, Clone)]
pub struct Links {
    directory: PathBuf,
}

/// Where a link is to be attached.
#[derive(Debug)]
pub enum Place {
    /// A directory of the cgroup v2 tree, opened, with its inode number.
    Cgroup { directory: File, inode: u64 },
    /// An interface.
    Interface(u32),
}

impl Place {
    /// Opens a cgroup's directory.
    pub fn cgroup(path: &Path) -> Result<Self, DataplaneError> {
        let open = || -> io::Result<Self> {
            let directory = File::open(path)?;
            let inode = directory.metadata()?.ino();
            Ok(Self::Cgroup { directory, inode })
        };
        open().map_err(|source| DataplaneError::Path {
            doing: "opening the cgroup",
            path: path.to_owned(),
            source,
        })
    }

    fn target(&self) -> Target<'_> {
        match self {
            Self::Cgroup { directory, .. } => Target::Cgroup(directory.as_fd()),
            Self::Interface(ifindex) => Target::Interface(*ifindex),
        }
    }

    fn is(&self, target: LinkTarget) -> bool {
        match (self, target) {
            (Self::Cgroup { inode, .. }, LinkTarget::Cgroup(id)) => *inode == id,
            (Self::Interface(wanted), LinkTarget::Interface(is)) => *wanted == is,
            _ => false,
        }
    }
}

impl Links {
    /// Links pinned below an agent's directory, in a folder that exists.
    pub fn below(directory: &Path) -> Self {
        Self { directory: directory.join("links") }
    }

    /// Has a program attached at a place under a name, whatever was there before.
    pub fn ensure(
        &self,
        name: &str,
        program: BorrowedFd<'_>,
        place: &Place,
        attach: AttachType,
    ) -> Result<(), DataplaneError> {
        let pin = self.directory.join(name);
        if let Some(link) = open_pin(&pin, name)? {
            let in_place = sys::link_target(link.as_fd()).is_ok_and(|target| place.is(target));
            if in_place && sys::update_link(link.as_fd(), program).is_ok() {
                return Ok(());
            }
        }
        let link = sys::create_link(program, place.target(), attach, 0).map_err(|source| {
            DataplaneError::Kernel { doing: "attaching a program", subject: name.to_owned(), source }
        })?;
        // The former link goes only now: for a moment both programs run, and the second finds nothing to translate.
        unpin(&pin)?;
        sys::pin(link.as_fd(), &pin).map_err(|source| DataplaneError::Kernel {
            doing: "pinning a link",
            subject: name.to_owned(),
            source,
        })
    }

    /// Whether a program is attached at a place under a name, and not only pinned.
    pub fn is_attached(&self, name: &str, place: &Place) -> Result<bool, DataplaneError> {
        let link = open_pin(&self.directory.join(name), name)?;
        Ok(link.is_some_and(|link| sys::link_target(link.as_fd()).is_ok_and(|target| place.is(target))))
    }

    /// The same of an interface's.
    pub fn is_at(&self, hook: &Hook, ifindex: u32) -> Result<bool, DataplaneError> {
        self.is_attached(&name_of(hook, ifindex), &Place::Interface(ifindex))
    }

    /// Has the XDP program on an interface by one kind and not by the other. A link in its place gets the program; one that
    /// is not is removed first, for an interface has one XDP program: until the new one is there tc has all the traffic.
    pub fn ensure_xdp(
        &self,
        ifindex: u32,
        program: BorrowedFd<'_>,
        kind: XdpKind,
    ) -> Result<(), DataplaneError> {
        let name = xdp_name(kind);
        let pin = self.directory.join(&name);
        if let Some(link) = open_pin(&pin, &name)? {
            let there = sys::link_target(link.as_fd()).is_ok_and(|it| it == LinkTarget::Interface(ifindex));
            if there && sys::update_link(link.as_fd(), program).is_ok() {
                return Ok(());
            }
        }
        self.remove_xdp()?;
        // XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE of include/uapi/linux/if_link.h.
        let flags = match kind {
            XdpKind::Native => 1 << 2,
            XdpKind::Generic => 1 << 1,
        };
        let kernel = |doing| {
            let subject = name.clone();
            move |source| DataplaneError::Kernel { doing, subject, source }
        };
        let link = sys::create_link(program, Target::Interface(ifindex), AttachType::Xdp, flags)
            .map_err(kernel("attaching a program"))?;
        sys::pin(link.as_fd(), &pin).map_err(kernel("pinning a link"))
    }

    /// Takes the XDP program off the uplink.
    pub fn remove_xdp(&self) -> Result<(), DataplaneError> {
        XdpKind::ALL
            .iter()
            .try_for_each(|kind| remove(&self.directory.join(xdp_name(*kind)), &xdp_name(*kind)))
    }

    /// By which kind of XDP a program is attached, and to which interface.
    pub fn observe_xdp(&self) -> Result<Option<(XdpKind, u32)>, DataplaneError> {
        for kind in XdpKind::ALL {
            let name = xdp_name(kind);
            if let Some(link) = open_pin(&self.directory.join(&name), &name)?
                && let Ok(LinkTarget::Interface(ifindex @ 1..)) = sys::link_target(link.as_fd())
            {
                return Ok(Some((kind, ifindex)));
            }
        }
        Ok(None)
    }

    /// Has a program at an interface.
    pub fn ensure_at(
        &self,
        hook: &Hook,
        program: BorrowedFd<'_>,
        ifindex: u32,
    ) -> Result<(), DataplaneError> {
        self.ensure(&name_of(hook, ifindex), program, &Place::Interface(ifindex), hook.side.attach())
    }

    /// Takes a program off an interface.
    pub fn remove_at(&self, hook: &Hook, ifindex: u32) -> Result<(), DataplaneError> {
        let name = name_of(hook, ifindex);
        remove(&self.directory.join(&name), &name)
    }

    /// Whether a program of the uplink is there.
    pub fn has(&self, hook: &Hook) -> bool {
        self.directory.join(hook.name).exists()
    }

    /// The overlay's device that has its link.
    pub fn tunnel(&self) -> Result<Option<u32>, DataplaneError> {
        let name = TUNNEL_HOOK.name;
        let Some(link) = open_pin(&self.directory.join(name), name)? else { return Ok(None) };
        match sys::link_target(link.as_fd()) {
            Ok(LinkTarget::Interface(ifindex @ 1..)) => Ok(Some(ifindex)),
            _ => Ok(None),
        }
    }

    /// The interfaces of pods that have their link. Forgets links whose interface is gone.
    pub fn pods(&self) -> Result<BTreeSet<u32>, DataplaneError> {
        let mut living = BTreeSet::new();
        for name in self.list()? {
            let mut numbers =
                POD_PREFIXES.iter().filter_map(|(_, prefix)| name.strip_prefix(prefix)?.parse().ok());
            let Some(ifindex) = numbers.next() else { continue };
            let pin = self.directory.join(&name);
            let Some(link) = open_pin(&pin, &name)? else { continue };
            if sys::link_target(link.as_fd()).is_ok_and(|it| it == LinkTarget::Interface(ifindex)) {
                living.insert(ifindex);
            } else {
                unpin(&pin)?;
            }
        }
        Ok(living)
    }

    /// Takes every program off its place. Returns how many there were.
    pub fn remove_all(&self) -> Result<usize, DataplaneError> {
        let names = self.list()?;
        names.iter().try_for_each(|name| unpin(&self.directory.join(name)))?;
        Ok(names.len())
    }

    /// The names of all pins.
    fn list(&self) -> Result<Vec<String>, DataplaneError> {
        match std::fs::read_dir(&self.directory) {
            Ok(listing) => {
                Ok(listing.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => {
                Err(DataplaneError::Path { doing: "listing", path: self.directory.clone(), source })
            }
        }
    }
}

fn xdp_name(kind: XdpKind) -> String {
    format!("{XDP_PROGRAM}_{}", kind.name())
}

/// There is one uplink, and there are many pods.
fn name_of(hook: &Hook, ifindex: u32) -> String {
    let prefix = POD_PREFIXES.iter().find(|(side, _)| hook.is_of_pods() && *side == hook.side);
    prefix.map_or_else(|| hook.name.to_owned(), |(_, prefix)| format!("{prefix}{ifindex}"))
}

fn open_pin(pin: &Path, name: &str) -> Result<Option<OwnedFd>, DataplaneError> {
    match sys::get(pin) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => {
            Err(DataplaneError::Kernel { doing: "opening a pinned link", subject: name.to_owned(), source })
        }
    }
}

/// Takes a program off its place, and its pin away.
fn remove(pin: &Path, name: &str) -> Result<(), DataplaneError> {
    if let Some(link) = open_pin(pin, name)? {
        // An error says that its place is gone already.
        let _ = sys::detach_link(link.as_fd());
    }
    unpin(pin)
}

fn unpin(pin: &Path) -> Result<(), DataplaneError> {
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DataplaneError::Path { doing: "removing the pin", path: pin.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
