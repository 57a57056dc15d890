//! Secrets of type `kubernetes.io/service-account-token`: they get a token of their service account, the cluster's CA and
//! their namespace, and go with the account.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine, is_conflict};
use penstock_informers::{EventType, Failure, Key, Meta, Next, Reconcile, Recorder, WorkQueue, run_workers};
use penstock_tokens::{Issuer, Reference};
use serde_json::{Map, Value, json};

use crate::context::Context;

const SELECTOR: &str = "type=kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";
const TOKEN: &str = "token";

/// What is to become of a Secret.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// Its account is gone, or is another one of that name.
    Delete,
    /// The keys of its data that are missing or wrong; the UID is written in any case.
    Fill {
        account_uid: String,
        missing: Vec<&'static str>,
    },
}

/// Runs the controller if there is a key to sign with. Its key is the Secret.
pub async fn run(context: Context) {
    let (Some(key), Some(ca)) = (&context.config.token_key_pem, &context.config.root_ca_pem) else {
        tracing::info!(
            "Secrets of type kubernetes.io/service-account-token get no tokens here: only a process with the cluster's data directory signs"
        );
        return;
    };
    let issuer = match Issuer::new(key.0.as_bytes(), "", &[]) {
        Ok(issuer) => issuer,
        Err(error) => {
            tracing::error!(%error, "Secrets of type kubernetes.io/service-account-token get no tokens");
            return;
        }
    };
    let controller = Arc::new(Controller {
        client: context.client(),
        recorder: context.recorder("service-account-token"),
        secrets: context.informers.selection(SELECTOR),
        accounts: context.informers.cache(),
        issuer,
        ca: ca.clone(),
    });
    let queue = Arc::new(WorkQueue::new());
    tokio::join!(controller.secrets.wait_synced(), controller.accounts.wait_synced());
    let adder = queue.clone();
    controller.secrets.subscribe(move |delta| adder.add(delta.object().key()));
    let (adder, secrets) = (queue.clone(), Arc::downgrade(&controller.secrets));
    controller.accounts.subscribe(move |delta| {
        let account = delta.object();
        let Some(secrets) = secrets.upgrade() else { return };
        let of_account = |secret: &&Arc<Secret>| account_of(secret) == Some(account.name());
        for secret in secrets.list_namespace(account.ns()).iter().filter(of_account) {
            adder.add(secret.key());
        }
    });
    run_workers(controller, queue, 2, context.shutdown).await;
}

struct Controller {
    client: Client,
    recorder: Recorder,
    secrets: Arc<Cache<Secret>>,
    accounts: Arc<Cache<ServiceAccount>>,
    issuer: Issuer,
    ca: String,
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "service-account-token";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(secret) = self.secrets.get(key).filter(|secret| !secret.deleting()) else {
            return Ok(Next::Done);
        };
        let Some(name) = account_of(&secret) else { return Ok(Next::Done) };
        let mut account = self.accounts.get(&Key::new(secret.ns(), name));
        if plan(&secret, account.as_deref(), &self.ca) == Plan::Delete {
            // The account may be newer than what the cache has seen.
            let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), secret.ns());
            let found = api
                .get_opt(name)
                .await
                .during(|| format!("reading service account {}/{name}", secret.ns()))?;
            account = found.map(Arc::new);
        }
        match plan(&secret, account.as_deref(), &self.ca) {
            Plan::Nothing => {}
            Plan::Delete => self.delete(&secret).await?,
            Plan::Fill { account_uid, missing } => {
                let account = Reference { name: name.to_owned(), uid: account_uid };
                self.fill(&secret, &account, &missing).await?;
            }
        }
        Ok(Next::Done)
    }
}

