//! Which address a Service gets. Pure: pools, who has what, and the wish in; addresses or a reason out.
//!
//! What is given is the lowest free address of the first pool (by name) that may give it. A Service keeps what it has
//! while that is in a pool it may use, so that the plan is the same before and after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::address_pool::Range;

/// A pool as the plan sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    pub ranges: Vec<Range>,
    pub auto_assign: bool,
}

/// What a Service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Namespace/name.
    pub service: String,
    /// Addresses in its status.
    pub has: Vec<IpAddr>,
    /// The address the user wants, if any.
    pub wanted: Option<IpAddr>,
    /// The pool the user wants, if any.
    pub pool: Option<String>,
    /// Whether an address of each family is needed.
    pub ipv4: bool,
    pub ipv6: bool,
    pub claim: Claim,
}

/// How a Service uses its address, which decides with whom it may share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Services with the same key may have one address; none: it wants its own.
    pub sharing_key: Option<String>,
    /// Protocol and port.
    pub ports: BTreeSet<(String, i32)>,
    /// Traffic goes to local endpoints only: the address must then lead to one Service's nodes.
    pub local_only: bool,
}

/// Who has each address, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    holders: BTreeMap<IpAddr, BTreeMap<String, Claim>>,
}

/// Why a Service gets no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no address pool with {family} addresses{hint}")]
    NoPool { family: &'static str, hint: &'static str },
    #[error("there is no address pool named {name}")]
    UnknownPool { name: String },
    #[error("address pool {name} has no {family} addresses")]
    WrongFamily { name: String, family: &'static str },
    #[error("all {family} addresses of {pools} are in use")]
    Exhausted { family: &'static str, pools: String },
    #[error("address {address} is in no address pool that may be used")]
    NotInPool { address: IpAddr },
    #[error("address {address} is in use by {by}: {why}")]
    InUse { address: IpAddr, by: String, why: &'static str },
}

// === impl Refusal ===

impl Refusal {
    /// The reason of a condition or an event.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::NoPool { .. } | Refusal::UnknownPool { .. } | Refusal::WrongFamily { .. } => {
                "NoAddressPool"
            }
            Refusal::Exhausted { .. } => "AddressPoolExhausted",
            Refusal::NotInPool { .. } => "AddressNotInPool",
            Refusal::InUse { .. } => "AddressInUse",
        }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Notes that the Service has exactly these addresses.
    pub fn set(&mut self, service: &str, addresses: &[IpAddr], claim: &Claim) {
        self.release(service);
        for address in addresses {
            self.holders.entry(*address).or_default().insert(service.to_owned(), claim.clone());
        }
    }

    /// Takes everything from the Service; true if it had something.
    pub fn release(&mut self, service: &str) -> bool {
        let mut had = false;
        self.holders.retain(|_, holders| {
            had |= holders.remove(service).is_some();
            !holders.is_empty()
        });
        had
    }

    /// How many addresses of the ranges somebody has.
    pub fn used(&self, ranges: &[Range]) -> i64 {
        self.holders.keys().filter(|a| ranges.iter().any(|r| r.contains(**a))).count() as i64
    }

    /// Whether the Service may have the address; who has it and why not, otherwise.
    fn admits(&self, address: IpAddr, request: &Request) -> Result<(), Refusal> {
        let others = self.holders.get(&address).into_iter().flatten();
        for (by, claim) in others.filter(|(by, _)| **by != request.service) {
            if let Some(why) = conflict(&request.claim, claim) {
                return Err(Refusal::InUse { address, by: by.clone(), why });
            }
        }
        Ok(())
    }

    /// Addresses that others share under the key.
    fn shared(&self, key: &str) -> impl Iterator<Item = IpAddr> {
        let shares = move |holders: &BTreeMap<String, Claim>| {
            holders.values().any(|claim| claim.sharing_key.as_deref() == Some(key))
        };
        self.holders.iter().filter(move |(_, holders)| shares(holders)).map(|(address, _)| *address)
    }
}

/// Why two Services cannot have one address.
fn conflict(a: &Claim, b: &Claim) -> Option<&'static str> {
    match (&a.sharing_key, &b.sharing_key) {
        (Some(a), Some(b)) if a == b => {}
        _ => return Some("it is not shared under the same key"),
    }
    if !a.ports.is_disjoint(&b.ports) {
        return Some("both use the same port");
    }
    if a.local_only || b.local_only {
        return Some("an address with externalTrafficPolicy Local is not shared");
    }
    None
}

/// The addresses the Service should have, in the order of families IPv4, IPv6.
pub fn plan_addresses(pools: &[Pool], ledger: &Ledger, request: &Request) -> Result<Vec<IpAddr>, Refusal> {
    let mut addresses = Vec::new();
    for (needed, ipv6) in [(request.ipv4, false), (request.ipv6, true)] {
        if needed {
            addresses.push(plan_address(pools, ledger, request, ipv6)?);
        }
    }
    Ok(addresses)
}

fn plan_address(pools: &[Pool], ledger: &Ledger, request: &Request, ipv6: bool) -> Result<IpAddr, Refusal> {
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    let named = |pool: &&Pool| request.pool.as_ref().is_none_or(|name| *name == pool.name);
    let candidates: Vec<&Pool> = pools.iter().filter(named).collect();
    if let Some(name) = request.pool.as_ref().filter(|_| candidates.is_empty()) {
        return Err(Refusal::UnknownPool { name: name.clone() });
    }
    let holds = |pool: &Pool, address: IpAddr| pool.ranges.iter().any(|range| range.contains(address));
    if let Some(address) = request.wanted.filter(|a| a.is_ipv6() == ipv6) {
        if !candidates.iter().any(|pool| holds(pool, address)) {
            return Err(Refusal::NotInPool { address });
        }
        return ledger.admits(address, request).map(|()| address);
    }
    // A pool that is not given out by itself may still be kept, or asked for by name.
    let may_stay = request.has.iter().find(|address| {
        address.is_ipv6() == ipv6
            && candidates.iter().any(|pool| holds(pool, **address))
            && ledger.admits(**address, request).is_ok()
    });
    if let Some(address) = may_stay {
        return Ok(*address);
    }
    let giving: Vec<&Pool> =
        candidates.into_iter().filter(|pool| request.pool.is_some() || pool.auto_assign).collect();
    let ranges = || giving.iter().flat_map(|pool| &pool.ranges).filter(|range| range.is_ipv6() == ipv6);
    if ranges().next().is_none() {
        return Err(match &request.pool {
            Some(name) => Refusal::WrongFamily { name: name.clone(), family },
            None if pools.iter().any(|pool| !pool.auto_assign) => {
                Refusal::NoPool { family, hint: " that is given without being asked for (autoAssign)" }
            }
            None => Refusal::NoPool { family, hint: "; create an AddressPool" },
        });
    }
    if let Some(key) = &request.claim.sharing_key {
        let shared = ledger.shared(key).find(|address| {
            ranges().any(|range| range.contains(*address)) && ledger.admits(*address, request).is_ok()
        });
        if let Some(address) = shared {
            return Ok(address);
        }
    }
    let taken: BTreeSet<IpAddr> = ledger.holders.keys().copied().collect();
    ranges().find_map(|range| range.lowest_free(&taken)).ok_or_else(|| {
        let names: Vec<&str> = giving.iter().map(|pool| pool.name.as_str()).collect();
        Refusal::Exhausted { family, pools: format!("address pool {}", names.join(", ")) }
    })
}

#[cfg(test)]
mod tests;
