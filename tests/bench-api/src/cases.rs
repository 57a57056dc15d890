//! What is measured, as a list: each case has a name, a goal, and one way to measure a server once.

mod lists;
mod memory;
mod reads;
mod watching;
mod writes;

use std::time::Duration;

use anyhow::Result;

use crate::contender::Contender;
use crate::report::Row;
use crate::rounds::{self, Measured, quantile};

/// Goals against upstream in the same run.
const WRITES_GOAL: f64 = 3.0;
const LISTS_GOAL: f64 = 5.0;
const WATCH_GOAL: f64 = 0.2;
const MEMORY_GOAL: f64 = 0.25;

/// One measured thing.
#[derive(Clone, Debug)]
pub struct Case {
    pub what: What,
    /// How long a round lasts, where it lasts as long as one wants.
    lasts: Duration,
}

/// What a case does with a server.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Resident memory before any load.
    Idle,
    Creates {
        clients: usize,
    },
    Updates {
        clients: usize,
    },
    Gets {
        clients: usize,
    },
    /// Latency of changes: two rows.
    Watch {
        watchers: usize,
        changes_per_second: u32,
    },
    /// Resident memory with so many pods.
    Memory {
        pods: usize,
    },
    List {
        pods: usize,
        protobuf: bool,
        paged: bool,
    },
}

/// All cases, in the order they are measured in: memory before what fills it.
pub fn all(quick: bool) -> Vec<Case> {
    let lasts = Duration::from_secs(if quick { 1 } else { 4 });
    let sizes: &[usize] = if quick { &[5_000] } else { &[10_000, 50_000] };
    let mut whats = vec![What::Idle];
    for clients in [1, 16, 64] {
        whats.push(What::Creates { clients });
    }
    for clients in [1, 16, 64] {
        whats.push(What::Updates { clients });
    }
    whats.extend([1, 16].map(|clients| What::Gets { clients }));
    let (watchers, changes_per_second) = if quick { (200, 100) } else { (1_000, 500) };
    whats.push(What::Watch { watchers, changes_per_second });
    for pods in sizes.iter().copied() {
        whats.push(What::Memory { pods });
        for (protobuf, paged) in [(false, false), (false, true), (true, false), (true, true)] {
            whats.push(What::List { pods, protobuf, paged });
        }
    }
    whats.into_iter().map(|what| Case { what, lasts }).collect()
}

/// Measures the cases one after the other, each on all servers in turn.
pub async fn run(cases: &[Case], contenders: &[Contender], rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in cases {
        eprintln!("{}", case.name());
        match case.measure(contenders, rounds).await {
            Ok(measured) => rows.extend(measured),
            // One case that cannot be measured takes no other with it.
            Err(error) => rows.push(Row::missing(case.name(), case.unit(), format!("{error:#}"))),
        }
    }
    Ok(rows)
}

// === impl Case ===

impl Case {
    pub fn name(&self) -> String {
        match self.what {
            What::Idle => "memory: idle".to_owned(),
            What::Creates { clients } => format!("creates: {clients} client(s)"),
            What::Updates { clients } => format!("updates: {clients} client(s)"),
            What::Gets { clients } => format!("gets: {clients} client(s)"),
            What::Watch { watchers, changes_per_second } => {
                format!("watch: {watchers} watchers, {changes_per_second} changes/s")
            }
            What::Memory { pods } => format!("memory: {pods} pods"),
            What::List { pods, protobuf, paged } => format!(
                "list: {pods} pods, {}, {}",
                if protobuf { "protobuf" } else { "JSON" },
                if paged { "pages of 500" } else { "whole" }
            ),
        }
    }

