//! What an observer shows of one packet or socket call: with names, times and words instead of numbers.
//!
//! Pure: the program's words in, a record out, which is one line of JSON or of text. Must not know where names come from.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use penstock_ebpf_common::{
    Address, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, Point, Reason,
    TOLD_ERROR, TOLD_FIRST, Told, Verdict,
};
use serde::Serialize;

use crate::names::Names;

/// One packet or socket call, readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sighting {
    /// When, in RFC 3339 to the microsecond, UTC.
    pub time: String,
    /// Where: `connect`, `send`, `bind`, `uplink`, `pod`, `leaving`.
    pub point: &'static str,
    /// What became of it.
    pub verdict: &'static str,
    /// Why it was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, or a number.
    pub protocol: String,
    /// From whom.
    pub source: End,
    /// To whom, as the client wanted it.
    pub destination: End,
    /// `namespace/name:port` of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// From whom it seems to come afterwards, where that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_source: Option<End>,
    /// To whom it goes, where that changed: for a client's packet the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_destination: Option<End>,
    /// Whether it is the first of its flow.
    pub first: bool,
    /// Whether it is an ICMP error; the ends are those of the answer to the packet it is about.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub icmp_error: bool,
    /// How long the packet is; none for a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
}

/// One end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct End {
    /// Its address, where it has one: a socket that connects may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its port, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `namespace/name` of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The process, of a socket call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Whether the process is the node's own and not a pod's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host: bool,
}

/// What the monotonic clock of programs says of the time of day.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    boot: SystemTime,
}

// === impl Clock ===

impl Clock {
    /// Given what both clocks say at one moment.
    pub fn new(now: SystemTime, monotonic_ns: u64) -> Self {
        Self { boot: now.checked_sub(Duration::from_nanos(monotonic_ns)).unwrap_or(UNIX_EPOCH) }
    }

    fn text(&self, monotonic_ns: u64) -> String {
        let since = (self.boot + Duration::from_nanos(monotonic_ns)).duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default();
        rfc3339(since.as_secs(), since.subsec_micros())
    }
}

/// Days since 1970 as a date: the calendar repeats every 400 years, which begin in March so that the leap day is last.
fn rfc3339(seconds: u64, micros: u32) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

// === impl Sighting ===

impl Sighting {
    /// Reads what a program told. `service` finds the name of a service port's number.
    pub fn new(told: &Told, clock: &Clock, names: &Names, service: impl Fn(u32) -> Option<String>) -> Self {
        let end = |address: &Address, port: u16| {
            let ip = (*address != Address::default()).then(|| IpAddr::from(*address));
            End {
                address: ip,
                port: Some(u16::from_be(port)).filter(|port| *port != 0),
                pod: ip.and_then(|ip| names.pod(ip)).map(str::to_owned),
                ..End::default()
            }
        };
        let mut source = end(&told.source, told.source_port);
        if told.netns != 0 {
            source.pod = names.pod_in(told.netns).map(str::to_owned);
            source.host = names.is_host(told.netns);
            let name = String::from_utf8_lossy(&told.process);
            source.process = Some(format!("{}[{}]", name.trim_end_matches('\0'), told.pid));
        }
        let changed = |address: &Address, port: u16, from: (&Address, u16)| {
            (*address != Address::default() && (address, port) != from).then(|| end(address, port))
        };
        let verdict = Verdict::from_number(told.verdict).unwrap_or(Verdict::Passed);
        Self {
            time: clock.text(told.time_ns),
            point: Point::from_number(told.point).map_or("unknown", Point::name),
            verdict: verdict.name(),
            reason: (verdict == Verdict::Dropped)
                .then(|| Reason::ALL.get(usize::from(told.reason)).map_or("unknown", |it| it.name())),
            protocol: protocol_name(told.protocol),
            destination: end(&told.destination, told.destination_port),
            service: (told.service != 0)
                .then(|| service(told.service).unwrap_or_else(|| format!("#{}", told.service))),
            new_source: changed(&told.new_source, told.new_source_port, (&told.source, told.source_port)),
            new_destination: changed(
                &told.new_destination,
                told.new_destination_port,
                (&told.destination, told.destination_port),
            ),
            first: told.flags & TOLD_FIRST != 0,
            icmp_error: told.flags & TOLD_ERROR != 0,
            bytes: (told.length != 0).then_some(told.length),
            source,
        }
    }

