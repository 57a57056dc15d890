//! Removes requests that served their purpose or never will.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};

use super::{APPROVED, DENIED, FAILED, certificate, condition};
use crate::context::Context;

/// How long others have to read an answer.
const ANSWERED: Duration = Duration::from_secs(3600);
/// How long a request waits for an answer.
const WAITING: Duration = Duration::from_secs(24 * 3600);

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller { client: context.client(), requests: context.informers.cache() });
    let queue = Arc::new(WorkQueue::new());
    controller.requests.wait_synced().await;
    let adder = queue.clone();
    controller.requests.subscribe(move |delta| adder.add(delta.object().key()));
    run_workers(controller, queue, 1, context.shutdown).await;
}

/// When the request is to go; `None` if it says nothing about its age.
fn plan_end(object: &CertificateSigningRequest) -> Option<SystemTime> {
    let since = |time: &Option<Time>, keep: Duration| Some(SystemTime::from(time.as_ref()?.0) + keep);
    let after = |kind: &str, keep| since(&condition(object, kind)?.last_update_time, keep);
    let kept_approved = if certificate(object).is_some() { ANSWERED } else { WAITING };
    let is_undecided =
        object.status.as_ref().and_then(|it| it.conditions.as_ref()).is_none_or(|all| all.is_empty());
    let unanswered = is_undecided.then(|| since(&object.metadata.creation_timestamp, WAITING)).flatten();
    let expired = certificate(object).and_then(penstock_certificates::expiry);
    let ends = [
        after(APPROVED, kept_approved),
        after(DENIED, ANSWERED),
        after(FAILED, ANSWERED),
        unanswered,
        expired,
    ];
    ends.into_iter().flatten().min()
}

struct Controller {
    client: Client,
    requests: Arc<Cache<CertificateSigningRequest>>,
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "certificate-cleaning";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(object) = self.requests.get(key).filter(|it| !it.deleting()) else {
            return Ok(Next::Done);
        };
        let Some(end) = plan_end(&object) else {
            return Ok(Next::Done);
        };
        if let Ok(left) = end.duration_since(SystemTime::now())
            && !left.is_zero()
        {
            return Ok(Next::After(left));
        }
        let preconditions = Some(Preconditions {
            uid: object.metadata.uid.clone(),
            resource_version: object.metadata.resource_version.clone(),
        });
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        gone_is_fine(
            api.delete(object.name(), &DeleteParams { preconditions, ..DeleteParams::default() }).await,
        )
        .during(|| format!("deleting {key}"))?;
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_when_their_answer_was_there_for_long_enough() {
        let ends_after = |conditions: &[&str], certificate: &str| {
            let all: Vec<_> = conditions
                .iter()
                .map(|it| serde_json::json!({"type": it, "status": "True", "lastUpdateTime": "1970-01-01T01:00:00Z"}))
                .collect();
            let object: CertificateSigningRequest = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "r", "creationTimestamp": "1970-01-01T00:00:00Z"},
                "spec": {"request": "", "signerName": "a.b/c"},
                "status": {"conditions": all, "certificate": certificate},
            }))
            .unwrap();
            plan_end(&object).map(|end| end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 3600)
        };
        assert_eq!(ends_after(&[], ""), Some(24));
        assert_eq!(ends_after(&["Approved"], ""), Some(25));
        assert_eq!(ends_after(&["Approved"], "eA=="), Some(2));
        assert_eq!(ends_after(&["Denied"], ""), Some(2));
        assert_eq!(ends_after(&["Approved", "Failed"], ""), Some(2));
        assert_eq!(ends_after(&["Else"], ""), None);
    }

    #[test]
    fn an_expired_certificate_goes_at_once() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        let pem = params.self_signed(&key).unwrap().pem();
        let mut object = super::super::signing::tests::asking("a.b/c", b"", &[]);
        object.status.get_or_insert_default().certificate = Some(k8s_openapi::ByteString(pem.into_bytes()));
        assert!(plan_end(&object).unwrap() < SystemTime::now());
    }
}
