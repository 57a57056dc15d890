//! Names of addresses.
//!
//! It exists apart because its names are not below the cluster's domain. It must not answer for addresses outside
//! the cluster's ranges unless a service has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{RData, RecordType};

use super::{Answer, Question, absolute, record};
use crate::zone::Zone;

pub(super) fn answer(zone: &Zone, question: &Question, labels: &[String]) -> Answer {
    let Some(address) = address_of(labels) else { return Answer::NotOurs };
    let Some(names) = zone.names_of(address) else {
        return match zone.config.reverse.iter().any(|range| range.contains(address)) {
            true => Answer::NameError,
            false => Answer::NotOurs,
        };
    };
    if !matches!(question.kind, RecordType::PTR | RecordType::ANY) {
        return Answer::NoData;
    }
    let names = names.filter_map(|name| absolute(zone, name));
    let answers = names.map(|name| record(question, RData::PTR(PTR(name)))).collect();
    Answer::Found { answers, additionals: Vec::new() }
}

/// The address a full reverse name spells.
fn address_of(labels: &[String]) -> Option<IpAddr> {
    let (digits, zone) = labels.split_at_checked(labels.len().checked_sub(2)?)?;
    match (zone[0].as_str(), zone[1].as_str(), digits.len()) {
        ("in-addr", "arpa", 4) => {
            let mut octets = [0; 4];
            for (octet, label) in octets.iter_mut().zip(digits.iter().rev()) {
                *octet = label.parse().ok()?;
            }
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        ("ip6", "arpa", 32) => {
            let mut bits: u128 = 0;
            for label in digits.iter().rev() {
                let nibble = u8::from_str_radix(label, 16).ok().filter(|_| label.len() == 1)?;
                bits = bits << 4 | u128::from(nibble);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bits)))
        }
        _ => None,
    }
}
