//! Service-account tokens bound to a pod: asked for once, renewed when four fifths of their life are over.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ServiceAccount, ServiceAccountTokenProjection};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;

use super::VolumeError;
use crate::desired::Desired;

const LIFE_SECONDS: i64 = 3607;

/// See the module. Bounded by the node's pods: forgotten with them.
#[derive(Default)]
pub struct Tokens {
    known: Mutex<HashMap<(String, String), (String, Instant)>>,
}

impl Tokens {
    /// A token that is good for some time to come.
    pub async fn token(
        &self,
        client: &kube::Client,
        desired: &Desired,
        source: &ServiceAccountTokenProjection,
    ) -> Result<String, VolumeError> {
        let audience = source.audience.clone().unwrap_or_default();
        let key = (desired.uid.clone(), format!("{audience}/{}", source.path));
        if let Some((token, renew_at)) = self.known.lock().get(&key)
            && Instant::now() < *renew_at
        {
            return Ok(token.clone());
        }
        let life = source.expiration_seconds.unwrap_or(LIFE_SECONDS);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!audience.is_empty()).then(|| vec![audience]),
                expiration_seconds: Some(life),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(desired.name.clone()),
                    uid: Some(desired.uid.clone()),
                }),
            }),
            ..Default::default()
        };
        let account = desired.spec().service_account_name.as_deref().unwrap_or("default");
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &desired.namespace);
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        let token = answer.status.and_then(|s| s.token).unwrap_or_default();
        let renew_in = Duration::from_secs(u64::try_from(life).unwrap_or(3600) * 4 / 5);
        self.known.lock().insert(key, (token.clone(), Instant::now() + renew_in));
        Ok(token)
    }

    /// Forgets the tokens of a pod.
    pub fn forget(&self, uid: &str) {
        self.known.lock().retain(|(pod, _), _| pod != uid);
    }
}
