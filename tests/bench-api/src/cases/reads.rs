//! Gets of one small object from each client.

use std::time::Duration;

use anyhow::Result;

use super::writes::{JSON, ensure_objects, object, path, per_second};
use crate::http::Endpoint;

/// Gets a second.
pub async fn gets(endpoint: &Endpoint, clients: usize, lasts: Duration) -> Result<f64> {
    ensure_objects(endpoint, clients).await?;
    per_second(endpoint, clients, lasts, |endpoint, client, _| {
        endpoint.request("GET", &path(Some(&object(client))), JSON, b"")
    })
    .await
}