    fn unit(&self) -> &'static str {
        match self.what {
            What::Creates { .. } | What::Updates { .. } | What::Gets { .. } => "/s",
            What::List { .. } => "pods/s",
            What::Watch { .. } => "ms",
            What::Idle | What::Memory { .. } => "MB",
        }
    }

    async fn measure(&self, contenders: &[Contender], rounds: usize) -> Result<Vec<Row>> {
        let lasts = self.lasts;
        match self.what {
            What::Idle => self.memory_rows(contenders),
            What::Memory { pods } => {
                for contender in contenders {
                    contender.ensure_pods(pods).await?;
                    // Everyone has seen its pods once: caches are filled at first use.
                    lists::once(&contender.endpoint, pods, false).await?;
                }
                memory::settle().await;
                self.memory_rows(contenders)
            }
            What::Creates { clients } => {
                let values = rounds::interleave(rounds, contenders, async |contender, round| {
                    writes::creates(&contender.endpoint, clients, round, lasts).await
                })
                .await;
                Ok(self.rows("", contenders, &values))
            }
            What::Updates { clients } => {
                let values = rounds::interleave(rounds, contenders, async |contender, _| {
                    writes::updates(&contender.endpoint, clients, lasts).await
                })
                .await;
                Ok(self.rows("", contenders, &values))
            }
            What::Gets { clients } => {
                let values = rounds::interleave(rounds, contenders, async |contender, _| {
                    reads::gets(&contender.endpoint, clients, lasts).await
                })
                .await;
                Ok(self.rows("", contenders, &values))
            }
            What::List { pods, protobuf, paged } => {
                for contender in contenders {
                    contender.ensure_pods(pods).await?;
                }
                let values = rounds::interleave(rounds, contenders, async |contender, _| {
                    lists::pods_per_second(&contender.endpoint, pods, protobuf, paged, lasts).await
                })
                .await;
                Ok(self.rows("", contenders, &values))
            }
            What::Watch { watchers, changes_per_second } => {
                let mut p99 = vec![Measured::default(); contenders.len()];
                let p50 = rounds::interleave(rounds, contenders, async |contender, _| {
                    let latencies =
                        watching::latencies_ms(&contender.endpoint, watchers, changes_per_second, lasts)
                            .await?;
                    let place = contenders.iter().position(|it| std::ptr::eq(it, contender)).unwrap_or(0);
                    p99[place].values.push(quantile(latencies.clone(), 0.99).unwrap_or(f64::NAN));
                    Ok(quantile(latencies, 0.5).unwrap_or(f64::NAN))
                })
                .await;
                for (p99, p50) in p99.iter_mut().zip(&p50) {
                    p99.failure.clone_from(&p50.failure);
                }
                let mut rows = self.rows(", p50", contenders, &p50);
                rows.extend(self.rows(", p99", contenders, &p99));
                Ok(rows)
            }
        }
    }

    fn memory_rows(&self, contenders: &[Contender]) -> Result<Vec<Row>> {
        let values: Vec<Measured> = contenders
            .iter()
            .map(|contender| {
                let values = contender.resident_mb()?.into_iter().collect();
                Ok(Measured { values, failure: None })
            })
            .collect::<Result<_>>()?;
        Ok(self.rows("", contenders, &values))
    }

    /// A row for each of our servers.
    fn rows(&self, part: &str, contenders: &[Contender], measured: &[Measured]) -> Vec<Row> {
        let peer = contenders.iter().position(|contender| contender.is_peer).map(|place| &measured[place]);
        let ours = contenders.iter().zip(measured).filter(|(contender, _)| !contender.is_peer);
        ours.map(|(contender, ours)| {
            let name = format!("{}{part}, {}", self.name(), contender.name);
            let value = quantile(ours.values.clone(), 0.5).filter(|_| ours.failure.is_none());
            let Some(value) = value else {
                let why = ours.failure.clone().unwrap_or("the server was not started here".to_owned());
                eprintln!("  {name}: not measured: {why}");
                return Row::missing(name, self.unit(), why);
            };
            let failed = peer.and_then(|peer| peer.failure.clone());
            let beside = peer.filter(|peer| peer.failure.is_none()).and_then(|peer| {
                Some((rounds::compare(&ours.values, &peer.values)?, quantile(peer.values.clone(), 0.5)?))
            });
            match beside {
                None => {
                    eprintln!("  {name}: {value:.2} {}", self.unit());
                    // Ours alone has a value, and why there is none beside it.
                    Row { why: failed, ..Row::of(name, value, self.unit()) }
                }
                Some((figure, peer)) => {
                    let (ratio, spread) = (figure.ratio, figure.spread);
                    eprintln!("  {name}: {value:.2} {}, {ratio:.2} ± {spread:.2} of {peer:.2}", self.unit());
                    self.aimed(Row::beside(name, figure, peer, self.unit()), part)
                }
            }
        })
        .collect()
    }

    /// A row with its goal, which is of the ratio.
    fn aimed(&self, row: Row, part: &str) -> Row {
        match self.what {
            What::Creates { .. } | What::Updates { .. } => row.at_least(WRITES_GOAL),
            What::List { .. } => row.at_least(LISTS_GOAL),
            What::Watch { .. } if part == ", p99" => row.at_most(WATCH_GOAL),
            What::Memory { .. } => row.at_most(MEMORY_GOAL),
            What::Gets { .. } | What::Watch { .. } | What::Idle => row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_have_names_of_their_own() {
        for quick in [true, false] {
            let names: std::collections::BTreeSet<_> = all(quick).iter().map(Case::name).collect();
            assert_eq!(names.len(), all(quick).len());
        }
    }
}
