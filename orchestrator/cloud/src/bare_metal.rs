//! Bare metal: load-balancer addresses from configured pools. The lowest free address is given; announcing it on
//! the network is the node agents' work.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use ipnetwork::IpNetwork;

use crate::provider::{LoadBalancers, ProviderError, Request};

/// Addresses looked at in one pool before it counts as full.
const LOOKED_AT_MAX: usize = 1 << 16;

/// See the module.
pub struct BareMetal {
    pools: Vec<IpNetwork>,
    /// Who has each address.
    given: Mutex<BTreeMap<IpAddr, String>>,
}

impl BareMetal {
    /// A provider that gives addresses from these pools.
    pub fn new(pools: Vec<IpNetwork>) -> Self {
        Self { pools, given: Mutex::default() }
    }

    fn given(&self) -> MutexGuard<'_, BTreeMap<IpAddr, String>> {
        self.given.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Addresses of a pool that can be given: not those that mean the network or all of it.
fn usable(pool: &IpNetwork) -> impl Iterator<Item = IpAddr> + '_ {
    let special = |address: &IpAddr| match pool {
        IpNetwork::V4(p) if p.prefix() < 31 => {
            *address == IpAddr::V4(p.network()) || *address == IpAddr::V4(p.broadcast())
        }
        IpNetwork::V6(p) if p.prefix() < 127 => *address == IpAddr::V6(p.network()),
        _ => false,
    };
    pool.iter().take(LOOKED_AT_MAX).filter(move |a| !special(a))
}

/// One address of a family for a Service: the one it has, the one it wants, or the lowest free one.
fn plan_address(
    pools: &[IpNetwork],
    given: &BTreeMap<IpAddr, String>,
    request: &Request,
    ipv6: bool,
) -> Result<IpAddr, ProviderError> {
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    if let Some(wanted) = request.wanted.filter(|a| a.is_ipv6() == ipv6) {
        if !pools.iter().any(|p| p.contains(wanted)) {
            return Err(ProviderError::NotInPool { address: wanted });
        }
        return match given.get(&wanted) {
            Some(by) if *by != request.service => {
                Err(ProviderError::InUse { address: wanted, by: by.clone() })
            }
            _ => Ok(wanted),
        };
    }
    let in_pools = |address: &IpAddr| pools.iter().any(|p| p.contains(*address));
    let has = given.iter().find(|(a, by)| a.is_ipv6() == ipv6 && **by == request.service && in_pools(a));
    if let Some((address, _)) = has {
        return Ok(*address);
    }
    let mut pools = pools.iter().filter(|p| p.is_ipv6() == ipv6).peekable();
    if pools.peek().is_none() {
        return Err(ProviderError::NoPool { family });
    }
    let free = pools.flat_map(usable).find(|a| !given.contains_key(a));
    free.ok_or(ProviderError::Exhausted { family })
}

#[async_trait]
impl LoadBalancers for BareMetal {
    async fn ensure(&self, request: &Request) -> Result<Vec<IpAddr>, ProviderError> {
        let mut given = self.given();
        let mut addresses = Vec::new();
        for (needed, ipv6) in [(request.ipv4, false), (request.ipv6, true)] {
            if needed {
                addresses.push(plan_address(&self.pools, &given, request, ipv6)?);
            }
        }
        given.retain(|address, by| *by != request.service || addresses.contains(address));
        given.extend(addresses.iter().map(|a| (*a, request.service.clone())));
        Ok(addresses)
    }

    fn note(&self, service: &str, addresses: &[IpAddr]) {
        let mut given = self.given();
        for address in addresses {
            given.entry(*address).or_insert_with(|| service.to_owned());
        }
    }

    async fn release(&self, service: &str) -> bool {
        let mut given = self.given();
        let before = given.len();
        given.retain(|_, by| by != service);
        given.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(service: &str, wanted: Option<&str>) -> Request {
        Request {
            service: service.into(),
            wanted: wanted.map(|w| w.parse().unwrap()),
            ipv4: true,
            ipv6: false,
        }
    }

    #[tokio::test]
    async fn addresses_are_given_once_kept_and_given_back() {
        let provider = BareMetal::new(vec!["10.240.0.200/30".parse().unwrap()]);
        let first = provider.ensure(&request("ns/a", None)).await.unwrap();
        assert_eq!(
            first,
            ["10.240.0.201".parse::<IpAddr>().unwrap()],
            "the network's own address is not given"
        );
        assert_eq!(provider.ensure(&request("ns/a", None)).await.unwrap(), first);
        assert_ne!(provider.ensure(&request("ns/b", None)).await.unwrap(), first);
        let full = provider.ensure(&request("ns/c", None)).await;
        assert_eq!(full, Err(ProviderError::Exhausted { family: "IPv4" }));
        assert!(provider.release("ns/a").await);
        assert_eq!(provider.ensure(&request("ns/c", None)).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_wanted_address_must_be_ours_and_free() {
        let provider = BareMetal::new(vec!["10.240.0.200/30".parse().unwrap()]);
        provider.note("ns/old", &["10.240.0.201".parse().unwrap()]);
        let taken = provider.ensure(&request("ns/a", Some("10.240.0.201"))).await;
        assert!(matches!(taken, Err(ProviderError::InUse { .. })));
        let foreign = provider.ensure(&request("ns/a", Some("1.1.1.1"))).await;
        assert!(matches!(foreign, Err(ProviderError::NotInPool { .. })));
        let none = BareMetal::new(Vec::new()).ensure(&request("ns/a", None)).await;
        assert_eq!(none, Err(ProviderError::NoPool { family: "IPv4" }));
    }
}
