//! Signs what machines that join are told of the cluster, with each token that is for it: who knows the token sees by the
//! signature that the text comes from somebody who knows it as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine, is_conflict};
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};
use penstock_tokens::bootstrap::{Ends, StoredToken, sign_detached};
use serde_json::{Map, Value, json};

use super::{SELECTOR, token_of};
use crate::context::Context;

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const CONTENT: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

/// Runs the controller. There is one key: the ConfigMap.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        client: context.client(),
        secrets: context.informers.selection(SELECTOR),
        maps: context.informers.cache(),
    });
    let queue = Arc::new(WorkQueue::new());
    tokio::join!(controller.secrets.wait_synced(), controller.maps.wait_synced());
    let key = || Key::new(NAMESPACE, NAME);
    let adder = queue.clone();
    controller.secrets.subscribe(move |_| adder.add(key()));
    let adder = queue.clone();
    controller.maps.subscribe(move |delta| {
        if delta.object().key() == key() {
            adder.add(key());
        }
    });
    run_workers(controller, queue, 1, context.shutdown).await;
}

/// The tokens that sign at a moment, by id, and when there will be fewer of them.
fn plan_signers<'a>(
    tokens: impl Iterator<Item = (&'a str, StoredToken)>,
    now: Timestamp,
) -> (BTreeMap<String, StoredToken>, Option<SignedDuration>) {
    let mut signers = BTreeMap::new();
    let mut next = None;
    for (name, token) in tokens {
        let signs = token.is_named(name) && token.is_for_signing && !token.secret.is_empty();
        if !signs || token.has_ended(now) {
            continue;
        }
        if let Ends::At(end) = token.ends() {
            let left = end.duration_since(now);
            next = Some(next.map_or(left, |next: SignedDuration| next.min(left)));
        }
        signers.insert(token.id.clone(), token);
    }
    (signers, next)
}

/// What must be written so that there is one signature for each of these and no other; `null` takes one away.
fn plan_changes(have: &BTreeMap<String, String>, want: &BTreeMap<String, String>) -> Map<String, Value> {
    let signatures = have.iter().filter(|(key, _)| key.starts_with(SIGNATURE_PREFIX));
    let gone =
        signatures.filter(|(key, _)| !want.contains_key(*key)).map(|(key, _)| (key.clone(), Value::Null));
    let wrong = want.iter().filter(|(key, signature)| have.get(*key) != Some(*signature));
    gone.chain(wrong.map(|(key, signature)| (key.clone(), signature.as_str().into()))).collect()
}

struct Controller {
    client: Client,
    secrets: Arc<Cache<Secret>>,
    maps: Arc<Cache<ConfigMap>>,
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "bootstrap-signer";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(map) = self.maps.get(key).filter(|map| !map.deleting()) else { return Ok(Next::Done) };
        let empty = BTreeMap::new();
        let have = map.data.as_ref().unwrap_or(&empty);
        let Some(content) = have.get(CONTENT) else { return Ok(Next::Done) };
        let secrets = self.secrets.list_namespace(penstock_tokens::bootstrap::NAMESPACE);
        let tokens = secrets.iter().filter_map(|secret| Some((secret.name(), token_of(secret)?)));
        let (signers, next) = plan_signers(tokens, Timestamp::now());
        let mut want = BTreeMap::new();
        for (id, token) in &signers {
            match sign_detached(content, id, &token.secret) {
                Ok(signature) => drop(want.insert(format!("{SIGNATURE_PREFIX}{id}"), signature)),
                Err(error) => tracing::warn!(token = id, %error, "a bootstrap token cannot sign"),
            }
        }
        let changes = plan_changes(have, &want);
        if !changes.is_empty() {
            let patch = json!({"metadata": {"uid": map.uid_str(), "resourceVersion": map.metadata.resource_version},
                "data": changes});
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE);
            match api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await {
                // It changed, so it is in the queue again.
                Err(error) if is_conflict(&error) => {}
                other => drop(gone_is_fine(other).during(|| format!("signing {key}"))?),
            }
        }
        let left = next.and_then(|left| std::time::Duration::try_from(left).ok());
        Ok(left.map_or(Next::Done, Next::After))
    }
}

#[cfg(test)]
mod tests {
    use penstock_tokens::bootstrap::keys;

    use super::*;

    fn token(id: &str, expiration: &str, signing: &str) -> StoredToken {
        StoredToken::read(|key| {
            Some(match key {
                keys::ID => id.to_owned(),
                keys::SECRET => "0123456789abcdef".to_owned(),
                keys::EXPIRATION => expiration.to_owned(),
                keys::SIGNING => signing.to_owned(),
                _ => return None,
            })
        })
    }

    #[test]
    fn tokens_sign_while_they_live_and_if_they_are_for_it() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let all = [
            ("bootstrap-token-aaaaaa", token("aaaaaa", "", "true")),
            ("bootstrap-token-bbbbbb", token("bbbbbb", "2026-01-01T00:01:00Z", "true")),
            ("bootstrap-token-cccccc", token("cccccc", "2026-01-01T00:00:10Z", "true")),
            ("bootstrap-token-dddddd", token("dddddd", "2025-01-01T00:00:00Z", "true")),
            ("bootstrap-token-eeeeee", token("eeeeee", "", "")),
            ("bootstrap-token-ffffff", token("gggggg", "", "true")),
        ];
        let (signers, next) = plan_signers(all.into_iter(), now);
        assert_eq!(signers.into_keys().collect::<Vec<_>>(), ["aaaaaa", "bbbbbb", "cccccc"]);
        assert_eq!(next, Some(SignedDuration::from_secs(10)));
    }

    #[test]
    fn only_signatures_are_written_and_taken_away() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let have =
            map(&[("kubeconfig", "x"), ("jws-kubeconfig-a", "1"), ("jws-kubeconfig-b", "2"), ("note", "y")]);
        let want = map(&[("jws-kubeconfig-a", "1"), ("jws-kubeconfig-c", "3")]);
        let changes = plan_changes(&have, &want);
        assert_eq!(Value::Object(changes), json!({"jws-kubeconfig-b": null, "jws-kubeconfig-c": "3"}));
        assert!(plan_changes(&want, &want).is_empty());
    }
}
