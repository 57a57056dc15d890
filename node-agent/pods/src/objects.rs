//! ConfigMaps, Secrets and other objects pods refer to, read from the API and remembered for a short while.
//!
//! Starting containers ask for fresh ones; refreshing volumes accepts a remembered one, so that a hundred pods with one
//! ConfigMap cost one request. At most [`ENTRIES_MAX`] objects are kept; at the limit what is no longer fresh goes.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::core::Resource;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

const ENTRIES_MAX: usize = 2048;
const FRESH: Duration = Duration::from_secs(10);

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Ask.
    Now,
    /// Up to ten seconds.
    Recent,
}

type Key = (String, String);
type Shelf<K> = Mutex<HashMap<Key, (Instant, Option<K>)>>;

/// See the module.
pub struct Objects {
    client: kube::Client,
    config_maps: Shelf<ConfigMap>,
    secrets: Shelf<Secret>,
}

impl Objects {
    /// Reads through this client.
    pub fn new(client: kube::Client) -> Self {
        Self { client, config_maps: Mutex::default(), secrets: Mutex::default() }
    }

    /// A ConfigMap, `None` when there is none.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        age: Age,
    ) -> Result<Option<ConfigMap>, kube::Error> {
        self.read(&self.config_maps, namespace, name, age).await
    }

    /// A Secret, `None` when there is none.
    pub async fn secret(&self, namespace: &str, name: &str, age: Age) -> Result<Option<Secret>, kube::Error> {
        self.read(&self.secrets, namespace, name, age).await
    }

    async fn read<K>(
        &self,
        shelf: &Shelf<K>,
        namespace: &str,
        name: &str,
        age: Age,
    ) -> Result<Option<K>, kube::Error>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let key = (namespace.to_string(), name.to_string());
        if age == Age::Recent
            && let Some((at, object)) = shelf.lock().get(&key)
            && at.elapsed() < FRESH
        {
            return Ok(object.clone());
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let object = api.get_opt(name).await?;
        let mut shelf = shelf.lock();
        if shelf.len() >= ENTRIES_MAX {
            shelf.retain(|_, (at, _)| at.elapsed() < FRESH);
            if shelf.len() >= ENTRIES_MAX {
                shelf.clear();
            }
        }
        shelf.insert(key, (Instant::now(), object.clone()));
        Ok(object)
    }
}
