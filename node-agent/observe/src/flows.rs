//! Live flows with names: who talks to whom, what became of it, and why.
//!
//! Pure: what was seen comes from the data plane, names from whoever knows some, and out come lines for people or for
//! scripts. Must not know where names are from.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use jiff::Timestamp;
use penstock_dataplane::{Seen, Verdict};
use serde::Serialize;

/// Names of what has an address or a namespace on this node, and of services.
pub trait Names {
    /// `namespace/name` of the pod that has an address.
    fn pod_at(&self, address: IpAddr) -> Option<String>;
    /// `namespace/name` of the pod whose network namespace has this number; [`Caller::Host`] for the node's own.
    fn caller(&self, netns: u64) -> Caller;
    /// `namespace/name:port` of a service port.
    fn service(&self, number: u32) -> Option<String>;
}

/// Who made a socket call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process of this pod.
    Pod(String),
    /// A process of the node itself, or of a pod in its network.
    Host,
    /// Of a namespace that nobody has a name for.
    Unknown,
}

/// One flow, or one packet of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// RFC 3339, in UTC.
    pub time: String,
    /// What became of it.
    pub verdict: Verdict,
    /// The event or drop reason, as `node-agent counters` has it.
    pub reason: &'static str,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, or a number.
    pub protocol: String,
    /// Who asks.
    pub source: Party,
    /// Whom it asks.
    pub destination: Party,
    /// `namespace/name:port` of the service that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Who answers, where that is another than was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Party>,
    /// The address the other side sees instead of the source's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_as: Option<SocketAddr>,
}

/// One end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Party {
    /// `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Whether it is the node itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host: bool,
    /// Its address; a socket that only just connects has none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
}

/// Which flows to show; all that is given must fit.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of a pod or service of this namespace.
    pub namespace: Option<String>,
    /// Of this pod: `namespace/name`, or a name in any namespace.
    pub pod: Option<String>,
    /// To this service: `namespace/name`, a port behind a colon or not.
    pub service: Option<String>,
    /// With this address at either end, before or after translation.
    pub ip: Option<IpAddr>,
    /// With this port at either end, before or after translation.
    pub port: Option<u16>,
    /// Of this protocol, whatever the case of its letters.
    pub protocol: Option<String>,
    /// With one of these verdicts; any when empty.
    pub verdicts: Vec<Verdict>,
    /// With this event or drop reason.
    pub reason: Option<String>,
}

/// Puts names to what was seen.
pub fn flow(seen: &Seen, names: &impl Names) -> Flow {
    let party =
        |address: SocketAddr| Party { pod: names.pod_at(address.ip()), host: false, address: Some(address) };
    let mut source = seen.source.map(party).unwrap_or_default();
    match seen.netns.map(|netns| names.caller(netns)) {
        Some(Caller::Pod(pod)) => source.pod = Some(pod),
        Some(Caller::Host) => source.host = true,
        Some(Caller::Unknown) | None => {}
    }
    Flow {
        time: timestamp(seen.time),
        verdict: seen.verdict,
        reason: seen.what,
        protocol: protocol_name(seen.protocol),
        source,
        destination: party(seen.destination),
        service: seen.service.map(|number| names.service(number).unwrap_or_else(|| format!("#{number}"))),
        backend: seen.to_destination.map(party),
        seen_as: seen.to_source,
    }
}

/// A line for people.
pub fn flow_line(flow: &Flow) -> String {
    let clock = flow.time.split(['T', 'Z']).nth(1).unwrap_or(&flow.time);
    let mut line =
        format!("{clock}  {:<11} {:<4}  {}", verdict_name(flow.verdict), flow.protocol, who(&flow.source));
    if let Some(seen_as) = flow.seen_as {
        line += &format!(" as {seen_as}");
    }
    line += &format!(" -> {}", who(&flow.destination));
    if let Some(service) = &flow.service {
        line += &format!(" [{service}]");
    }
    if let Some(backend) = &flow.backend {
        line += &format!(" -> {}", who(backend));
    }
    format!("{line}  ({})", flow.reason)
}

fn who(party: &Party) -> String {
    let address = party.address.map(|address| address.to_string());
    match (&party.pod, party.host, address) {
        (Some(pod), _, Some(address)) => format!("{pod} ({address})"),
        (Some(pod), _, None) => pod.clone(),
        (None, true, _) => "host".to_owned(),
        (None, false, Some(address)) => address,
        (None, false, None) => "a process".to_owned(),
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Translated => "translated",
        Verdict::Replied => "replied",
        Verdict::Masqueraded => "masqueraded",
        Verdict::Passed => "passed",
        Verdict::Refused => "refused",
        Verdict::Dropped => "DROPPED",
    }
}

fn timestamp(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.6}"))
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => other.to_string(),
    }
}

// === impl Filter ===

