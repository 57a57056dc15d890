//! The endpoints of a slice, in as few bytes as they need.
//!
//! It exists because of all that an agent knows of a large cluster there are most of these. Must not know what they are for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// One endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EndpointView<'a> {
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub hostname: Option<&'a str>,
    pub place: &'a Arc<Place>,
}

/// Where an endpoint is, and for whom it is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub node: Option<String>,
    pub zone: Option<String>,
    /// `hints.forNodes`.
    pub for_nodes: Vec<String>,
    /// `hints.forZones`.
    pub for_zones: Vec<String>,
}

/// All of a slice, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoints {
    kept: Kept,
    /// By number; most have none.
    hostnames: Box<[(u32, Box<str>)]>,
}

/// A slice is of one family, so IPv4 need not have room for IPv6.
#[derive(Debug, Clone, PartialEq)]
enum Kept {
    V4(Box<[Endpoint<Ipv4Addr>]>),
    /// Some may be mapped IPv4.
    V6(Box<[Endpoint<Ipv6Addr>]>),
}

#[derive(Debug, Clone, PartialEq)]
struct Endpoint<A> {
    place: Arc<Place>,
    address: A,
    conditions: u8,
}

const READY: u8 = 1;
const SERVING: u8 = 2;
const TERMINATING: u8 = 4;

// === impl Endpoints ===

impl Endpoints {
    pub fn len(&self) -> usize {
        match &self.kept {
            Kept::V4(all) => all.len(),
            Kept::V6(all) => all.len(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = EndpointView<'_>> {
        (0..self.len()).map(|number| match &self.kept {
            Kept::V4(all) => self.view(number, &all[number]),
            Kept::V6(all) => self.view(number, &all[number]),
        })
    }

    /// Puts another place that is equal in the place of each.
    pub fn share_places(&mut self, mut shared: impl FnMut(&Arc<Place>) -> Arc<Place>) {
        match &mut self.kept {
            Kept::V4(all) => all.iter_mut().for_each(|it| it.place = shared(&it.place)),
            Kept::V6(all) => all.iter_mut().for_each(|it| it.place = shared(&it.place)),
        }
    }

    fn view<'a, A: Copy + Into<IpAddr>>(&'a self, number: usize, of: &'a Endpoint<A>) -> EndpointView<'a> {
        let hostname = self.hostnames.binary_search_by_key(&(number as u32), |(of, _)| *of);
        EndpointView {
            address: of.address.into().to_canonical(),
            ready: of.conditions & READY != 0,
            serving: of.conditions & SERVING != 0,
            terminating: of.conditions & TERMINATING != 0,
            hostname: hostname.ok().map(|at| &*self.hostnames[at].1),
            place: &of.place,
        }
    }
}

impl Default for Endpoints {
    fn default() -> Self {
        Self { kept: Kept::V4(Box::default()), hostnames: Box::default() }
    }
}

impl<'a> FromIterator<EndpointView<'a>> for Endpoints {
    fn from_iter<I: IntoIterator<Item = EndpointView<'a>>>(all: I) -> Self {
        let all: Vec<_> = all.into_iter().collect();
        let hostnames = (0..).zip(&all).filter_map(|(number, it)| Some((number, it.hostname?.into())));
        let v4: Option<Vec<Ipv4Addr>> = all
            .iter()
            .map(|it| match it.address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
            .collect();
        let kept = match v4 {
            Some(v4) => Kept::V4(all.iter().zip(v4).map(|(it, address)| it.at(address)).collect()),
            None => Kept::V6(all.iter().map(|it| it.at(mapped(it.address))).collect()),
        };
        Self { kept, hostnames: hostnames.collect() }
    }
}

// === impl EndpointView ===

impl EndpointView<'_> {
    fn at<A>(&self, address: A) -> Endpoint<A> {
        let conditions = [(self.ready, READY), (self.serving, SERVING), (self.terminating, TERMINATING)];
        let conditions = conditions.iter().filter(|(is, _)| *is).fold(0, |all, (_, bit)| all | bit);
        Endpoint { place: self.place.clone(), address, conditions }
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_what_was_put_in_whatever_their_families() {
        let place = Arc::new(Place { node: Some("node-1".to_owned()), ..Place::default() });
        let at = |address: &str, conditions: [bool; 3], hostname| {
            let [ready, serving, terminating] = conditions;
            let address = address.parse().expect("an address");
            EndpointView { address, ready, serving, terminating, hostname, place: &place }
        };
        let first = at("10.244.0.2", [true, true, false], None);
        let second = at("10.244.0.3", [false, true, true], Some("web-1"));
        let third = at("fd00:244::2", [false, false, false], Some("web-2"));
        for all in [&[][..], &[first], &[first, second], &[third, first], &[second, third, first]] {
            let kept: Endpoints = all.iter().copied().collect();
            assert_eq!(kept.iter().collect::<Vec<_>>(), all);
            assert_eq!(kept.len(), all.len());
        }
    }

    #[test]
    fn an_endpoint_of_ipv4_takes_sixteen_bytes() {
        assert_eq!(size_of::<Endpoint<Ipv4Addr>>(), 16);
    }
}
