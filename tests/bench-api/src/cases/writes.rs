//! Durable writes of small objects: ConfigMaps of 256 bytes, one after the other from each client.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::contender::NAMESPACE;
use crate::http::{Connection, Endpoint};

pub const VALUE_BYTES: usize = 256;
pub const JSON: &str = "application/json";

/// Creates a second.
pub async fn creates(endpoint: &Endpoint, clients: usize, round: usize, lasts: Duration) -> Result<f64> {
    // Names are not used twice, nor by another run on the same cluster.
    let run = std::process::id();
    per_second(endpoint, clients, lasts, move |endpoint, client, number| {
        let name = format!("c-{run}-{clients}-{round}-{client}-{number}");
        endpoint.request("POST", &path(None), JSON, &config_map(&name, number))
    })
    .await
}

/// Updates a second; each client has an object of its own.
pub async fn updates(endpoint: &Endpoint, clients: usize, lasts: Duration) -> Result<f64> {
    ensure_objects(endpoint, clients).await?;
    per_second(endpoint, clients, lasts, |endpoint, client, number| {
        let name = object(client);
        endpoint.request("PUT", &path(Some(&name)), JSON, &config_map(&name, number))
    })
    .await
}

/// Makes the objects that are updated and read, one a client.
pub async fn ensure_objects(endpoint: &Endpoint, clients: usize) -> Result<()> {
    let mut connection = endpoint.connect().await?;
    for client in 0..clients {
        let request = endpoint.request("POST", &path(None), JSON, &config_map(&object(client), 0));
        let (status, body) = connection.call(&request).await?;
        if status != 201 && status != 409 {
            anyhow::bail!("a create was answered {status}: {}", String::from_utf8_lossy(&body));
        }
    }
    Ok(())
}

pub fn object(client: usize) -> String {
    format!("object-{client}")
}

/// The collection's path, or an object's.
pub fn path(name: Option<&str>) -> String {
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    name.map_or(collection.clone(), |name| format!("{collection}/{name}"))
}

/// A ConfigMap whose value differs with the number: what changes nothing is not written.
pub fn config_map(name: &str, number: usize) -> Vec<u8> {
    let value = format!("{number:0>VALUE_BYTES$}");
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}})
        .to_string()
        .into_bytes()
}

/// Runs requests from each client for some time and counts the answers.
pub async fn per_second(
    endpoint: &Endpoint,
    clients: usize,
    lasts: Duration,
    request: impl Fn(&Endpoint, usize, usize) -> Vec<u8> + Clone + Send + 'static,
) -> Result<f64> {
    let mut connections: Vec<Connection> = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(endpoint.connect().await?);
    }
    let began = Instant::now();
    let running: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(client, mut connection)| {
            let (endpoint, request) = (endpoint.clone(), request.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                while began.elapsed() < lasts {
                    connection.ask(&request(&endpoint, client, answered)).await?;
                    answered += 1;
                }
                anyhow::Ok(answered)
            })
        })
        .collect();
    let mut answered = 0;
    for client in running {
        answered += client.await??;
    }
    Ok(answered as f64 / began.elapsed().as_secs_f64())
}
