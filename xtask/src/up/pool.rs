//! Addresses for load balancers: a pool on the node network, where the host reaches them and nobody else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::json;

use crate::cluster::layout::Layout;

const NAME: &str = "nodes";
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// The kind is served once the orchestrator has installed it.
const SERVED_TIMEOUT: Duration = Duration::from_secs(90);

/// Creates the pool, if the cluster does not have it from before.
pub async fn install(layout: &Layout, client: &Client) -> Result<()> {
    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("penstock.io", "v1alpha1", "AddressPool"),
        "addresspools",
    );
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let pool = DynamicObject::new(NAME, &kind)
        .data(json!({ "spec": { "addresses": layout.load_balancer_addresses() } }));
    let deadline = Instant::now() + SERVED_TIMEOUT;
    loop {
        match api.create(&PostParams::default(), &pool).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("the API server did not take the pool of load-balancer addresses");
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
