//! The `default` ServiceAccount of every namespace.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use penstock_informers::cache::{Cache, Delta};
use penstock_informers::failure::{During, is_already_exists, is_namespace_terminating};
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};

use crate::context::Context;

const DEFAULT: &str = "default";

/// Runs the controller. Its key is the namespace.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        namespaces: context.informers.cache(),
        accounts: context.informers.cache(),
    });
    let queue = Arc::new(WorkQueue::new());
    tokio::join!(controller.namespaces.wait_synced(), controller.accounts.wait_synced());
    let adder = queue.clone();
    controller.namespaces.subscribe(move |delta| adder.add(delta.object().name().to_owned()));
    let adder = queue.clone();
    controller.accounts.subscribe(move |delta| {
        if let Delta::Deleted(account) = delta
            && account.name() == DEFAULT
        {
            adder.add(account.ns().to_owned());
        }
    });
    run_workers(controller, queue, 2, context.shutdown).await;
}

struct Controller {
    client: Client,
    namespaces: Arc<Cache<Namespace>>,
    accounts: Arc<Cache<ServiceAccount>>,
}

impl Reconcile for Controller {
    type Key = String;
    const NAME: &'static str = "service-account";

    async fn reconcile(&self, key: &String) -> Result<Next, Failure> {
        let Some(namespace) = self.namespaces.get(&Key::new("", key.as_str())) else {
            return Ok(Next::Done);
        };
        if namespace.deleting() || self.accounts.get(&Key::new(key.as_str(), DEFAULT)).is_some() {
            return Ok(Next::Done);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(DEFAULT.into()),
                namespace: Some(key.clone()),
                ..Default::default()
            },
            ..Default::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), key);
        match api.create(&PostParams::default(), &account).await {
            Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) => Ok(Next::Done),
            other => other.map(|_| Next::Done).during(|| format!("creating the default account of {key}")),
        }
    }
}
