//! On which of a node's addresses NodePorts are served. Pure.
//!
//! It exists to read `--nodeport-addresses` as kube-proxy does. It must not know where addresses come from.

use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use penstock_dataplane::is_a_host;

/// Which addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The node's own, by which it is registered.
    Primary,
    /// Those of any device that lie in one of these ranges.
    Within(Vec<IpNetwork>),
}

/// A text that names no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNodePortAddresses {
    #[error("{text:?} is no range of addresses: write CIDRs such as 192.0.2.0/24, or the one word primary")]
    NoRange { text: String },
    #[error("primary stands alone: leave out the ranges, or leave out primary")]
    Mixed,
}

impl NodePortAddresses {
    /// The addresses among `all` of the node, in order. Loopback and link-local ones are never among them: NodePorts are
    /// served on the loopback to the node itself anyway.
    pub fn select(&self, primary: &[IpAddr], all: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
        let ranges = match self {
            Self::Primary => return primary.to_vec(),
            Self::Within(ranges) => ranges,
        };
        let chosen = all.into_iter().map(|it| it.to_canonical()).filter(|it| is_a_host(*it));
        let mut chosen: Vec<_> = chosen.filter(|it| ranges.iter().any(|range| range.contains(*it))).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }
}

impl FromStr for NodePortAddresses {
    type Err = BadNodePortAddresses;

    fn from_str(text: &str) -> Result<Self, BadNodePortAddresses> {
        if text == "primary" {
            return Ok(Self::Primary);
        }
        let parts = text.split(',').map(str::trim);
        if parts.clone().any(|part| part == "primary") {
            return Err(BadNodePortAddresses::Mixed);
        }
        let range = |part: &str| {
            let has_prefix = part.contains('/');
            let parsed = part.parse().ok().filter(|_| has_prefix);
            parsed.ok_or_else(|| BadNodePortAddresses::NoRange { text: part.to_owned() })
        };
        Ok(Self::Within(parts.map(range).collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_choose_among_all_addresses_and_never_a_loopback() {
        let all =
            ["127.0.0.1", "169.254.1.1", "10.240.0.11", "192.0.2.7", "192.0.2.7", "fe80::1", "2001:db8::7"]
                .map(ip);
        let primary = [ip("10.240.0.11")];
        let select = |text: &str| text.parse::<NodePortAddresses>().unwrap().select(&primary, all);
        assert_eq!(select("primary"), primary);
        assert_eq!(select("192.0.2.0/24, 2001:db8::/32"), [ip("192.0.2.7"), ip("2001:db8::7")]);
        assert_eq!(select("0.0.0.0/0"), [ip("10.240.0.11"), ip("192.0.2.7")]);
        assert_eq!(select("198.51.100.0/24"), Vec::<IpAddr>::new());
    }

    #[test]
    fn a_bad_text_is_explained() {
        for (text, part) in [
            ("", "CIDRs"),
            ("eth0", "eth0"),
            ("10.0.0.1", "CIDRs"),
            ("10.0.0.0/33", "10.0.0.0/33"),
            ("primary,10.0.0.0/8", "stands alone"),
        ] {
            let error = text.parse::<NodePortAddresses>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