impl Controller {
    async fn delete(&self, secret: &Secret) -> Result<(), Failure> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), secret.ns());
        let preconditions = Preconditions { uid: Some(secret.uid_str().to_owned()), resource_version: None };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let deleted = api.delete(secret.name(), &parameters).await;
        gone_is_fine(deleted)
            .during(|| format!("deleting secret {}, whose service account is gone", secret.key()))?;
        Ok(())
    }

    async fn fill(&self, secret: &Secret, account: &Reference, missing: &[&str]) -> Result<(), Failure> {
        let mut data = Map::new();
        for key in missing {
            let value = match *key {
                CA => self.ca.clone(),
                NAMESPACE => secret.ns().to_owned(),
                _ => match self.issuer.issue_for_secret(secret.ns(), secret.name(), account) {
                    Ok(token) => token,
                    Err(error) => {
                        let why = format!("no token could be signed: {error}");
                        self.recorder.record(secret, EventType::Warning, "FailedToCreateToken", why.as_str());
                        return Err(Failure::again(why));
                    }
                },
            };
            let encoded = serde_json::to_value(ByteString(value.into_bytes()));
            data.insert((*key).to_owned(), encoded.unwrap_or(Value::Null));
        }
        let patch = json!({
            "metadata": {"uid": secret.uid_str(), "resourceVersion": secret.metadata.resource_version,
                "annotations": {ACCOUNT_UID: account.uid}},
            "data": data,
        });
        let api: Api<Secret> = Api::namespaced(self.client.clone(), secret.ns());
        let filled = api.patch(secret.name(), &PatchParams::default(), &Patch::Merge(patch)).await;
        match filled {
            // It changed, so it is in the queue again.
            Err(error) if is_conflict(&error) => Ok(()),
            other => gone_is_fine(other).during(|| format!("filling secret {}", secret.key())).map(drop),
        }
    }
}

fn account_of(secret: &Secret) -> Option<&str> {
    annotation(secret, ACCOUNT_NAME).filter(|name| !name.is_empty())
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Compares a Secret with the account it names.
fn plan(secret: &Secret, account: Option<&ServiceAccount>, ca: &str) -> Plan {
    let Some(account) = account else { return Plan::Delete };
    let noted = annotation(secret, ACCOUNT_UID).filter(|uid| !uid.is_empty());
    if noted.is_some_and(|uid| uid != account.uid_str()) {
        return Plan::Delete;
    }
    let has = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let missing: Vec<&str> = [
        (CA, has(CA) == Some(ca.as_bytes())),
        (NAMESPACE, has(NAMESPACE) == Some(secret.ns().as_bytes())),
        (TOKEN, has(TOKEN).is_some_and(|token| !token.is_empty())),
    ]
    .into_iter()
    .filter_map(|(key, right)| (!right).then_some(key))
    .collect();
    if missing.is_empty() && noted.is_some() {
        return Plan::Nothing;
    }
    Plan::Fill { account_uid: account.uid_str().to_owned(), missing }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn secret(uid: Option<&str>, data: &[(&str, &str)]) -> Secret {
        let mut annotations = [(ACCOUNT_NAME.to_owned(), "bot".to_owned())].to_vec();
        annotations.extend(uid.map(|uid| (ACCOUNT_UID.to_owned(), uid.to_owned())));
        let metadata = ObjectMeta {
            name: Some("bot-token".to_owned()),
            namespace: Some("a".to_owned()),
            annotations: Some(annotations.into_iter().collect()),
            ..ObjectMeta::default()
        };
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        Secret { metadata, data: Some(data.collect()), ..Secret::default() }
    }

    fn account(uid: &str) -> ServiceAccount {
        let metadata = ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() };
        ServiceAccount { metadata, ..ServiceAccount::default() }
    }

    #[test]
    fn an_empty_secret_gets_everything_and_a_full_one_nothing() {
        let fill =
            |missing: &[&'static str]| Plan::Fill { account_uid: "7".to_owned(), missing: missing.to_vec() };
        let plan = |secret: &Secret| plan(secret, Some(&account("7")), "authority");
        assert_eq!(plan(&secret(None, &[])), fill(&[CA, NAMESPACE, TOKEN]));
        let full = [(CA, "authority"), (NAMESPACE, "a"), (TOKEN, "t")];
        assert_eq!(plan(&secret(Some("7"), &full)), Plan::Nothing);
        assert_eq!(plan(&secret(None, &full)), fill(&[]));
        let stale = [(CA, "former"), (NAMESPACE, "a"), (TOKEN, "t")];
        assert_eq!(plan(&secret(Some("7"), &stale)), fill(&[CA]));
    }

    #[test]
    fn a_secret_goes_with_its_account() {
        assert_eq!(plan(&secret(Some("7"), &[]), None, ""), Plan::Delete);
        assert_eq!(plan(&secret(Some("7"), &[]), Some(&account("8")), ""), Plan::Delete);
    }
}
