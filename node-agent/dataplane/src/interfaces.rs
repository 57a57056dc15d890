//! Programs at interfaces behind XDP ("tc"), by one of two ways: links, which the kernel has since 6.6 (tcx), or
//! classifiers of the older kind.
//!
//! Whichever is used, a program takes its predecessor's place at once, and what the other way had there goes after that: for a
//! moment both run, and the second finds nothing to translate. Must not know what the programs do.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::Path;

use serde::Serialize;

use crate::DataplaneError;
use crate::classifiers::Classifiers;
use crate::links::Links;
use crate::sys::{self, AttachType};
use crate::uplink;

/// A place of an interface, and the program that is for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program's name.
    pub name: &'static str,
    /// Where.
    pub side: Side,
}

/// Which packets a program meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Those that come in by the interface.
    Ingress,
    /// Those that leave by it.
    Egress,
}

/// The programs of the uplink, the way back first.
pub const UPLINK_HOOKS: [&Hook; 2] = [
    &Hook { name: "uplink_egress", side: Side::Egress },
    &Hook { name: "uplink_ingress", side: Side::Ingress },
];
/// The programs of a pod's link.
pub const POD_HOOKS: [&Hook; 2] =
    [&Hook { name: "pod_ingress", side: Side::Ingress }, &Hook { name: "pod_egress", side: Side::Egress }];
/// The program of the device by which packets of other nodes come through an overlay.
pub const TUNNEL_HOOK: &Hook = &Hook { name: "tunnel_ingress", side: Side::Ingress };
/// All of them.
pub const HOOKS: [&Hook; 5] = [UPLINK_HOOKS[0], UPLINK_HOOKS[1], POD_HOOKS[0], POD_HOOKS[1], TUNNEL_HOOK];

/// By which way programs are to be attached behind XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tc {
    /// By links where the kernel has them.
    #[default]
    Auto,
    /// By links.
    Links,
    /// By classifiers.
    Classifiers,
}

/// By which way they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TcKind {
    /// Links (tcx).
    Links,
    /// Filters of a clsact queueing discipline.
    Classifiers,
}

/// Attaches programs by one of the ways.
#[derive(Debug)]
pub struct Interfaces {
    kind: TcKind,
    links: Links,
    classifiers: Classifiers,
}

impl Interfaces {
    /// With pins and notes below an agent's directory. The program is one that is to be attached.
    pub fn new(directory: &Path, wanted: Tc, program: BorrowedFd<'_>) -> Self {
        let kind = match wanted {
            Tc::Links => TcKind::Links,
            Tc::Classifiers => TcKind::Classifiers,
            Tc::Auto if sys::has_tcx(program) => TcKind::Links,
            Tc::Auto => TcKind::Classifiers,
        };
        Self { kind, links: Links::below(directory), classifiers: classifiers(directory) }
    }

    /// By which way.
    pub fn kind(&self) -> TcKind {
        self.kind
    }

    /// Has a program at an interface, and takes away what the other way had there.
    pub fn ensure(&self, hook: &Hook, program: BorrowedFd<'_>, ifindex: u32) -> Result<(), DataplaneError> {
        match self.kind {
            TcKind::Links => {
                self.links.ensure_at(hook, program, ifindex)?;
                self.classifiers.remove_filter(hook, ifindex).map(drop)
            }
            TcKind::Classifiers => {
                self.classifiers.ensure(hook, program, ifindex)?;
                self.links.remove_at(hook, ifindex)
            }
        }
    }

    /// Whether a program is at an interface, by the way that is used.
    pub fn has(&self, hook: &Hook, ifindex: u32) -> Result<bool, DataplaneError> {
        match self.kind {
            TcKind::Links => self.links.is_at(hook, ifindex),
            TcKind::Classifiers => self.classifiers.has(hook, ifindex),
        }
    }

    /// Takes a program off an interface.
    pub fn remove(&self, hook: &Hook, ifindex: u32) -> Result<(), DataplaneError> {
        self.links.remove_at(hook, ifindex)?;
        self.classifiers.remove(hook, ifindex).map(drop)
    }