impl Filter {
    /// Whether a flow is to be shown.
    pub fn takes(&self, flow: &Flow) -> bool {
        let parties =
            || [Some(&flow.source), Some(&flow.destination), flow.backend.as_ref()].into_iter().flatten();
        let addresses = || parties().filter_map(|party| party.address).chain(flow.seen_as);
        let pods = || parties().filter_map(|party| party.pod.as_deref());
        let of_namespace = |name: &str, wanted: &str| name.split('/').next() == Some(wanted);
        let is_none_or =
            |wanted: &Option<String>, holds: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(holds);
        is_none_or(&self.namespace, &|wanted| {
            pods().chain(flow.service.as_deref()).any(|name| of_namespace(name, wanted))
        }) && is_none_or(&self.pod, &|wanted| {
            pods().any(|pod| pod == wanted || pod.rsplit('/').next() == Some(wanted))
        }) && is_none_or(&self.service, &|wanted| {
            flow.service.as_deref().is_some_and(|service| {
                let name = service.split(':').next().unwrap_or_default();
                service == wanted || name == wanted || name.rsplit('/').next() == Some(wanted)
            })
        }) && self.ip.is_none_or(|ip| addresses().any(|address| address.ip() == ip))
            && self.port.is_none_or(|port| addresses().any(|address| address.port() == port))
            && is_none_or(&self.protocol, &|wanted| flow.protocol.eq_ignore_ascii_case(wanted))
            && (self.verdicts.is_empty() || self.verdicts.contains(&flow.verdict))
            && is_none_or(&self.reason, &|wanted| flow.reason == wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    struct Known;

    impl Names for Known {
        fn pod_at(&self, address: IpAddr) -> Option<String> {
            (address == IpAddr::from([10, 244, 1, 2])).then(|| "demo/web-1".to_owned())
        }

        fn caller(&self, netns: u64) -> Caller {
            match netns {
                1 => Caller::Host,
                2 => Caller::Pod("demo/client".to_owned()),
                _ => Caller::Unknown,
            }
        }

        fn service(&self, number: u32) -> Option<String> {
            (number == 7).then(|| "demo/web:http".to_owned())
        }
    }

    fn seen(netns: u64) -> Seen {
        Seen {
            time: UNIX_EPOCH + Duration::from_millis(1_500),
            verdict: Verdict::Translated,
            what: "connect_translated",
            protocol: 6,
            netns: Some(netns),
            ifindex: None,
            source: None,
            destination: "10.96.0.7:80".parse().expect("an address"),
            to_source: None,
            to_destination: Some("10.244.1.2:8080".parse().expect("an address")),
            service: Some(7),
        }
    }

    #[test]
    fn a_line_names_client_service_and_backend() {
        assert_eq!(
            flow_line(&flow(&seen(2), &Known)),
            "00:00:01.500000  translated  TCP   demo/client -> 10.96.0.7:80 [demo/web:http] -> demo/web-1 \
             (10.244.1.2:8080)  (connect_translated)"
        );
        assert!(flow_line(&flow(&seen(1), &Known)).contains(" host -> "));
        assert!(flow_line(&flow(&seen(3), &Known)).contains(" a process -> "));
        let nameless = Seen { service: Some(9), ..seen(2) };
        assert!(flow_line(&flow(&nameless, &Known)).contains("[#9]"));
    }

    #[test]
    fn a_filter_wants_all_that_it_says() {
        let flow = flow(&seen(2), &Known);
        let some = |text: &str| Some(text.to_owned());
        let takes = |filter: Filter| filter.takes(&flow);
        assert!(takes(Filter::default()));
        for (yes, no) in [
            (
                Filter { namespace: some("demo"), ..Filter::default() },
                Filter { namespace: some("dem"), ..Filter::default() },
            ),
            (
                Filter { pod: some("client"), ..Filter::default() },
                Filter { pod: some("demo/cl"), ..Filter::default() },
            ),
            (
                Filter { pod: some("demo/web-1"), ..Filter::default() },
                Filter { pod: some("web"), ..Filter::default() },
            ),
            (
                Filter { service: some("web"), ..Filter::default() },
                Filter { service: some("http"), ..Filter::default() },
            ),
            (
                Filter { service: some("demo/web:http"), ..Filter::default() },
                Filter { service: some("demo/web:x"), ..Filter::default() },
            ),
            (
                Filter { ip: Some([10, 244, 1, 2].into()), ..Filter::default() },
                Filter { ip: Some([10, 0, 0, 1].into()), ..Filter::default() },
            ),
            (
                Filter { port: Some(8080), ..Filter::default() },
                Filter { port: Some(81), ..Filter::default() },
            ),
            (
                Filter { protocol: some("tcp"), ..Filter::default() },
                Filter { protocol: some("udp"), ..Filter::default() },
            ),
            (
                Filter { verdicts: vec![Verdict::Dropped, Verdict::Translated], ..Filter::default() },
                Filter { verdicts: vec![Verdict::Dropped], ..Filter::default() },
            ),
            (
                Filter { reason: some("connect_translated"), ..Filter::default() },
                Filter { reason: some("no_backend"), ..Filter::default() },
            ),
        ] {
            assert!(takes(yes.clone()), "{yes:?}");
            assert!(!takes(no.clone()), "{no:?}");
            assert!(!takes(Filter { port: Some(81), ..yes }));
        }
    }

    #[test]
    fn a_script_gets_names_and_addresses() {
        let json = serde_json::to_value(flow(&seen(2), &Known)).expect("JSON");
        assert_eq!(json["source"]["pod"], "demo/client");
        assert_eq!(json["service"], "demo/web:http");
        assert_eq!(json["backend"]["address"], "10.244.1.2:8080");
        assert_eq!((json["verdict"].as_str(), json.get("seen_as")), (Some("translated"), None));
    }
}
