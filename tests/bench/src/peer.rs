//! What serves the services of a world: our data plane, a rendering of kube-proxy's rules, or nothing.

pub mod conntrack;
pub mod iptables;
pub mod kube_proxy;
pub mod nftables;
pub mod ours;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use penstock_dataplane::Xdp;
use penstock_tests::netns::Netns;

use crate::fleet::fleet;
use crate::stage::{Scope, Stage};
use crate::world::{Ends, World};
use kube_proxy::Mode;
use ours::Ours;

/// Backends of every service that is not used.
const OTHER_BACKENDS: u32 = 2;

/// Who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Nobody: no rule, no program, no connection tracking.
    Bare,
    /// Our data plane.
    Ours,
    /// Rules as kube-proxy's iptables mode documents them, written by us.
    Iptables,
    /// Rules as kube-proxy's nftables mode documents them, written by us.
    Nftables,
    /// The real kube-proxy, in one of its modes.
    KubeProxy(Mode),
}

/// Somebody else's program to run as a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealPeer {
    pub name: String,
    pub program: PathBuf,
}

/// The real peers that are known by name.
const REAL_PEERS: [&str; 1] = ["kube-proxy"];

/// A world with somebody who serves, and processes at its ends.
pub struct Place {
    pub peer: Peer,
    pub services: u32,
    // In the order in which they are to go.
    pub ends: Ends,
    pub ours: Option<Ours>,
    pub world: World,
}

impl FromStr for RealPeer {
    type Err = String;

    fn from_str(text: &str) -> Result<RealPeer, String> {
        let known = REAL_PEERS.join(", ");
        let Some((name, program)) = text.split_once('=') else {
            return Err(format!("write NAME=PATH, where NAME is one of: {known}"));
        };
        if !REAL_PEERS.contains(&name) {
            return Err(format!("there is no peer {name:?}; there is: {known}"));
        }
        let program = PathBuf::from(program);
        let found = program.metadata().map_err(|error| format!("{}: {error}", program.display()))?;
        if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
            return Err(format!("{} is not a program that can be run", program.display()));
        }
        Ok(RealPeer { name: name.to_owned(), program })
    }
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Peer::Bare => "bare",
            Peer::Ours => "penstock",
            Peer::Iptables => "iptables rendering",
            Peer::Nftables => "nftables rendering",
            Peer::KubeProxy(Mode::Iptables) => "kube-proxy iptables",
            Peer::KubeProxy(Mode::Nftables) => "kube-proxy nftables",
        }
    }

    /// Those beside whom ours is measured: the real ones, where there are such.
    pub fn others(scope: &Scope) -> std::array::IntoIter<Peer, 2> {
        let others = match scope.kube_proxy {
            Some(_) => Mode::ALL.map(Peer::KubeProxy),
            None => [Peer::Iptables, Peer::Nftables],
        };
        others.into_iter()
    }
}

impl Place {
    /// Makes a world in which this peer serves so many services.
    pub fn new(stage: &Stage, peer: Peer, services: u32) -> Result<Place> {
        let label = || format!("a world for {} with {services} services", peer.name());
        let world = World::new().with_context(label)?;
        let ours = serve(stage, peer, services, &world).with_context(label)?;
        let cgroup = ours.as_ref().map(|ours| ours.cgroup().to_owned());
        let ends = world.start(cgroup.as_deref(), stage.cpu).with_context(label)?;
        Ok(Place { peer, services, ends, ours, world })
    }

    /// For people, and for rows.
    pub fn name(&self) -> String {
        match self.peer {
            Peer::Bare => self.peer.name().to_owned(),
            _ => format!("{} @{}", self.peer.name(), self.services),
        }
    }

    /// Forgets tracked connections, so that no path pays for another's.
    pub fn flush(&self) -> Result<()> {
        match self.peer {
            Peer::Iptables | Peer::Nftables | Peer::KubeProxy(_) => self.world.node.run(conntrack::flush),
            Peer::Bare | Peer::Ours => Ok(()),
        }
    }
}

fn serve(stage: &Stage, peer: Peer, services: u32, world: &World) -> Result<Option<Ours>> {
    let ports = || fleet(services, OTHER_BACKENDS);
    match peer {
        Peer::Bare => Ok(None),
        Peer::Ours => Ours::serve(stage, world, &ports(), Xdp::Auto).map(Some),
        Peer::Iptables => feed(&world.node, stage, "iptables-restore", &[], &iptables::render(&ports())),
        Peer::Nftables => feed(&world.node, stage, "nft", &["-f"], &nftables::render(&ports())),
        Peer::KubeProxy(mode) => kube_proxy::serve(stage, world, &ports(), mode).map(|()| None),
    }
}

/// Gives rules to the program that loads them, in a node's namespace.
fn feed(node: &Netns, stage: &Stage, program: &str, arguments: &[&str], rules: &str) -> Result<Option<Ours>> {
    let file = stage.folder.join("rules");
    std::fs::write(&file, rules).with_context(|| format!("writing {}", file.display()))?;
    node.run(|| load(program, arguments, &file))?;
    Ok(None)
}

fn load(program: &str, arguments: &[&str], file: &Path) -> Result<()> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .arg(file)
        .output()
        .with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::bail!("{program}: {}", said.lines().next().unwrap_or("failed without a word"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_peer_is_known_by_name_and_can_be_run() {
        let asked = |text: &str| text.parse::<RealPeer>();
        assert_eq!(asked("kube-proxy=/bin/sh").map(|peer| peer.program), Ok("/bin/sh".into()));
        for (text, told) in [
            ("kube-proxy", "NAME=PATH"),
            ("cilium=/bin/sh", "kube-proxy"),
            ("kube-proxy=/no/such", "/no/such"),
            ("kube-proxy=/etc/passwd", "can be run"),
            ("kube-proxy=/bin", "can be run"),
        ] {
            let refusal = asked(text).expect_err(text);
            assert!(refusal.contains(told), "{text}: {refusal}");
        }
    }
}
