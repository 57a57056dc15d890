//! A map image as people read it: names instead of numbers, one line an address, a set or a range.
//!
//! It exists so that what the kernel holds can be shown and compared as text. Numbers that only the maps give are left
//! out: equal services make equal text, whatever was there before.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use penstock_ebpf_common::{
    Address, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, SET_EMPTY_IS_DROP, VIP_DIRECT, VIP_HOST_ONLY,
    VIP_NODE_PORT, VIP_SOURCE_RANGES, VIP_YIELDS,
};

use crate::Choice;
use crate::image::{MapImage, SETS_PER_SERVICE, service_of};

impl fmt::Display for MapImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, vip) in &self.vips {
            let flags = [
                (VIP_NODE_PORT, " nodeport"),
                (VIP_HOST_ONLY, " host-only"),
                (VIP_SOURCE_RANGES, " ranges"),
                (VIP_YIELDS, " yields"),
                (VIP_DIRECT, " dsr"),
            ];
            let flags: String =
                flags.iter().filter(|(flag, _)| vip.flags & flag != 0).map(|(_, name)| *name).collect();
            let at = Endpoint(key.address, key.port);
            let (protocol, name) = (Protocol(key.protocol), Name(self, vip.service));
            let (inside, outside) = (scope(vip.inside), scope(vip.outside));
            writeln!(f, "{at}/{protocol} {name} inside={inside} outside={outside}{flags}")?;
        }
        let mut sets: Vec<_> =
            self.sets.iter().map(|(id, set)| (Name(self, service_of(*id)).to_string(), *id, set)).collect();
        sets.sort_by_key(|(name, id, _)| (name.clone(), id % SETS_PER_SERVICE));
        for (name, id, set) in sets {
            write!(f, "{name} {}", scope(id))?;
            if set.flags & SET_EMPTY_IS_DROP != 0 {
                write!(f, " empty=drop")?;
            }
            if set.affinity_seconds != 0 {
                write!(f, " affinity={}s", set.affinity_seconds)?;
            }
            if set.choice != Choice::Random {
                write!(f, " {}", set.choice.name())?;
            }
            write!(f, ":")?;
            for backend in &set.backends {
                let local = if backend.local == 1 { "*" } else { "" };
                write!(f, " {}{local}", Endpoint(backend.address, backend.port))?;
            }
            writeln!(f)?;
        }
        let mut ranges: Vec<_> = self
            .ranges
            .iter()
            .map(|range| {
                let (address, mapped) = (IpAddr::from(range.address), range.address.is_v4());
                let prefix = if mapped { range.prefix.saturating_sub(96) } else { range.prefix };
                format!("{} lets in {address}/{prefix}", Name(self, range.service))
            })
            .collect();
        ranges.sort();
        ranges.iter().try_for_each(|range| writeln!(f, "{range}"))
    }
}

/// An address, and a port in network order.
struct Endpoint(Address, u16);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.0.into(), u16::from_be(self.1)).fmt(f)
    }
}

struct Protocol(u8);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PROTOCOL_TCP => f.write_str("TCP"),
            PROTOCOL_UDP => f.write_str("UDP"),
            PROTOCOL_SCTP => f.write_str("SCTP"),
            other => write!(f, "{other}"),
        }
    }
}

/// A service port's name, or its number where it has none.
struct Name<'a>(&'a MapImage, u32);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.names.get(&self.1) {
            Some(name) => name.fmt(f),
            None => write!(f, "#{}", self.1),
        }
    }
}

/// Which of a service's sets a number stands for.
fn scope(set: u32) -> &'static str {
    if set == 0 {
        return "-";
    }
    match set % SETS_PER_SERVICE {
        0 => "cluster",
        1 => "local",
        2 => "cluster6",
        _ => "local6",
    }
}
