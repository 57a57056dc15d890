//! What a node has of one address family or of both.
//!
//! It exists so that "of neither" cannot be said, and whoever needs the first of two need not ask whether there is one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// One of IPv4, one of IPv6, or one of each, of which that of IPv4 is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerFamily<V4, V6> {
    /// IPv4 alone.
    V4(V4),
    /// IPv6 alone.
    V6(V6),
    /// Both.
    Both(V4, V6),
}

/// A node's addresses, of which pods' neighbours see the one of their family.
pub type NodeIps = PerFamily<Ipv4Addr, Ipv6Addr>;

/// A node's ranges of pod addresses. Pods' first addresses come from the first.
pub type PodRanges = PerFamily<Ipv4Network, Ipv6Network>;

// === impl PerFamily ===

impl<V4: Copy, V6: Copy> PerFamily<V4, V6> {
    /// What there is; `None` when it is nothing.
    pub fn new(v4: Option<V4>, v6: Option<V6>) -> Option<Self> {
        match (v4, v6) {
            (Some(v4), Some(v6)) => Some(Self::Both(v4, v6)),
            (Some(v4), None) => Some(Self::V4(v4)),
            (None, Some(v6)) => Some(Self::V6(v6)),
            (None, None) => None,
        }
    }

    /// That of IPv4.
    pub fn v4(&self) -> Option<V4> {
        match *self {
            Self::V4(v4) | Self::Both(v4, _) => Some(v4),
            Self::V6(_) => None,
        }
    }

    /// That of IPv6.
    pub fn v6(&self) -> Option<V6> {
        match *self {
            Self::V6(v6) | Self::Both(_, v6) => Some(v6),
            Self::V4(_) => None,
        }
    }

    /// The one there is, or the first of both.
    pub fn first<T: From<V4> + From<V6>>(&self) -> T {
        match *self {
            Self::V4(v4) | Self::Both(v4, _) => v4.into(),
            Self::V6(v6) => v6.into(),
        }
    }

    /// The one beside the first.
    pub fn second(&self) -> Option<V6> {
        match *self {
            Self::Both(_, v6) => Some(v6),
            Self::V4(_) | Self::V6(_) => None,
        }
    }

    /// All, the first one first.
    pub fn all<T: From<V4> + From<V6>>(&self) -> impl Iterator<Item = T> {
        [self.v4().map(T::from), self.v6().map(T::from)].into_iter().flatten()
    }
}

// === impl NodeIps ===

impl NodeIps {
    /// The first address of each family.
    pub fn of(addresses: &[IpAddr]) -> Option<Self> {
        let v4 = addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        let v6 = addresses.iter().find_map(|address| match address {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        });
        Self::new(v4, v6)
    }
}

// === impl PodRanges ===

impl PodRanges {
    /// The first range of each family.
    pub fn of(ranges: &[IpNetwork]) -> Option<Self> {
        let v4 = ranges.iter().find_map(|range| match range {
            IpNetwork::V4(v4) => Some(*v4),
            IpNetwork::V6(_) => None,
        });
        let v6 = ranges.iter().find_map(|range| match range {
            IpNetwork::V6(v6) => Some(*v6),
            IpNetwork::V4(_) => None,
        });
        Self::new(v4, v6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_first_address_of_each_family_it_has() {
        let of = |ips: &[&str]| NodeIps::of(&ips.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>());
        let (v4, v6) = (Ipv4Addr::new(10, 240, 0, 11), "fd00::11".parse().unwrap());
        assert_eq!(of(&["10.240.0.11"]), Some(NodeIps::V4(v4)));
        assert_eq!(of(&["fd00::11", "fd00::12"]), Some(NodeIps::V6(v6)));
        let both = of(&["fd00::11", "10.240.0.11"]).unwrap();
        assert_eq!(both, NodeIps::Both(v4, v6));
        assert_eq!(both.first::<IpAddr>(), v4);
        assert_eq!((both.second(), NodeIps::V6(v6).second()), (Some(v6), None));
        assert_eq!(NodeIps::V6(v6).first::<IpAddr>(), v6);
        assert_eq!(both.all::<IpAddr>().collect::<Vec<_>>(), [IpAddr::V4(v4), IpAddr::V6(v6)]);
        assert_eq!(of(&[]), None);
    }
}
