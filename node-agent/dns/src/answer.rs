//! What the cluster's names mean. Pure.
//!
//! The tree below the domain: `<service>.<namespace>.svc`, `<host>.<service>.<namespace>.svc`,
//! `_<port>._<protocol>.<service>.<namespace>.svc`, `<a-b-c-d>.<namespace>.pod`, `dns-version`. It must not do I/O.

mod reverse;
mod service;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{A, AAAA, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::zone::Zone;

/// Life of every record, in seconds: what cluster DNS has always used, short enough for endpoints to move.
pub const TTL_SECONDS: u32 = 5;
/// Version of the specification, as the TXT record at `dns-version` says it.
const SPECIFICATION: &str = "1.1.0";

/// One question.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// As asked, in the asker's case; answers repeat it.
    pub name: Name,
    /// What for.
    pub kind: RecordType,
    /// Where to begin when several addresses answer: askers that take the first then spread over all.
    pub rotation: usize,
    /// How many aliases led to this question; 0 for one that was asked.
    pub aliases: usize,
}

/// What to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// These records.
    Found {
        /// For the answer section.
        answers: Vec<Record>,
        /// Addresses of the names in it.
        additionals: Vec<Record>,
    },
    /// The name exists and has nothing of that type.
    NoData,
    /// The name does not exist.
    NameError,
    /// An alias to a name of somebody else, who should be asked as well.
    Chase {
        /// The alias.
        answers: Vec<Record>,
        /// The name to ask for.
        target: Name,
    },
    /// A name of somebody else.
    NotOurs,
}

/// Answers from the zone.
pub fn answer(zone: &Zone, question: &Question) -> Answer {
    let Some(labels) = lowercase_labels(&question.name) else { return Answer::NotOurs };
    let answered = match below(&labels, &zone.domain) {
        Some(relative) => relative_answer(zone, question, relative),
        None => return reverse::answer(zone, question, &labels),
    };
    match answered {
        Answer::Found { mut answers, additionals } if answers.len() > 1 => {
            let middle = question.rotation % answers.len();
            answers.rotate_left(middle);
            Answer::Found { answers, additionals }
        }
        answered => answered,
    }
}

/// The record that goes with "no such name" and "no such data", from which askers know how long that holds.
pub(crate) fn authority(zone: &Zone) -> Option<Record> {
    let apex = absolute(zone, "")?;
    let soa =
        SOA::new(absolute(zone, "ns.dns")?, absolute(zone, "hostmaster")?, 1, 7200, 1800, 86400, TTL_SECONDS);
    Some(Record::from_rdata(apex, TTL_SECONDS, RData::SOA(soa)))
}

fn relative_answer(zone: &Zone, question: &Question, relative: &[String]) -> Answer {
    let labels: Vec<&str> = relative.iter().rev().map(String::as_str).collect();
    match labels[..] {
        [] => apex(zone, question),
        ["dns-version"] => match question.kind {
            RecordType::TXT => found(record(question, RData::TXT(TXT::new(vec![SPECIFICATION.to_string()])))),
            _ => Answer::NoData,
        },
        ["dns"] => Answer::NoData,
        ["dns", "ns"] => addresses(question, zone.config.addresses.iter().copied()),
        ["svc"] | ["pod"] => Answer::NoData,
        ["svc" | "pod", namespace] => match zone.has_namespace(namespace) {
            true => Answer::NoData,
            false => Answer::NameError,
        },
        // Any pod's dashed address in any namespace: the specification asks for a record for every pod, and a name
        // that spells its own answer needs no list of pods to be kept on every node.
        ["pod", _namespace, dashed] => match dashed_address(dashed) {
            Some(address) => addresses(question, [address]),
            None => Answer::NameError,
        },
        ["svc", namespace, name, ref below @ ..] => match zone.service(namespace, name) {
            Some(record) => service::answer(zone, question, record, below),
            None => Answer::NameError,
        },
        _ => Answer::NameError,
    }
}

fn apex(zone: &Zone, question: &Question) -> Answer {
    match question.kind {
        RecordType::SOA => authority(zone).map_or(Answer::NoData, found),
        RecordType::NS => match absolute(zone, "ns.dns") {
            Some(server) => found(record(question, RData::NS(NS(server)))),
            None => Answer::NoData,
        },
        _ => Answer::NoData,
    }
}

/// Those of `all` that are of the type asked for.
fn addresses(question: &Question, all: impl IntoIterator<Item = IpAddr>) -> Answer {
    let matching = all.into_iter().filter_map(|address| address_data(question.kind, address));
    let answers: Vec<Record> = matching.map(|data| record(question, data)).collect();
    match answers.is_empty() {
        true => Answer::NoData,
        false => Answer::Found { answers, additionals: Vec::new() },
    }
}

fn address_data(kind: RecordType, address: IpAddr) -> Option<RData> {
    match (kind, address) {
        (RecordType::A | RecordType::ANY, IpAddr::V4(address)) => Some(RData::A(A(address))),
        (RecordType::AAAA | RecordType::ANY, IpAddr::V6(address)) => Some(RData::AAAA(AAAA(address))),
        _ => None,
    }
}

fn record(question: &Question, data: RData) -> Record {
    Record::from_rdata(question.name.clone(), TTL_SECONDS, data)
}

fn found(record: Record) -> Answer {
    Answer::Found { answers: vec![record], additionals: Vec::new() }
}

/// A name below the domain; `None` when it would be too long for DNS, which API validation prevents.
fn absolute(zone: &Zone, relative: &str) -> Option<Name> {
    let relative = relative.split('.').filter(|label| !label.is_empty());
    Name::from_labels(relative.chain(zone.domain.iter().map(String::as_str)).map(str::as_bytes)).ok()
}

/// `10-1-2-3`, or an IPv6 address with dashes for colons.
fn dashed_address(label: &str) -> Option<IpAddr> {
    let four = label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    four.or_else(|| label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}

/// The labels in lower case, leftmost first; `None` when one is not text, which none of ours is.
fn lowercase_labels(name: &Name) -> Option<Vec<String>> {
    name.iter().map(|label| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase)).collect()
}

/// The labels left of `domain`; `None` when the name is not in it.
fn below<'a>(labels: &'a [String], domain: &[String]) -> Option<&'a [String]> {
    labels.strip_suffix(domain)
}
