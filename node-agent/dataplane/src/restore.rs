//! Programs that somebody took off their places are put back.
//!
//! It exists because others on a node delete queueing disciplines, filters and links that are not theirs, and nothing that
//! lives in the kernel comes back by itself. Each place is looked at by itself: one that cannot be put right keeps none
//! of the others from it. Must not know what the programs do, nor when to look.

use crate::interfaces::{Hook, POD_HOOKS, TUNNEL_HOOK, UPLINK_HOOKS};
use crate::links::{CGROUP_HOOKS, Links, Place, XDP_PROGRAM};
use crate::load;
use crate::uplink::XdpKind;
use crate::{Dataplane, DataplaneError, uplink};

/// What was found and done.
#[derive(Debug, Default)]
pub struct Restored {
    /// The programs that were not in their places and are again, each with its place.
    pub back: Vec<String>,
    /// Those that are not, and why.
    pub missing: Vec<(String, DataplaneError)>,
}

// === impl Dataplane ===

impl Dataplane {
    /// Has every program in its place again. To be called in the node's network namespace.
    pub fn restore(&self) -> Restored {
        let mut restored = Restored::default();
        // No other programs come and no pod goes meanwhile.
        let programs = self.programs.read();
        let mut places = self.places.lock();
        let links = Links::below(&self.options.bpffs);
        self.restore_in_cgroup(&links, &programs, &mut restored);
        let ensure = |hook: &Hook, ifindex| -> Result<bool, DataplaneError> {
            if self.interfaces.has(hook, ifindex)? {
                return Ok(false);
            }
            self.interfaces.ensure(hook, load::loaded(&programs, hook.name)?, ifindex).map(|()| true)
        };
        if let Some(ifindex) = self.options.uplink_ifindex.filter(|ifindex| uplink::exists(*ifindex)) {
            for hook in UPLINK_HOOKS {
                restored.note(|| at(hook.name, ifindex), ensure(hook, ifindex));
            }
            if let Some(kind) = places.early {
                let outcome = restore_early(kind, ifindex, &links, &programs);
                restored.note(|| at(XDP_PROGRAM, ifindex), outcome);
            }
        }
        if let Some(ifindex) = places.tunnel.filter(|ifindex| uplink::exists(*ifindex)) {
            restored.note(|| at(TUNNEL_HOOK.name, ifindex), ensure(TUNNEL_HOOK, ifindex));
        }
        places.pods.retain(|ifindex| {
            POD_HOOKS.iter().all(|hook| match ensure(hook, *ifindex) {
                // It may go at any moment, and its programs go with it.
                Err(_) if !uplink::exists(*ifindex) => false,
                outcome => {
                    restored.note(|| at(hook.name, *ifindex), outcome);
                    true
                }
            })
        });
        restored
    }

    fn restore_in_cgroup(&self, links: &Links, programs: &aya::Ebpf, restored: &mut Restored) {
        let path = &self.options.cgroup_v2;
        let cgroup = match Place::cgroup(path) {
            Ok(cgroup) => cgroup,
            Err(error) => {
                restored.missing.push((format!("programs of sockets at {}", path.display()), error));
                return;
            }
        };
        for (name, attach) in CGROUP_HOOKS {
            let ensure = || -> Result<bool, DataplaneError> {
                if links.is_attached(name, &cgroup)? {
                    return Ok(false);
                }
                links.ensure(name, load::loaded(programs, name)?, &cgroup, *attach).map(|()| true)
            };
            restored.note(|| format!("{name} at {}", path.display()), ensure());
        }
    }
}

/// XDP, where there was one, by the same kind.
fn restore_early(
    kind: XdpKind,
    ifindex: u32,
    links: &Links,
    programs: &aya::Ebpf,
) -> Result<bool, DataplaneError> {
    if links.observe_xdp()? == Some((kind, ifindex)) {
        return Ok(false);
    }
    links.ensure_xdp(ifindex, load::loaded(programs, XDP_PROGRAM)?, kind).map(|()| true)
}

fn at(name: &str, ifindex: u32) -> String {
    format!("{name} at interface {ifindex}")
}

// === impl Restored ===

impl Restored {
    /// Notes what became of a place: whether its program had to be put back.
    fn note(&mut self, place: impl Fn() -> String, outcome: Result<bool, DataplaneError>) {
        match outcome {
            Ok(false) => {}
            Ok(true) => self.back.push(place()),
            Err(error) => self.missing.push((place(), error)),
        }
    }
}
