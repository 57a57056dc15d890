//! What is signed, for how long, and what is said of the rest.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};

use super::*;

fn params(name: &str, group: &str, names: &[&str]) -> CertificateParams {
    let mut params =
        CertificateParams::new(names.iter().map(|&it| it.to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A request as PEM.
pub(in crate::certificates) fn request(name: &str, group: &str, names: &[&str]) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    params(name, group, names).serialize_request(&key).unwrap().pem().unwrap().into_bytes()
}

pub(in crate::certificates) fn asking(
    signer: &str,
    request: &[u8],
    usages: &[&str],
) -> CertificateSigningRequest {
    let mut object = CertificateSigningRequest::default();
    object.metadata.name = Some("r".to_owned());
    object.spec.signer_name = signer.to_owned();
    object.spec.request = ByteString(request.to_vec());
    object.spec.usages = Some(usages.iter().map(|&it| it.to_owned()).collect());
    object
}

fn authority(ends_at: SystemTime) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = params("ca", "ca", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = ends_at.into();
    Authority::parse(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem()).unwrap()
}

const LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

fn approved(signer: &str, usages: &[&str]) -> CertificateSigningRequest {
    with_condition(&asking(signer, &request("jane", "team", &[]), usages), APPROVED, "r", "m")
}

#[test]
fn only_approved_requests_to_our_signers_are_signed_and_only_once() {
    let order = |object: &CertificateSigningRequest| plan_order(object, LIFE_MAX).unwrap();
    let good = approved(CLIENT, &["client auth"]);
    assert_eq!(order(&good).unwrap().life, LIFE_MAX);
    assert_eq!(order(&asking(CLIENT, &request("jane", "team", &[]), &["client auth"])), None);
    assert_eq!(order(&approved("example.com/s", &["client auth"])), None);
    assert_eq!(order(&with_condition(&good, FAILED, "", "")), None);
    let mut done = good.clone();
    done.status.as_mut().unwrap().certificate = Some(ByteString(b"x".to_vec()));
    assert_eq!(order(&done), None);
}

#[test]
fn a_life_is_as_asked_for_within_bounds() {
    let life_within = |seconds: i32, life_max| {
        let mut object = approved(CLIENT, &["client auth"]);
        object.spec.expiration_seconds = Some(seconds);
        plan_order(&object, life_max).unwrap().unwrap().life
    };
    let life = |seconds| life_within(seconds, LIFE_MAX);
    assert_eq!(life(3600), Duration::from_secs(3600));
    assert_eq!(life(1), LIFE_MIN);
    assert_eq!(life(i32::MAX), LIFE_MAX);
    assert_eq!(life(-1), LIFE_MAX);
    let short = Duration::from_secs(20);
    assert_eq!(life_within(3600, short), short);
}

#[tokio::test]
async fn what_a_signer_refuses_has_failed_and_what_it_signs_ends_with_its_authority() {
    let now = SystemTime::now();
    let end = now + Duration::from_secs(30 * 24 * 3600);
    let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let controller =
        Controller { client, requests: Arc::default(), authority: authority(end), life_max: LIFE_MAX };
    let failed = controller.answer(&approved(CLIENT, &["server auth"]), now).unwrap();
    let condition = condition(&failed, FAILED).unwrap();
    assert_eq!(condition.reason.as_deref(), Some(REASON));
    assert!(condition.message.as_ref().unwrap().contains("server auth"), "{condition:?}");

    let signed = controller.answer(&approved(CLIENT, &["client auth"]), now).unwrap();
    let ends_at = penstock_certificates::expiry(certificate(&signed).unwrap()).unwrap();
    assert!(ends_at <= end && end < ends_at + Duration::from_secs(2));

    let late =
        controller.answer(&approved(CLIENT, &["client auth"]), end + Duration::from_secs(3600)).unwrap();
    assert!(super::condition(&late, FAILED).unwrap().message.as_ref().unwrap().contains("expired"));
}
