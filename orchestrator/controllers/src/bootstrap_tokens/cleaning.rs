//! Deletes bootstrap tokens when they have ended.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine, is_conflict};
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};
use penstock_tokens::bootstrap::{Ends, StoredToken};

use super::{SELECTOR, token_of};
use crate::context::Context;

/// Runs the controller. Its key is the Secret.
pub async fn run(context: Context) {
    let controller =
        Arc::new(Controller { client: context.client(), secrets: context.informers.selection(SELECTOR) });
    let queue = Arc::new(WorkQueue::new());
    controller.secrets.wait_synced().await;
    let adder = queue.clone();
    controller.secrets.subscribe(move |delta| adder.add(delta.object().key()));
    run_workers(controller, queue, 1, context.shutdown).await;
}

/// What is to become of a token.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Keep,
    LookAgainIn(Duration),
    Delete,
}

fn plan(token: &StoredToken, now: Timestamp) -> Plan {
    match token.ends() {
        Ends::Never => Plan::Keep,
        Ends::Unreadable => Plan::Delete,
        Ends::At(end) => match Duration::try_from(end.duration_since(now)) {
            Ok(left) if !left.is_zero() => Plan::LookAgainIn(left),
            _ => Plan::Delete,
        },
    }
}

struct Controller {
    client: Client,
    secrets: Arc<Cache<Secret>>,
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "token-cleaner";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(secret) = self.secrets.get(key) else { return Ok(Next::Done) };
        let Some(token) = token_of(&secret) else { return Ok(Next::Done) };
        match plan(&token, Timestamp::now()) {
            Plan::Keep => return Ok(Next::Done),
            Plan::LookAgainIn(left) => return Ok(Next::After(left)),
            Plan::Delete => {}
        }
        // Not one that was given a longer life meanwhile.
        let preconditions = Some(Preconditions {
            uid: secret.metadata.uid.clone(),
            resource_version: secret.metadata.resource_version.clone(),
        });
        let api: Api<Secret> = Api::namespaced(self.client.clone(), secret.ns());
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match api.delete(secret.name(), &parameters).await {
            // It changed, so it is in the queue again.
            Err(error) if is_conflict(&error) => {}
            other => {
                drop(gone_is_fine(other).during(|| format!("deleting the ended bootstrap token {key}"))?)
            }
        }
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use penstock_tokens::bootstrap::keys;

    use super::*;

    #[test]
    fn a_token_goes_when_it_has_ended_and_not_before() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let plan = |expiration: &str| {
            let token = StoredToken::read(|key| (key == keys::EXPIRATION).then(|| expiration.to_owned()));
            plan(&token, now)
        };
        assert_eq!(plan(""), Plan::Keep);
        assert_eq!(plan("2026-01-01T00:00:30Z"), Plan::LookAgainIn(Duration::from_secs(30)));
        assert_eq!(plan("2026-01-01T00:00:00Z"), Plan::Delete);
        assert_eq!(plan("2025-01-01T00:00:00Z"), Plan::Delete);
        assert_eq!(plan("soon"), Plan::Delete);
    }
}
