//! Puts the definition of address pools into the cluster, and keeps it at this version of ours.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::{Api, Client};
use penstock_informers::failure::{is_already_exists, is_conflict};
use serde_json::Value;

use crate::address_pool;

/// Between two looks at whether the definition is served, and between attempts that failed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Returns when the kind is served with our definition of it.
pub async fn ensure_definition(client: &Client) {
    let mut delay = LOOK_AGAIN;
    loop {
        match ensure_once(client).await {
            Ok(true) => return,
            Ok(false) => delay = LOOK_AGAIN,
            Err(error) => {
                tracing::debug!(%error, ?delay, "the definition of address pools is not in place yet");
                delay = (delay * 2).min(RETRY_MAX);
            }
        }
        tokio::time::sleep(delay).await;
    }
}

/// True when the definition is ours and established.
async fn ensure_once(client: &Client) -> Result<bool, kube::Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let wanted: CustomResourceDefinition =
        serde_json::from_value(address_pool::definition()).map_err(kube::Error::SerdeError)?;
    let name = wanted.metadata.name.clone().unwrap_or_default();
    let Some(mut present) = api.get_opt(&name).await? else {
        return match api.create(&PostParams::default(), &wanted).await {
            Ok(_) => Ok(false),
            Err(error) if is_already_exists(&error) => Ok(false),
            Err(error) => Err(error),
        };
    };
    if present.metadata.deletion_timestamp.is_some() {
        // Somebody removes it; when it is gone it is made again.
        return Ok(false);
    }
    let text =
        |crd: &CustomResourceDefinition| serde_json::to_value(&crd.spec.versions).unwrap_or(Value::Null);
    if text(&present) != text(&wanted) {
        present.spec.versions = wanted.spec.versions;
        return match api.replace(&name, &PostParams::default(), &present).await {
            Ok(_) => Ok(false),
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        };
    }
    let conditions = present.status.and_then(|status| status.conditions).unwrap_or_default();
    Ok(conditions.iter().any(|c| c.type_ == "Established" && c.status == "True"))
}
