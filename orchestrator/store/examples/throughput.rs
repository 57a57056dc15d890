//! Durable creates and updates a second by 1, 16 and 64 clients, with what they take of the processor and how long the
//! slowest wait, on a file and, given endpoints, on etcd:
//! `cargo run --release -p penstock-store --example throughput -- FILE [http://HOST:PORT]`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use penstock_store::embedded::Embedded;
use penstock_store::etcd::Etcd;
use penstock_store::{Expect, Mutation, Store, Write};

const CLIENTS: [usize; 3] = [1, 16, 64];
const VALUE_BYTES: usize = 2048;
const RECORDS_PER_CLIENT: usize = 100;
const DURATION: Duration = Duration::from_secs(3);
/// Of the times in /proc: USER_HZ, which is the same on all Linux systems with glibc.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, Copy)]
enum Kind {
    Creates,
    Updates,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("name a file to create")?;
    let mut stores: Vec<(&str, Arc<dyn Store>)> = vec![("embedded", Embedded::open(file.as_ref()).await?)];
    if let Some(endpoint) = arguments.next() {
        stores.push(("etcd", Arc::new(Etcd::connect(&[endpoint]).await?)));
    }
    println!("values of {VALUE_BYTES} bytes");
    for (name, store) in stores {
        for clients in CLIENTS {
            for (what, kind) in [("creates", Kind::Creates), ("updates", Kind::Updates)] {
                let (cpu, start) = (processor_seconds()?, Instant::now());
                let mut waits = measure(&store, kind, clients, start).await?;
                let (took, cpu) = (start.elapsed().as_secs_f64(), processor_seconds()? - cpu);
                waits.sort_unstable();
                let writes = waits.len() as f64;
                let part = |part: f64| waits[((writes * part) as usize).min(waits.len() - 1)];
                println!(
                    "{name}: {clients:2} clients: {:6.0} {what}/s, {:4.0} us of the processor each, \
                     p50 {:5} us, p99 {:6} us, p99.9 {:6} us, longest {:6} us",
                    writes / took,
                    cpu * 1e6 / writes,
                    part(0.5).as_micros(),
                    part(0.99).as_micros(),
                    part(0.999).as_micros(),
                    part(1.0).as_micros(),
                );
            }
        }
    }
    Ok(())
}

/// How long each write took.
async fn measure(
    store: &Arc<dyn Store>,
    kind: Kind,
    clients: usize,
    start: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            let folder = format!("/registry/core/configmaps/bench-{clients}-{client}");
            tokio::spawn(async move {
                let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
                let mut waits = Vec::new();
                while start.elapsed() < DURATION {
                    let n = waits.len();
                    let (key, expect) = match kind {
                        Kind::Creates => (format!("{folder}/{n}"), Expect::Absent),
                        Kind::Updates => (format!("{folder}/{}", n * 37 % RECORDS_PER_CLIENT), Expect::Any),
                    };
                    let mutation = Mutation::Put { value: value.clone(), lease_ttl_seconds: None };
                    let began = Instant::now();
                    store.commit(Write { key, expect, mutation }).await?;
                    waits.push(began.elapsed());
                }
                anyhow::Ok(waits)
            })
        })
        .collect();
    let mut waits = Vec::new();
    for client in clients {
        waits.extend(client.await??);
    }
    anyhow::ensure!(!waits.is_empty(), "nothing was written");
    Ok(waits)
}

/// What this process took of the processors so far.
fn processor_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|it| it.parse::<f64>().ok()).context("/proc/self/stat");
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}