    /// Takes the uplink's programs off all interfaces but one: the uplink may have been another before.
    pub fn leave_other_uplinks(&self, uplink: u32) -> Result<(), DataplaneError> {
        // A link that is made anew has taken the former one's pin.
        for (hook, ifindex) in self.classifiers.observe()? {
            if UPLINK_HOOKS.contains(&hook) && ifindex != uplink {
                self.classifiers.remove(hook, ifindex)?;
            }
        }
        Ok(())
    }

    /// Gives the overlay's device the new program, if it has one. Returns the device.
    pub fn refresh_tunnel(&self, program: BorrowedFd<'_>) -> Result<Option<u32>, DataplaneError> {
        let classifiers = self.classifiers.observe()?;
        let classified = classifiers.iter().find(|(hook, _)| *hook == TUNNEL_HOOK);
        let Some(ifindex) = self.links.tunnel()?.or(classified.map(|(_, ifindex)| *ifindex)) else {
            return Ok(None);
        };
        match self.ensure(TUNNEL_HOOK, program, ifindex) {
            Err(_) if !uplink::exists(ifindex) => self.links.remove_at(TUNNEL_HOOK, ifindex).map(|()| None),
            outcome => outcome.map(|()| Some(ifindex)),
        }
    }

    /// Gives every pod's interface that has a program the new ones. Returns those that live.
    pub fn refresh_pods<'a>(
        &self,
        program: impl Fn(&Hook) -> Result<BorrowedFd<'a>, DataplaneError>,
    ) -> Result<BTreeSet<u32>, DataplaneError> {
        let mut pods = self.links.pods()?;
        let classifiers = self.classifiers.observe()?.into_iter();
        pods.extend(classifiers.filter(|(hook, _)| POD_HOOKS.contains(hook)).map(|(_, ifindex)| ifindex));
        let mut living = BTreeSet::new();
        for ifindex in pods {
            let mut ensured = Ok(());
            for hook in POD_HOOKS {
                let program = program(hook)?;
                ensured = ensured.and_then(|()| self.ensure(hook, program, ifindex));
            }
            match ensured {
                Ok(()) => drop(living.insert(ifindex)),
                // It may go at any moment, and its programs go with it.
                Err(_) if !uplink::exists(ifindex) => {
                    POD_HOOKS.iter().try_for_each(|hook| self.links.remove_at(hook, ifindex))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(living)
    }
}

/// By which way the uplink has its programs, as an agent left it in this directory and this thread's network namespace.
pub fn observe_tc(directory: &Path) -> Result<Option<TcKind>, DataplaneError> {
    if UPLINK_HOOKS.iter().any(|hook| Links::below(directory).has(hook)) {
        return Ok(Some(TcKind::Links));
    }
    let there = classifiers(directory).observe()?;
    Ok(there.iter().any(|(hook, _)| UPLINK_HOOKS.contains(hook)).then_some(TcKind::Classifiers))
}

/// Takes all programs off their places that an agent left in this directory and this thread's network namespace. Returns
/// how many there were.
pub fn remove_all(directory: &Path) -> Result<usize, DataplaneError> {
    let classifiers = classifiers(directory);
    let mut removed = Links::below(directory).remove_all()?;
    for (hook, ifindex) in classifiers.observe()? {
        removed += usize::from(classifiers.remove_filter(hook, ifindex)?);
    }
    classifiers.remove_disciplines()?;
    Ok(removed)
}

fn classifiers(directory: &Path) -> Classifiers {
    Classifiers::new(directory.join("clsact"))
}

// === impl Hook ===

impl Hook {
    /// Whether it is at pods' links, of which there are many.
    pub fn is_of_pods(&self) -> bool {
        POD_HOOKS.contains(&self)
    }
}

// === impl Side ===

impl Side {
    /// Where a link is attached.
    pub const fn attach(self) -> AttachType {
        match self {
            Self::Ingress => AttachType::TcxIngress,
            Self::Egress => AttachType::TcxEgress,
        }
    }
}

// === impl TcKind ===

impl TcKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Links, Self::Classifiers];

    /// How it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Classifiers => "classifiers",
        }
    }
}
