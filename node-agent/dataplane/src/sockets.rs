//! Connected sockets act on the end of their backend: they are destroyed, in whichever namespace they are, so that their
//! owners learn now what they would else learn by a timeout.
//!
//! Which sockets are connected to whom is what the connect hook recorded; the kernel is told only in the namespaces that
//! have some, and by a socket's cookie and both its ends: a datagram socket may have connected elsewhere since. What it
//! does not find by these, or what they could not be read of, is looked for in a list of all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use penstock_ebpf_common::{PROTOCOL_TCP, PROTOCOL_UDP, Peer, PickedPeer};

use crate::DataplaneError;
use crate::diag::{Destroyed, Diag, Found};
use crate::image::Endpoint;
use crate::kernel::KernelMaps;
use crate::leaving::Ended;
use crate::namespaces::Namespaces;
use crate::noted::Noted;
use crate::sweep::{left, picked};

/// Sockets that are to go, by namespace.
pub type Victims = BTreeMap<u64, VictimsHere>;

/// Those of one namespace, by family, protocol and cookie.
type VictimsHere = BTreeMap<(u8, u8), BTreeMap<u64, Victim>>;

/// A socket that is to go.
#[derive(Debug)]
pub struct Victim {
    /// Whom it was connected to.
    peer: Endpoint,
    /// How the kernel names it, if that could be read.
    named: Option<Found>,
}

/// The sockets connected to backends with whose clients it is over, but for those that are dead already.
pub fn observe_victims(
    maps: &KernelMaps,
    ended: &Ended,
    dead: &BTreeSet<u64>,
    noted: Noted,
) -> Result<Victims, DataplaneError> {
    let mut victims = Victims::new();
    if noted.connects == 0 || ended.is_empty() {
        return Ok(victims);
    }
    let of = picked(ended.services());
    let add = |victims: &mut Victims, cookie: &u64, peer: &Peer, named| {
        if is_over(ended, peer) && !dead.contains(cookie) {
            let of_kind = victims.entry(peer.netns).or_default().entry((peer.family, peer.protocol));
            let victim = Victim { peer: (peer.backend, peer.backend_port), named };
            of_kind.or_default().insert(*cookie, victim);
        }
    };
    maps.peer_memory()?.each_picked(&of, |cookie, peer| add(&mut victims, cookie, peer, None));
    // Names are asked for only when there is somebody: most often there is not.
    if !victims.is_empty() {
        maps.each_named_peer(&of, |cookie, PickedPeer { peer, head }| {
            add(&mut victims, cookie, peer, Found::read(peer.protocol, *cookie, head));
        })?;
    }
    Ok(victims)
}

fn is_over(ended: &Ended, peer: &Peer) -> bool {
    let backend = (peer.backend, peer.backend_port);
    match peer.protocol {
        PROTOCOL_TCP => left(&ended.gone, peer.service, backend),
        PROTOCOL_UDP => {
            left(&ended.gone, peer.service, backend) || left(&ended.silent, peer.service, backend)
        }
        // The kernel cannot destroy others; SCTP finds out by its own heartbeats.
        _ => false,
    }
}

/// Destroys sockets, and adds them to those that are dead. Returns how many were. What the kernel refuses is logged and left:
/// its owner learns by a timeout.
pub fn apply_end(
    namespaces: &mut Namespaces,
    victims: &Victims,
    dead: &mut BTreeSet<u64>,
) -> Result<usize, DataplaneError> {
    if victims.is_empty() {
        return Ok(0);
    }
    let wanted: BTreeSet<u64> = victims.keys().copied().collect();
    let outcomes = Mutex::new(Vec::new());
    namespaces.visit(wanted, |cookie| {
        if let Some(victims) = victims.get(&cookie) {
            let outcome = destroy_here(victims);
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
        }
    });
    let (mut destroyed, mut refused) = (0, None);
    for (here, tried) in outcomes.into_inner().unwrap_or_else(PoisonError::into_inner) {
        destroyed += here.count;
        refused = here.refusal.or(refused);
        dead.extend(tried);
    }
    match refused {
        Some(source) if destroyed == 0 => Err(DataplaneError::Kernel {
            doing: "destroying sockets of backends that are gone",
            subject: "sock_diag, which needs CONFIG_INET_DIAG_DESTROY".to_owned(),
            source,
        }),
        Some(error) => {
            tracing::warn!(%error, destroyed, "some sockets of backends that are gone could not be destroyed");
            Ok(destroyed)
        }
        None => Ok(destroyed),
    }
}

/// Destroys sockets of this thread's namespace. Returns what came of it, and which were tried. A kind of socket that cannot
/// be listed or destroyed keeps none of the other kinds.
fn destroy_here(victims: &VictimsHere) -> (Destroyed, Vec<u64>) {
    let (mut done, mut tried) = (Destroyed::default(), Vec::new());
    for ((family, protocol), sockets) in victims {
        // A netlink socket of its own: after an error nobody knows which answers are still to come.
        let mut destroy = || {
            let mut diag = Diag::open()?;
            let mut found: Vec<Found> = sockets.values().filter_map(Victim::found).collect();
            let named = diag.destroy(&found)?;
            let all_were_found = found.len() == sockets.len() && named.missing == 0;
            done.merge(named);
            tried.extend(found.iter().map(Found::cookie));
            // A list costs as much as hundreds of sockets, for the kernel walks the table of all namespaces.
            if !all_were_found {
                found = diag.connected(*family, *protocol)?;
                found.retain(|found| sockets.get(&found.cookie()).is_some_and(|it| it.peer == found.peer()));
                done.merge(diag.destroy(&found)?);
                tried.extend(found.iter().map(Found::cookie));
            }
            std::io::Result::Ok(())
        };
        if let Err(error) = destroy() {
            done.refusal = Some(error);
        }
    }
    (done, tried)
}

// === impl Victim ===

impl Victim {
    /// Its name, if it is still connected to whom it was.
    fn found(&self) -> Option<Found> {
        self.named.filter(|found| found.peer() == self.peer)
    }
}

#[cfg(test)]
mod tests {
    use penstock_ebpf_common::Address;

    use super::*;
    use crate::sweep::Departed;

    #[test]
    fn connections_end_with_their_endpoint_and_datagrams_already_when_it_is_silent() {
        let backend = Address::from(std::net::IpAddr::from([10, 0, 0, 9]));
        let of = |service, protocol| Peer { backend, backend_port: 53, service, protocol, ..Peer::default() };
        let seven = || Departed::from([(7, BTreeSet::from([(backend, 53)]))]);
        let gone = Ended { gone: seven(), ..Ended::default() };
        let silent = Ended { silent: seven(), ..Ended::default() };
        assert!(is_over(&gone, &of(7, PROTOCOL_TCP)) && is_over(&gone, &of(7, PROTOCOL_UDP)));
        assert!(!is_over(&silent, &of(7, PROTOCOL_TCP)) && is_over(&silent, &of(7, PROTOCOL_UDP)));
        assert!(!is_over(&gone, &of(8, PROTOCOL_TCP)), "another service's connection to the same backend");
    }
}
