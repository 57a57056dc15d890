//! The Prometheus text format, written directly: the numbers live in the kernel, not in a registry.

use std::collections::BTreeMap;
use std::fmt::Write;

use penstock_dataplane::{Counters, MapFill, ServiceTraffic, TcKind, XdpKind};

use crate::Status;

/// How many service ports have metrics of their own: the busiest on this node. Six series each.
const SERVICES_MAX: usize = 2_000;

/// Events, drops and services as counters.
pub fn counters_metrics(counters: &Counters) -> String {
    let mut text = String::new();
    head(&mut text, "penstock_dataplane_events_total", "counter", "What the kernel programs did, by event");
    for (name, count) in &counters.events {
        sample(&mut text, "penstock_dataplane_events_total", &[("event", name)], *count);
    }
    head(
        &mut text,
        "penstock_dataplane_drops_total",
        "counter",
        "Packets the kernel programs dropped, by reason",
    );
    for (name, count) in &counters.drops {
        sample(&mut text, "penstock_dataplane_drops_total", &[("reason", name)], *count);
    }
    let name = "penstock_pod_drops_total";
    head(
        &mut text,
        name,
        "counter",
        "Packets of a pod of this node that the kernel programs dropped, by reason",
    );
    // Of pods that nobody has a name for all together: two series must not have the same labels.
    let mut drops: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for it in &counters.pods {
        *drops.entry((it.pod.as_deref().unwrap_or_default(), it.reason)).or_default() += it.drops;
    }
    for ((pod, reason), count) in drops {
        let (namespace, pod) = pod.split_once('/').unwrap_or(("", pod));
        sample(&mut text, name, &[("namespace", namespace), ("pod", pod), ("reason", reason)], count);
    }
    head(
        &mut text,
        "penstock_service_traffic_total",
        "counter",
        "Traffic of a service port on this node, by kind",
    );
    // Busiest first, so that a bound leaves out those of which there is least to tell.
    let total = |it: &ServiceTraffic| it.connects + it.datagrams + it.packets + it.refused + it.drops;
    let mut services: Vec<&ServiceTraffic> = counters.services.iter().collect();
    services.sort_by_key(|it| std::cmp::Reverse(total(it)));
    let omitted = services.len().saturating_sub(SERVICES_MAX) as u64;
    for it in services.into_iter().take(SERVICES_MAX) {
        for (kind, count) in [
            ("connects", it.connects),
            ("datagrams", it.datagrams),
            ("packets", it.packets),
            ("replies", it.replies),
            ("refused", it.refused),
            ("drops", it.drops),
        ] {
            sample(
                &mut text,
                "penstock_service_traffic_total",
                &[("service", &it.service), ("kind", kind)],
                count,
            );
        }
    }
    let name = "penstock_service_traffic_omitted";
    head(&mut text, name, "gauge", "Service ports left out of penstock_service_traffic_total");
    let _ = writeln!(text, "{name} {omitted}");
    text
}

/// Where packets from outside are met, as a gauge that is one for the kind there is.
pub fn status_metrics(status: &Status) -> String {
    let mut text = String::new();
    let name = "penstock_dataplane_xdp";
    head(&mut text, name, "gauge", "Whether packets from outside are met by this kind of XDP");
    for kind in XdpKind::ALL {
        sample(&mut text, name, &[("kind", kind.name())], u64::from(status.xdp == Some(kind)));
    }
    let name = "penstock_dataplane_tc";
    head(&mut text, name, "gauge", "Whether programs are attached at interfaces behind XDP by this way");
    for kind in TcKind::ALL {
        sample(&mut text, name, &[("way", kind.name())], u64::from(status.tc == Some(kind)));
    }
    text
}

/// Fill levels as gauges.
pub fn maps_metrics(maps: &[MapFill]) -> String {
    let mut text = String::new();
    for (name, what, value) in [
        (
            "penstock_dataplane_map_entries",
            "Entries of a kernel map",
            (|map| map.entries) as fn(&MapFill) -> Option<u64>,
        ),
        ("penstock_dataplane_map_entries_max", "Entries a kernel map has room for", |map| map.entries_max),
    ] {
        head(&mut text, name, "gauge", what);
        for map in maps {
            if let Some(value) = value(map) {
                sample(&mut text, name, &[("map", map.name)], value);
            }
        }
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, what: &str) {
    let _ = writeln!(text, "# HELP {name} {what}.\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let labels: Vec<_> =
        labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
    let _ = writeln!(text, "{name}{{{}}} {value}", labels.join(","));
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use penstock_dataplane::PodDrops;

    use super::*;

    #[test]
    fn every_metric_has_a_type_and_every_sample_its_labels() {
        let counters = Counters {
            events: [("connect_translated", 2)].into(),
            drops: [("no_backend", 1)].into(),
            services: vec![ServiceTraffic {
                service: "a/b:c".into(),
                replies: 7,
                ..ServiceTraffic::default()
            }],
            pods: [(7, Some("demo/web"), 2), (8, None, 3), (9, None, 4)]
                .map(|(ifindex, pod, drops)| PodDrops {
                    ifindex,
                    pod: pod.map(str::to_owned),
                    reason: "no_route",
                    drops,
                })
                .into(),
        };
        let text = counters_metrics(&counters);
        for line in [
            "# TYPE penstock_dataplane_events_total counter",
            "penstock_dataplane_events_total{event=\"connect_translated\"} 2",
            "penstock_dataplane_drops_total{reason=\"no_backend\"} 1",
            "penstock_pod_drops_total{namespace=\"demo\",pod=\"web\",reason=\"no_route\"} 2",
            "penstock_pod_drops_total{namespace=\"\",pod=\"\",reason=\"no_route\"} 7",
            "penstock_service_traffic_total{service=\"a/b:c\",kind=\"replies\"} 7",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn the_busiest_services_have_metrics_and_the_others_are_counted() {
        let service = |number: u64| ServiceTraffic {
            service: format!("a/s{number}:x"),
            connects: number,
            ..ServiceTraffic::default()
        };
        let services = (0..SERVICES_MAX as u64 + 3).map(service).collect();
        let text = counters_metrics(&Counters { services, ..Counters::default() });
        assert!(text.ends_with("penstock_service_traffic_omitted 3\n"));
        assert!(text.contains("a/s3:x") && !text.contains("a/s2:x"));
    }

    #[test]
    fn a_map_without_a_count_has_no_sample() {
        let maps =
            [MapFill { name: "peers_v4", entries: None, entries_max: None, evicts: false, raised_by: None }];
        assert!(maps_metrics(&maps).lines().all(|line| line.starts_with('#')));
    }
}
