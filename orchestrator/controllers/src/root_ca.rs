//! Publishes the cluster's CA bundle as ConfigMap `kube-root-ca.crt` in every namespace, for pods to trust the
//! API server by.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine, is_already_exists, is_namespace_terminating};
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};

use crate::context::Context;

const NAME: &str = "kube-root-ca.crt";
const DATA: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains the CA bundle that verifies the cluster's API server. \
     Do not count on it for anything else.";

/// Runs the controller if there is a CA to publish. Its key is the namespace.
pub async fn run(context: Context) {
    let Some(bundle) = context.config.root_ca_pem.clone() else {
        return;
    };
    let controller = Arc::new(Controller {
        client: context.client(),
        namespaces: context.informers.cache(),
        maps: context.informers.cache(),
        bundle,
    });
    let queue = Arc::new(WorkQueue::new());
    tokio::join!(controller.namespaces.wait_synced(), controller.maps.wait_synced());
    let adder = queue.clone();
    controller.namespaces.subscribe(move |delta| adder.add(delta.object().name().to_owned()));
    let adder = queue.clone();
    controller.maps.subscribe(move |delta| {
        if delta.object().name() == NAME {
            adder.add(delta.object().ns().to_owned());
        }
    });
    run_workers(controller, queue, 2, context.shutdown).await;
}

struct Controller {
    client: Client,
    namespaces: Arc<Cache<Namespace>>,
    maps: Arc<Cache<ConfigMap>>,
    bundle: String,
}

impl Reconcile for Controller {
    type Key = String;
    const NAME: &'static str = "root-ca";

    async fn reconcile(&self, key: &String) -> Result<Next, Failure> {
        let Some(namespace) = self.namespaces.get(&Key::new("", key.as_str())) else {
            return Ok(Next::Done);
        };
        if namespace.deleting() {
            return Ok(Next::Done);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), key);
        let what = || format!("publishing the CA in {key}");
        let existing = self.maps.get(&Key::new(key.as_str(), NAME));
        match existing {
            Some(map)
                if map.data.as_ref().and_then(|d| d.get(DATA)) == Some(&self.bundle)
                    && map.data.as_ref().is_some_and(|d| d.len() == 1) => {}
            Some(map) => {
                // Anything else in there is removed: the map is the cluster's, not the user's.
                let mut data = serde_json::Map::new();
                for other in map.data.iter().flatten().map(|(k, _)| k).filter(|k| *k != DATA) {
                    data.insert(other.clone(), serde_json::Value::Null);
                }
                data.insert(DATA.to_owned(), self.bundle.clone().into());
                let patch = Patch::Merge(serde_json::json!({"data": data}));
                gone_is_fine(api.patch(NAME, &PatchParams::default(), &patch).await).during(what)?;
            }
            None => {
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(NAME.into()),
                        namespace: Some(key.clone()),
                        annotations: Some([(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned())].into()),
                        ..Default::default()
                    },
                    data: Some([(DATA.to_owned(), self.bundle.clone())].into()),
                    ..Default::default()
                };
                match api.create(&PostParams::default(), &map).await {
                    Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) => {}
                    other => drop(other.during(what)?),
                }
            }
        }
        Ok(Next::Done)
    }
}
