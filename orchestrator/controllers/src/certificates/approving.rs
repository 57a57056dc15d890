//! Approves nodes' requests for client certificates, if whoever asks may have them.
//!
//! The question is put to the authoriser, as upstream does: may they create `certificatesigningrequests/selfnodeclient`
//! (for a certificate in their own name) or `/nodeclient` (for any node, as a joining one with a token)?

use std::sync::Arc;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::PostParams;
use kube::{Api, Client};
use penstock_certificates::Request;
use penstock_informers::cache::Cache;
use penstock_informers::failure::{During, gone_is_fine};
use penstock_informers::{Failure, Key, Meta, Next, Reconcile, WorkQueue, run_workers};

use super::signers::Signer;
use super::{APPROVED, DENIED, certificate, condition, with_condition};
use crate::context::Context;

const REASON: &str = "AutoApproved";

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller { client: context.client(), requests: context.informers.cache() });
    let queue = Arc::new(WorkQueue::new());
    controller.requests.wait_synced().await;
    let adder = queue.clone();
    controller.requests.subscribe(move |delta| adder.add(delta.object().key()));
    run_workers(controller, queue, 1, context.shutdown).await;
}

/// What whoever asks must be allowed to create, and what is said if they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    subresource: &'static str,
    message: &'static str,
}

const SELF_NODE_CLIENT: Permission = Permission {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const NODE_CLIENT: Permission = Permission {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// Any of these permissions is enough; none: it is for somebody else to decide.
fn plan_permissions(object: &CertificateSigningRequest) -> Vec<Permission> {
    let decided = condition(object, APPROVED).or(condition(object, DENIED)).is_some();
    if decided || certificate(object).is_some() {
        return Vec::new();
    }
    let spec = &object.spec;
    let usages = spec.usages.as_deref().unwrap_or_default();
    if Signer::named(&spec.signer_name) != Some(Signer::KubeletClient) {
        return Vec::new();
    }
    let Ok(request) = Request::parse(&spec.request.0) else {
        return Vec::new();
    };
    if Signer::KubeletClient.judge(&request, usages).is_err() {
        return Vec::new();
    }
    let is_self = spec.username.as_deref() == Some(request.common_name.as_str());
    if is_self { vec![SELF_NODE_CLIENT, NODE_CLIENT] } else { vec![NODE_CLIENT] }
}

struct Controller {
    client: Client,
    requests: Arc<Cache<CertificateSigningRequest>>,
}

impl Reconcile for Controller {
    type Key = Key;
    const NAME: &'static str = "certificate-approving";

    async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        let Some(object) = self.requests.get(key) else {
            return Ok(Next::Done);
        };
        for permission in plan_permissions(&object) {
            if self.may(&object, permission).await? {
                let approved = with_condition(&object, APPROVED, REASON, permission.message);
                let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
                let params = PostParams::default();
                gone_is_fine(api.replace_subresource("approval", object.name(), &params, &approved).await)
                    .during(|| format!("approving {key}"))?;
                return Ok(Next::Done);
            }
        }
        Ok(Next::Done)
    }
}

impl Controller {
    async fn may(&self, object: &CertificateSigningRequest, permission: Permission) -> Result<bool, Failure> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: object.spec.username.clone(),
                uid: object.spec.uid.clone(),
                groups: object.spec.groups.clone(),
                extra: object.spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    version: Some("*".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    subresource: Some(permission.subresource.to_owned()),
                    verb: Some("create".to_owned()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .during(|| format!("asking who may have {}", object.name()))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::super::signing::tests::{asking, request};
    use super::*;

    #[test]
    fn nodes_are_asked_about_and_nobody_else() {
        let node = request("system:node:n", "system:nodes", &[]);
        let usages = ["client auth", "digital signature"];
        let kubelet = "kubernetes.io/kube-apiserver-client-kubelet";
        let mut own = asking(kubelet, &node, &usages);
        own.spec.username = Some("system:node:n".to_owned());
        assert_eq!(plan_permissions(&own), [SELF_NODE_CLIENT, NODE_CLIENT]);
        let mut joining = own.clone();
        joining.spec.username = Some("system:bootstrap:abc".to_owned());
        assert_eq!(plan_permissions(&joining), [NODE_CLIENT]);

        let denied = with_condition(&own, DENIED, "", "");
        let user = asking(kubelet, &request("jane", "system:nodes", &[]), &usages);
        let serving = asking("kubernetes.io/kubelet-serving", &node, &usages);
        let client = asking("kubernetes.io/kube-apiserver-client", &node, &usages);
        for other in [denied, user, serving, client] {
            assert_eq!(plan_permissions(&other), [], "{other:?}");
        }
    }
}
