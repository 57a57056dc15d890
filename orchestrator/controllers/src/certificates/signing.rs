//! Signs approved requests to the built-in signers, or says why it does not.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::PostParams;
use kube::{Api, Client};
use penstock_certificates::{Authority, AuthorityError, Lifetime, Request, UnknownUsage, Usages};
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};

use super::signers::{Refusal, Signer};
use super::{APPROVED, DENIED, FAILED, certificate, condition, with_condition};
use crate::context::Context;

/// What upstream says of a request that its signer refuses.
const REASON: &str = "SignerValidationFailure";
/// Nobody gets less by asking for less.
const LIFE_MIN: Duration = Duration::from_secs(600);

/// Runs the controller, if there is a key to sign with.
pub async fn run(context: Context) {
    let Some(files) = &context.config.signer else {
        tracing::info!(
            "approved requests for certificates are not signed here: the authority's key is with the API server's own control plane"
        );
        return;
    };
    let authority = match Authority::parse(&files.certificate_pem, &files.key_pem) {
        Ok(authority) => authority,
        Err(error) => {
            tracing::error!(%error, "approved requests for certificates are not signed");
            return;
        }
    };
    let controller = Arc::new(Controller {
        client: context.client(),
        requests: context.informers.cache(),
        authority,
        life_max: context.config.signing_duration,
    });
    let queue = Arc::new(WorkQueue::new());
    controller.requests.wait_synced().await;
    let adder = queue.clone();
    controller.requests.subscribe(move |delta| adder.add(delta.object().key()));
    run_workers(controller, queue, 1, context.shutdown).await;
}

/// Something to sign.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    request: Request,
    usages: Usages,
    life: Duration,
}

/// Why there is nothing to sign, and never will be.
#[derive(Debug, thiserror::Error)]
enum Unsigned {
    #[error(transparent)]
    Request(#[from] penstock_certificates::RequestError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Usage(#[from] UnknownUsage),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// What is to be signed of a request; nothing while it is not approved, when it is done, and when it is another's.
fn plan_order(object: &CertificateSigningRequest, life_max: Duration) -> Result<Option<Order>, Unsigned> {
    let is_over =
        certificate(object).is_some() || [FAILED, DENIED].iter().any(|it| condition(object, it).is_some());
    let Some(signer) = Signer::named(&object.spec.signer_name) else {
        return Ok(None);
    };
    if is_over || condition(object, APPROVED).is_none() {
        return Ok(None);
    }
    let request = Request::parse(&object.spec.request.0)?;
    let usages = object.spec.usages.as_deref().unwrap_or_default();
    signer.judge(&request, usages)?;
    let asked = object.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    // What the cluster gives at most is the last word, also where it is less than the least.
    let life = asked.map_or(life_max, |seconds| Duration::from_secs(seconds).max(LIFE_MIN).min(life_max));
    Ok(Some(Order { request, usages: Usages::named(usages.iter().map(String::as_str))?, life }))
}

struct Controller {
    client: Client,
    requests: Arc<Cache<CertificateSigningRequest>>,
    authority: Authority,
    life_max: Duration,
}

// === impl Controller ===

impl Controller {
    /// The object as it is to be stored, if there is anything to say.
    fn answer(
        &self,
        object: &CertificateSigningRequest,
        now: SystemTime,
    ) -> Option<CertificateSigningRequest> {
        let signed = plan_order(object, self.life_max).and_then(|order| {
            let sign =
                |it: Order| self.authority.grant(&it.request, &it.usages, Lifetime::from_now(now, it.life));
            Ok(order.map(sign).transpose()?)
        });
        match signed {
            Ok(None) => None,
            Ok(Some(pem)) => {
                let mut signed = object.clone();
                signed.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
                Some(signed)
            }
            Err(why) => Some(with_condition(object, FAILED, REASON, &why.to_string())),
        }
    }
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "certificate-signing";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let answer = self.requests.get(key).and_then(|object| self.answer(&object, SystemTime::now()));
        if let Some(answer) = answer {
            let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
            gone_is_fine(api.replace_status(answer.name(), &PostParams::default(), &answer).await)
                .during(|| format!("signing {key}"))?;
        }
        Ok(Next::Done)
    }
}

#[cfg(test)]
pub(super) mod tests;
