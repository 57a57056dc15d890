//! Tells in every pool's status how many addresses it has and how many are free.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::{Cache, Failure, Key, Meta, Next, Reconcile};
use serde_json::json;

use crate::address_pool::AddressPool;
use crate::bare_metal::BareMetal;

/// Counts follow changes at once; this is for what no event told.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// See the module.
pub struct Controller {
    pub(crate) client: Client,
    pub(crate) pools: Arc<Cache<AddressPool>>,
    pub(crate) provider: Arc<BareMetal>,
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "address-pools";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(pool) = self.pools.get(key) else { return Ok(Next::Done) };
        let wanted = self.provider.status_of(&pool, Timestamp::now());
        if pool.status.as_ref() != Some(&wanted) {
            let patch = json!({"metadata": {"uid": pool.uid_str()}, "status": wanted});
            let api: Api<AddressPool> = Api::all(self.client.clone());
            let patched = api.patch_status(pool.name(), &PatchParams::default(), &Patch::Merge(&patch)).await;
            gone_is_fine(patched).map(drop).during(|| format!("status of address pool {key}"))?;
        }
        Ok(Next::After(LOOK_AGAIN))
    }
}
