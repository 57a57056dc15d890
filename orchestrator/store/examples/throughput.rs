//! Durable creates a second with many clients, on a file and, given endpoints, on etcd:
//! `cargo run --release -p penstock-store --example throughput -- FILE [http://HOST:PORT]`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_store::embedded::Embedded;
use penstock_store::etcd::Etcd;
use penstock_store::{Expect, Mutation, Store, Write};

const CLIENTS: usize = 64;
const VALUE_BYTES: usize = 1024;
const DURATION: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or_else(|| anyhow::anyhow!("name a file to create"))?;
    let mut stores: Vec<(&str, Arc<dyn Store>)> = vec![("embedded", Embedded::open(file.as_ref()).await?)];
    if let Some(endpoint) = arguments.next() {
        stores.push(("etcd", Arc::new(Etcd::connect(&[endpoint]).await?)));
    }
    println!("{CLIENTS} clients, values of {VALUE_BYTES} bytes");
    for (name, store) in stores {
        println!("{name}: {:.0} durable creates/s", measure(store).await?);
    }
    Ok(())
}

async fn measure(store: Arc<dyn Store>) -> anyhow::Result<f64> {
    let start = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
                let mut created = 0_u32;
                while start.elapsed() < DURATION {
                    let mutation = Mutation::Put { value: value.clone(), lease_ttl_seconds: None };
                    let key = format!("/registry/core/configmaps/bench-{client}/{created}");
                    store.commit(Write { key, expect: Expect::Absent, mutation }).await?;
                    created += 1;
                }
                anyhow::Ok(created)
            })
        })
        .collect();
    let mut created = 0;
    for client in clients {
        created += client.await??;
    }
    Ok(f64::from(created) / start.elapsed().as_secs_f64())
}