    /// One line of JSON.
    pub fn json(&self) -> String {
        // Strings, numbers and structs of them: nothing that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let mut text = format!(
            "{} {:<7} {:<11} {:<4} {} -> {}",
            self.time,
            self.point,
            self.verdict,
            self.protocol,
            self.source.text(),
            self.destination.text()
        );
        if let Some(service) = &self.service {
            text.push_str(&format!(" ({service})"));
        }
        match (&self.new_source, &self.new_destination) {
            (Some(from), Some(to)) => text.push_str(&format!(" => {} -> {}", from.text(), to.text())),
            (None, Some(to)) => text.push_str(&format!(" => {}", to.text())),
            (Some(from), None) => text.push_str(&format!(" => from {}", from.text())),
            (None, None) => {}
        }
        if let Some(reason) = self.reason {
            text.push_str(&format!(": {reason}"));
        }
        if self.icmp_error {
            text.push_str(" (an ICMP error about its answer)");
        }
        text
    }
}

/// The name of an IP protocol.
pub fn protocol_name(number: u8) -> String {
    match number {
        PROTOCOL_TCP => "TCP".to_owned(),
        PROTOCOL_UDP => "UDP".to_owned(),
        PROTOCOL_SCTP => "SCTP".to_owned(),
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => "ICMP".to_owned(),
        other => other.to_string(),
    }
}

// === impl End ===

impl End {
    fn text(&self) -> String {
        let at = match (self.address, self.port) {
            (Some(address), Some(port)) => SocketAddr::new(address, port).to_string(),
            (Some(address), None) => address.to_string(),
            _ => String::new(),
        };
        let who = match (&self.pod, self.host) {
            (Some(pod), _) => pod.as_str(),
            (None, true) => "host",
            (None, false) => "",
        };
        let parts = [who, self.process.as_deref().unwrap_or(""), &at];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        if parts.is_empty() { "?".to_owned() } else { parts.join(" ") }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A call of a pod to a service, as the programs tell it.
    pub fn told() -> Told {
        let at = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        let mut process = [0; 16];
        process[..4].copy_from_slice(b"curl");
        Told {
            time_ns: 5_000_000,
            netns: 7,
            destination: at("10.96.0.7"),
            destination_port: 80_u16.to_be(),
            new_destination: at("10.244.1.2"),
            new_destination_port: 8080_u16.to_be(),
            service: 3,
            pid: 42,
            flags: TOLD_FIRST,
            protocol: 6,
            verdict: Verdict::Translated as u8,
            point: Point::Connect as u8,
            process,
            ..Told::default()
        }
    }

    pub fn seen(told: &Told) -> Sighting {
        let mut names = Names::new(1);
        names.insert_namespace(7, "demo/client");
        names.insert_pod("10.244.1.2".parse().unwrap(), "demo/hello-1");
        let clock = Clock::new(UNIX_EPOCH + Duration::from_secs(1_795_744_825), 0);
        Sighting::new(told, &clock, &names, |number| (number == 3).then(|| "demo/hello:http".to_owned()))
    }

    #[test]
    fn a_call_is_shown_with_pods_service_and_backend() {
        assert_eq!(
            seen(&told()).line(),
            "2026-11-27T02:00:25.005000Z connect translated  TCP  demo/client curl[42] -> 10.96.0.7:80 \
             (demo/hello:http) => demo/hello-1 10.244.1.2:8080"
        );
    }

    #[test]
    fn a_dropped_packet_is_shown_with_its_reason_and_without_what_it_never_became() {
        let told = Told {
            netns: 0,
            pid: 0,
            source: Address::from("10.244.1.2".parse::<IpAddr>().unwrap()),
            source_port: 40_000_u16.to_be(),
            new_destination: Address::default(),
            point: Point::Pod as u8,
            verdict: Verdict::Dropped as u8,
            reason: Reason::NoBackend as u8,
            length: 60,
            ..told()
        };
        let seen = seen(&told);
        assert!(
            seen.line()
                .ends_with("demo/hello-1 10.244.1.2:40000 -> 10.96.0.7:80 (demo/hello:http): no_backend")
        );
        let json: serde_json::Value = serde_json::from_str(&seen.json()).unwrap();
        assert_eq!(json["reason"], "no_backend");
        assert_eq!(json["source"]["pod"], "demo/hello-1");
        assert_eq!(json["bytes"], 60);
        assert!(json.get("new_destination").is_none() && json["source"].get("process").is_none());
    }

    #[test]
    fn numbers_that_a_newer_program_may_tell_are_no_mistake() {
        let told = Told { verdict: 3, reason: 200, point: 99, service: 9, ..told() };
        let seen = seen(&told);
        assert_eq!(
            (seen.reason, seen.point, seen.service.as_deref()),
            (Some("unknown"), "unknown", Some("#9"))
        );
    }

    #[test]
    fn dates_are_right_at_the_ends_of_months_and_years() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(rfc3339(seconds, 0), text);
        }
    }
}
