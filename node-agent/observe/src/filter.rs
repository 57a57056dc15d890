//! Which sightings an observer is shown. Pure.
//!
//! Values of one kind are alternatives, kinds must all hold: `--pod a/b --port 80` is that pod's traffic with that port
//! at either end. Must not know the command line.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use penstock_ebpf_common::Reason;

use crate::sighting::{End, Sighting};

/// What is asked for; empty lists ask for everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// `namespace/name` of a pod at either end, or a name in any namespace.
    pub pods: Vec<String>,
    /// `namespace/name` of a Service, with `:port` or without.
    pub services: Vec<String>,
    /// Namespace of a pod at either end, or of the Service.
    pub namespaces: Vec<String>,
    /// Ranges of addresses at either end, before or after translation.
    pub addresses: Vec<IpNetwork>,
    /// Ports at either end, before or after translation.
    pub ports: Vec<u16>,
    /// Protocols, as they are shown.
    pub protocols: Vec<String>,
    /// Names of drop reasons.
    pub reasons: Vec<String>,
    /// Who it comes from: a pod, an address or range, or `host`.
    pub from: Vec<String>,
    /// Who it goes to: a pod, a Service, an address or range.
    pub to: Vec<String>,
}

/// A drop reason nobody ever has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no drop reason {0:?}; there are {1}")]
pub struct NoSuchReason(String, String);

// === impl Filter ===

impl Filter {
    /// Refuses what could never match.
    pub fn check(&self) -> Result<(), NoSuchReason> {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        match self.reasons.iter().find(|reason| !names.contains(&reason.as_str())) {
            Some(wrong) => Err(NoSuchReason(wrong.clone(), names.join(", "))),
            None => Ok(()),
        }
    }

    /// Whether it is asked for.
    pub fn matches(&self, seen: &Sighting) -> bool {
        let ends: Vec<&End> = [Some(&seen.source), Some(&seen.destination)]
            .into_iter()
            .chain([seen.new_source.as_ref(), seen.new_destination.as_ref()])
            .flatten()
            .collect();
        let sources = || std::iter::once(&seen.source).chain(seen.new_source.as_ref());
        let destinations = || std::iter::once(&seen.destination).chain(seen.new_destination.as_ref());
        let service = seen.service.as_deref();
        any(&self.pods, |pod| ends.iter().any(|end| is_pod(end, pod)))
            && any(&self.services, |wanted| service.is_some_and(|it| is_service(it, wanted)))
            && any(&self.namespaces, |wanted| {
                service.is_some_and(|it| is_in(it, wanted))
                    || ends.iter().any(|end| end.pod.as_deref().is_some_and(|pod| is_in(pod, wanted)))
            })
            && any(&self.addresses, |range| {
                ends.iter().any(|end| end.address.is_some_and(|address| range.contains(address)))
            })
            && any(&self.ports, |port| ends.iter().any(|end| end.port == Some(*port)))
            && any(&self.protocols, |protocol| seen.protocol.eq_ignore_ascii_case(protocol))
            && any(&self.reasons, |reason| seen.reason == Some(reason.as_str()))
            && any(&self.from, |who| sources().any(|end| is_end(end, who)))
            && any(&self.to, |who| {
                service.is_some_and(|it| is_service(it, who)) || destinations().any(|end| is_end(end, who))
            })
    }
}

fn any<T>(wanted: &[T], holds: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(holds)
}

fn is_end(end: &End, who: &str) -> bool {
    if who == "host" {
        return end.host;
    }
    if let Ok(range) = who.parse::<IpNetwork>() {
        return end.address.is_some_and(|address: IpAddr| range.contains(address));
    }
    is_pod(end, who)
}

fn is_pod(end: &End, wanted: &str) -> bool {
    end.pod
        .as_deref()
        .is_some_and(|pod| pod == wanted || pod.split_once('/').is_some_and(|it| it.1 == wanted))
}

fn is_service(service: &str, wanted: &str) -> bool {
    let name = service.rsplit_once(':').map_or(service, |(name, _)| name);
    service == wanted || name == wanted || name.split_once('/').is_some_and(|it| it.1 == wanted)
}

fn is_in(name: &str, namespace: &str) -> bool {
    name.split_once('/').is_some_and(|it| it.0 == namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sighting::tests::{seen, told};

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// How a filter is made of words, which of them match and which do not.
    type Kind<'a> = (fn(Vec<String>) -> Filter, &'a [&'a str], &'a [&'a str]);

    #[test]
    fn each_kind_of_filter_takes_what_it_names_and_nothing_else() {
        let seen = seen(&told());
        let matches = |filter: Filter| filter.matches(&seen);
        assert!(matches(Filter::default()));
        let kinds: [Kind<'_>; 6] = [
            (
                |pods| Filter { pods, ..Filter::default() },
                &["demo/client", "hello-1"],
                &["demo/other", "hello"],
            ),
            (
                |services| Filter { services, ..Filter::default() },
                &["demo/hello", "demo/hello:http", "hello"],
                &["demo/hello:x", "demo"],
            ),
            (|namespaces| Filter { namespaces, ..Filter::default() }, &["demo"], &["dem", "default"]),
            (|protocols| Filter { protocols, ..Filter::default() }, &["tcp"], &["udp"]),
            (|from| Filter { from, ..Filter::default() }, &["client"], &["hello-1", "host", "10.244.1.2"]),
            (
                |to| Filter { to, ..Filter::default() },
                &["demo/hello", "hello-1", "10.96.0.0/16", "10.244.1.2"],
                &["client", "10.97.0.0/16"],
            ),
        ];
        for (make, right, wrong) in kinds {
            for word in right {
                assert!(matches(make(strings(&[word]))), "{word}");
                assert!(matches(make(strings(&["no/such", word]))), "values are alternatives: {word}");
            }
            for word in wrong {
                assert!(!matches(make(strings(&[word]))), "{word}");
            }
        }
        for (port, is) in [(80, true), (8080, true), (81, false)] {
            assert_eq!(matches(Filter { ports: vec![port], ..Filter::default() }), is, "{port}");
        }
        for (range, is) in [("10.244.0.0/16", true), ("10.96.0.7", true), ("fd00::/8", false)] {
            let addresses = vec![range.parse().unwrap()];
            assert_eq!(matches(Filter { addresses, ..Filter::default() }), is, "{range}");
        }
    }

    #[test]
    fn kinds_must_all_hold() {
        let filter = Filter { pods: strings(&["demo/client"]), ports: vec![81], ..Filter::default() };
        assert!(!filter.matches(&seen(&told())));
    }

    #[test]
    fn a_reason_that_is_none_is_refused_with_those_there_are() {
        let error = Filter { reasons: strings(&["bad_luck"]), ..Filter::default() }.check().unwrap_err();
        assert!(error.to_string().contains("no_backend"), "{error}");
        assert_eq!(Filter { reasons: strings(&["no_route"]), ..Filter::default() }.check(), Ok(()));
    }
}
