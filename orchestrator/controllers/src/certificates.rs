//! Requests for certificates: those of nodes are approved, approved ones signed, old ones removed (docs/adr/0043).
//!
//! [`signers`] says what the four built-in signers ask of a request; everything here knows upstream's names for them.

pub mod approving;
pub mod cleaning;
pub mod signers;
pub mod signing;

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|it| it.type_ == kind && it.status == "True")
}

/// The certificate, once there is one.
fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let issued = request.status.as_ref()?.certificate.as_ref()?;
    (!issued.0.is_empty()).then_some(&issued.0)
}

/// The request with one more condition.
fn with_condition(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
) -> CertificateSigningRequest {
    let mut changed = request.clone();
    let status = changed.status.get_or_insert_with(CertificateSigningRequestStatus::default);
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..Default::default()
    });
    changed
}
