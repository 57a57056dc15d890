//! Tables for people: aligned columns, nothing that is zero in lists of names and pods, services always.

use std::fmt::Write;

use penstock_dataplane::{Counters, MapFill};

/// Events, drops and services.
pub fn counters_table(counters: &Counters) -> String {
    let named = |what: &str, counts: &std::collections::BTreeMap<&'static str, u64>| {
        let rows = counts.iter().filter(|(_, count)| **count > 0);
        let rows: Vec<_> = rows.map(|(name, count)| vec![(*name).to_owned(), count.to_string()]).collect();
        columns(&[what, "COUNT"], &rows)
    };
    let services: Vec<_> = counters
        .services
        .iter()
        .map(|it| {
            let counts = [it.connects, it.datagrams, it.packets, it.replies, it.refused, it.drops];
            std::iter::once(it.service.clone()).chain(counts.map(|count| count.to_string())).collect()
        })
        .collect();
    let pods: Vec<_> = counters
        .pods
        .iter()
        .map(|it| {
            let pod = it.pod.clone().unwrap_or_else(|| format!("interface {}", it.ifindex));
            vec![pod, it.reason.to_owned(), it.drops.to_string()]
        })
        .collect();
    let heads = ["SERVICE", "CONNECTS", "DATAGRAMS", "PACKETS", "REPLIES", "REFUSED", "DROPS"];
    let pods = (!pods.is_empty()).then(|| columns(&["POD", "DROP REASON", "COUNT"], &pods));
    let totals = [named("EVENT", &counters.events), named("DROP REASON", &counters.drops)];
    totals.into_iter().chain(pods).chain([columns(&heads, &services)]).collect::<Vec<_>>().join("\n")
}

/// From how many hundredths on a map that refuses when full is worth a word.
const NEARLY_FULL: u64 = 80;

/// How full each map is, and what to do where one is nearly full.
pub fn maps_table(maps: &[MapFill]) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let rows: Vec<_> = maps
        .iter()
        .map(|map| {
            let percent = match (map.entries, map.entries_max) {
                (Some(entries), Some(max)) if max > 0 => format!("{} %", entries * 100 / max),
                _ => "-".to_owned(),
            };
            let full = if map.evicts { "the oldest go" } else { "refuses" };
            vec![map.name.to_owned(), number(map.entries), number(map.entries_max), percent, full.to_owned()]
        })
        .collect();
    let mut text = columns(&["MAP", "ENTRIES", "ROOM FOR", "FILLED", "WHEN FULL"], &rows);
    for map in maps {
        if let (Some(entries), Some(max), false) = (map.entries, map.entries_max, map.evicts)
            && max > 0
            && entries * 100 / max >= NEARLY_FULL
        {
            let what = map.raised_by.map_or_else(
                || "it has no option: its size is fixed".to_owned(),
                |flag| {
                    format!("start the node agent with a larger {flag}; a map that is pinned keeps its size")
                },
            );
            let _ = writeln!(text, "warning: {} is nearly full: {what}", map.name);
        }
    }
    text
}

/// Aligns columns by their widest cell, two spaces apart; numbers stand at the right.
fn columns(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(String::len)
            .chain([heads[column].len()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    let heads: Vec<_> = heads.iter().map(|head| (*head).to_owned()).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut written = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let right =
                rows.iter().all(|row| row.get(column).is_some_and(|cell| cell.parse::<u64>().is_ok()));
            let _ = if right && !rows.is_empty() {
                write!(written, "{gap}{cell:>width$}")
            } else {
                write!(written, "{gap}{cell:<width$}")
            };
        }
        let _ = writeln!(text, "{}", written.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use penstock_dataplane::{PodDrops, ServiceTraffic};

    use super::*;

    #[test]
    fn a_table_shows_what_happened_and_every_service() {
        let counters = Counters {
            events: [("connect_translated", 12), ("send_translated", 0)].into(),
            drops: [("no_backend", 3)].into(),
            services: vec![ServiceTraffic {
                service: "demo/hello:http".into(),
                connects: 12,
                ..ServiceTraffic::default()
            }],
            pods: vec![PodDrops { ifindex: 7, pod: Some("demo/web".into()), reason: "no_backend", drops: 2 }],
        };
        let expected = "\
EVENT               COUNT
connect_translated     12

DROP REASON  COUNT
no_backend       3

POD       DROP REASON  COUNT
demo/web  no_backend       2

SERVICE          CONNECTS  DATAGRAMS  PACKETS  REPLIES  REFUSED  DROPS
demo/hello:http        12          0        0        0        0      0
";
        assert_eq!(counters_table(&counters), expected);
    }

    #[test]
    fn a_table_of_maps_says_what_happens_when_one_is_full() {
        let maps = [
            MapFill {
                name: "vips_v1",
                entries: Some(64),
                entries_max: Some(128),
                evicts: false,
                raised_by: None,
            },
            MapFill { name: "peers_v4", entries: None, entries_max: None, evicts: false, raised_by: None },
            MapFill {
                name: "flows_v2",
                entries: Some(1),
                entries_max: Some(4),
                evicts: true,
                raised_by: None,
            },
        ];
        let expected = "\
MAP       ENTRIES  ROOM FOR  FILLED  WHEN FULL
vips_v1   64       128       50 %    refuses
peers_v4  -        -         -       refuses
flows_v2  1        4         25 %    the oldest go
";
        assert_eq!(maps_table(&maps), expected);
    }

    #[test]
    fn a_map_that_is_nearly_full_is_warned_of_with_the_option_that_helps() {
        let fill = |entries, evicts| MapFill {
            name: "vips_v2",
            entries: Some(entries),
            entries_max: Some(100),
            evicts,
            raised_by: Some("--service-addresses-max"),
        };
        assert!(maps_table(&[fill(80, false)]).contains("warning: vips_v2 is nearly full"));
        assert!(maps_table(&[fill(80, false)]).contains("--service-addresses-max"));
        assert!(!maps_table(&[fill(79, false), fill(100, true)]).contains("warning"));
    }
}
