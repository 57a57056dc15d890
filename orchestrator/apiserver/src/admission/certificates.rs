//! Who may approve and sign requests for certificates, and what nobody may ask for: upstream's CertificateApproval,
//! CertificateSigning and CertificateSubjectRestriction.
//!
//! Whether somebody may do so with a signer is a question to the authoriser about the resource `signers`, which has no
//! objects: the verb `approve` or `sign` on the signer's name, or on `<its domain>/*`.

use async_trait::async_trait;
use penstock_certificates::Request;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::authz::{self, MASTERS};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::kinds::certificates::certificatesigningrequests::decoded;
use crate::registry::object::str_at;

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";
const API_SERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// `/approval` is for approvers of the signer.
pub struct CertificateApproval;
/// Certificates and conditions in `/status` are for the signer.
pub struct CertificateSigning;
/// Nobody asks for the group that may do everything.
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateApproval {
    async fn validate(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        _: Option<&Value>,
    ) -> Result<(), ApiError> {
        match updated(attributes, "approval") {
            Some(old) => authorize(registry, attributes, "approve", old).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Plugin for CertificateSigning {
    async fn validate(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let (Some(old), Some(new)) = (updated(attributes, "status"), object) else {
            return Ok(());
        };
        let is_same = |pointer: &str| new.pointer(pointer) == old.pointer(pointer);
        if is_same("/status/certificate") && is_same("/status/conditions") {
            return Ok(());
        }
        authorize(registry, attributes, "sign", old).await
    }
}

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    async fn validate(
        &self,
        _: &Registry,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(new) = object.filter(|_| attributes.is(Operation::Create, GROUP, PLURAL)) else {
            return Ok(());
        };
        if str_at(new, "/spec/signerName") != API_SERVER_CLIENT {
            return Ok(());
        }
        let request = Request::parse(&decoded(new, "/spec/request"))
            .map_err(|error| attributes.forbidden(format!("failed to parse CSR: {error}")))?;
        if request.organizations.iter().any(|group| group == MASTERS) {
            return Err(attributes.forbidden(format!(
                "use of {API_SERVER_CLIENT} signer with {MASTERS} group is not allowed"
            )));
        }
        Ok(())
    }
}

/// The stored request of an update of one of its subresources.
fn updated<'a>(attributes: &Attributes<'a>, subresource: &str) -> Option<&'a Value> {
    let is_about = attributes.definition.group == GROUP && attributes.definition.plural == PLURAL;
    let is_update = attributes.operation == Operation::Update && attributes.subresource == subresource;
    attributes.old.filter(|_| is_about && is_update)
}

/// By the stored signer's name: what an updater says it is does not count.
async fn authorize(
    registry: &Registry,
    attributes: &Attributes<'_>,
    verb: &str,
    old: &Value,
) -> Result<(), ApiError> {
    // There is nobody to ask until there is a server.
    let Some(authorizer) = registry.admission().authorizer().upgrade() else {
        return Ok(());
    };
    let signer = str_at(old, "/spec/signerName");
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer, &format!("{domain}/*")] {
        let asked = authz::Attributes::on(verb, GROUP, "signers", "", name);
        if authorizer.decide(&attributes.context.user, &asked).await.is_allowed() {
            return Ok(());
        }
    }
    Err(attributes.forbidden(format!("user not permitted to {verb} requests with signerName {signer:?}")))
}
