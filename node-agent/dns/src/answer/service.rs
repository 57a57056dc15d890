//! Names at and below a service.
//!
//! It exists apart because the three kinds of services differ in every record type. It must not know the zone's
//! other branches.

use hickory_proto::rr::rdata::{CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{Answer, Question, TTL_SECONDS, absolute, address_data, addresses, record};
use crate::zone::{Endpoint, Exposure, Port, ServiceName, ServiceRecord, Zone};

/// SRV priority and weight: the specification wants equal ones and names no number.
const PRIORITY: u16 = 0;
const WEIGHT: u16 = 100;
/// Longest chain of aliases inside the cluster.
const ALIASES_MAX: usize = 8;

/// `below` are the labels below the service's name, the nearest first.
pub(super) fn answer(zone: &Zone, question: &Question, service: &ServiceRecord, below: &[&str]) -> Answer {
    match (&service.exposure, below) {
        (Exposure::External(target), []) => alias(zone, question, target),
        (Exposure::External(_), _) => Answer::NameError,
        (Exposure::Cluster(own), []) => match question.kind {
            RecordType::SRV => ports(zone, question, service, |_| true),
            _ => addresses(question, own.iter().copied()),
        },
        (Exposure::Headless(endpoints), []) => match question.kind {
            RecordType::SRV => ports(zone, question, service, |_| true),
            // Like any name: without an endpoint it has nothing behind it, and the specification wants "no such
            // name" only for a service that does not exist.
            _ => addresses(question, endpoints.iter().map(|endpoint| endpoint.address)),
        },
        (_, [protocol]) if protocol.starts_with('_') => {
            match all_ports(service).any(|port| protocol[1..] == *port.protocol) {
                true => Answer::NoData,
                false => Answer::NameError,
            }
        }
        (Exposure::Headless(endpoints), [host]) => {
            let named: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.label() == *host).collect();
            match named.is_empty() {
                true => Answer::NameError,
                false => addresses(question, named.into_iter().map(|endpoint| endpoint.address)),
            }
        }
        (_, [protocol, name]) if protocol.starts_with('_') && name.starts_with('_') => {
            let wanted = |port: &Port| port.name == name[1..] && *port.protocol == protocol[1..];
            match (all_ports(service).any(wanted), question.kind) {
                (false, _) => Answer::NameError,
                (true, RecordType::SRV | RecordType::ANY) => ports(zone, question, service, wanted),
                (true, _) => Answer::NoData,
            }
        }
        _ => Answer::NameError,
    }
}

/// An alias. A target in the cluster is followed here, any other by asking upstream.
fn alias(zone: &Zone, question: &Question, target: &str) -> Answer {
    let Ok(mut target) = Name::from_ascii(target) else { return Answer::NoData };
    target.set_fqdn(true);
    let cname = record(question, RData::CNAME(CNAME(target.clone())));
    if question.kind == RecordType::CNAME {
        return Answer::Found { answers: vec![cname], additionals: Vec::new() };
    }
    if question.aliases >= ALIASES_MAX {
        return Answer::Found { answers: vec![cname], additionals: Vec::new() };
    }
    let next = Question { name: target.clone(), aliases: question.aliases + 1, ..question.clone() };
    match super::answer(zone, &next) {
        Answer::Found { mut answers, additionals } => {
            answers.insert(0, cname);
            Answer::Found { answers, additionals }
        }
        Answer::Chase { mut answers, target } => {
            answers.insert(0, cname);
            Answer::Chase { answers, target }
        }
        Answer::NotOurs => Answer::Chase { answers: vec![cname], target },
        Answer::NoData | Answer::NameError => Answer::Found { answers: vec![cname], additionals: Vec::new() },
    }
}

fn ports(
    zone: &Zone,
    question: &Question,
    service: &ServiceRecord,
    wanted: impl Fn(&Port) -> bool,
) -> Answer {
    let ServiceName { namespace, name } = &service.name;
    let (mut answers, mut additionals) = (Vec::new(), Vec::new());
    let mut point = |port: &Port, target: &Name| {
        answers.push(record(question, RData::SRV(SRV::new(PRIORITY, WEIGHT, port.number, target.clone()))));
    };
    let mut glue = |target: &Name, address| {
        let kind = if matches!(address, std::net::IpAddr::V4(_)) { RecordType::A } else { RecordType::AAAA };
        additionals
            .extend(address_data(kind, address).map(|d| Record::from_rdata(target.clone(), TTL_SECONDS, d)));
    };
    match &service.exposure {
        Exposure::Cluster(own) => {
            let Some(target) = absolute(zone, &format!("{name}.{namespace}.svc")) else {
                return Answer::NoData;
            };
            let mut any = false;
            for port in service.ports.iter().filter(|port| !port.name.is_empty() && wanted(port)) {
                point(port, &target);
                any = true;
            }
            if any {
                own.iter().for_each(|address| glue(&target, *address));
            }
        }
        Exposure::Headless(endpoints) => {
            for endpoint in endpoints {
                let relative = format!("{}.{name}.{namespace}.svc", endpoint.label());
                let Some(target) = absolute(zone, &relative) else { continue };
                let mut any = false;
                for port in endpoint.ports.iter().filter(|port| !port.name.is_empty() && wanted(port)) {
                    point(port, &target);
                    any = true;
                }
                if any {
                    glue(&target, endpoint.address);
                }
            }
        }
        Exposure::External(_) => {}
    }
    match answers.is_empty() {
        true => Answer::NoData,
        false => Answer::Found { answers, additionals },
    }
}

/// The service's own ports and those of its endpoints.
fn all_ports(service: &ServiceRecord) -> impl Iterator<Item = &Port> {
    let endpoints: &[Endpoint] = match &service.exposure {
        Exposure::Headless(endpoints) => endpoints,
        _ => &[],
    };
    service.ports.iter().chain(endpoints.iter().flat_map(|endpoint| endpoint.ports.iter()))
}
