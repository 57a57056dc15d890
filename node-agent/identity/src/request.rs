//! Asking the cluster for a certificate: a key that never leaves the node, a request for it, and the answer.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::wait::{self, await_condition};
use kube::{Api, Client};
use penstock_process::private_files::FileError;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use x509_parser::pem::parse_x509_pem;

use crate::certificate::{Facts, group, user_of};

/// A watch that broke is begun again after so long.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be the node before the API server.
    Client,
    /// To serve under these names and addresses.
    Serving { names: Vec<String> },
}

/// A key and a request for it, both PEM.
pub struct Prepared {
    pub key_pem: String,
    request_pem: String,
    purpose: Purpose,
}

/// What has become of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Undecided,
    /// Somebody approved it; the signer has not come to it.
    Approved,
    Issued {
        certificate_pem: String,
    },
    Denied {
        why: String,
    },
    Failed {
        why: String,
    },
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("a key and a request for it cannot be made")]
    Make {
        #[source]
        source: rcgen::Error,
    },
    #[error("the API server could not be asked for a certificate")]
    Ask {
        #[source]
        source: Box<kube::Error>,
    },
    #[error("the request for a certificate, {name}, was denied{why}")]
    Denied { name: String, why: String },
    #[error("the request for a certificate, {name}, has failed{why}")]
    Failed { name: String, why: String },
    #[error("the request for a certificate, {name}, was deleted before it was answered")]
    Gone { name: String },
    #[error("the certificate of {name} is not for the key and the names that were asked for")]
    Other { name: String },
    #[error("the request for a certificate, {name}, is not answered: see that the cluster's controllers run")]
    Unanswered { name: String },
    #[error("the certificate cannot be kept")]
    Write {
        #[source]
        source: FileError,
    },
}

// === impl Purpose ===

impl Purpose {
    fn signer(&self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving { .. } => "kubernetes.io/kubelet-serving",
        }
    }

    fn usages(&self) -> Vec<String> {
        let usage = match self {
            Self::Client => "client auth",
            Self::Serving { .. } => "server auth",
        };
        ["digital signature", usage].map(str::to_owned).to_vec()
    }

    /// What requests are called, so that whoever approves them sees whose they are.
    fn name_prefix(&self, node: &str) -> String {
        match self {
            Self::Client => format!("node-client-{node}-"),
            Self::Serving { .. } => format!("node-serving-{node}-"),
        }
    }
}

// === impl Prepared ===

impl Prepared {
    /// A new key of P-256 for a node, and the request for it.
    pub fn new(node: &str, purpose: Purpose) -> Result<Self, RequestError> {
        let made = || {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let names = match &purpose {
                Purpose::Client => Vec::new(),
                Purpose::Serving { names } => names.clone(),
            };
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, group());
            params.distinguished_name.push(DnType::CommonName, user_of(node));
            let request_pem = params.serialize_request(&key)?.pem()?;
            Ok((key.serialize_pem(), request_pem))
        };
        let (key_pem, request_pem) = made().map_err(|source| RequestError::Make { source })?;
        Ok(Self { key_pem, request_pem, purpose })
    }

    /// Gives the request to the API server; its name there.
    pub async fn submit(&self, client: &Client, node: &str) -> Result<String, kube::Error> {
        let request = CertificateSigningRequest {
            metadata: ObjectMeta {
                generate_name: Some(self.purpose.name_prefix(node)),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(self.request_pem.clone().into_bytes()),
                signer_name: self.purpose.signer().to_owned(),
                usages: Some(self.purpose.usages()),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let api: Api<CertificateSigningRequest> = Api::all(client.clone());
        let created = api.create(&PostParams::default(), &request).await?;
        Ok(created.metadata.name.unwrap_or_default())
    }
}

/// Waits until a request is decided otherwise than `than`, or gone.
async fn changed(client: &Client, name: &str, than: &Answer) -> Result<Option<Answer>, wait::Error> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let is_other = |object: Option<&CertificateSigningRequest>| object.is_none_or(|it| read(it) != *than);
    Ok(await_condition(api, name, is_other).await?.as_ref().map(read))
}

/// Waits for the certificate of a request. `waiting` is told what it waits for, each time that changes.
///
/// # Errors
/// What the request came to. That the server cannot be reached is waited for.
pub async fn certificate(
    client: &Client,
    name: &str,
    mut waiting: impl FnMut(&Answer),
) -> Result<String, RequestError> {
    let mut answer = Answer::Undecided;
    let named = || name.to_owned();
    loop {
        match answer {
            Answer::Issued { certificate_pem } => return Ok(certificate_pem),
            Answer::Denied { why } => return Err(RequestError::Denied { name: named(), why }),
            Answer::Failed { why } => return Err(RequestError::Failed { name: named(), why }),
            Answer::Undecided | Answer::Approved => {}
        }
        waiting(&answer);
        answer = match changed(client, name, &answer).await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(RequestError::Gone { name: named() }),
            Err(error) => {
                // A watch that broke; the server may be away for a moment.
                tracing::debug!(request = name, %error, "the answer to a request is waited for anew");
                tokio::time::sleep(WATCH_AGAIN).await;
                answer
            }
        };
    }
}

/// Whether a certificate is what a node asked for: another one would break what works.
pub fn is_for(certificate_pem: &str, key_pem: &str, node: &str) -> bool {
    let key = KeyPair::from_pem(key_pem).map(|key| key.subject_public_key_info());
    let parsed = parse_x509_pem(certificate_pem.as_bytes());
    let public_key =
        parsed.ok().and_then(|(_, block)| Some(block.parse_x509().ok()?.public_key().raw.to_vec()));
    let is_ours = public_key.is_some() && public_key == key.ok();
    is_ours && Facts::read(certificate_pem).is_some_and(|facts| facts.node() == Some(node))
}

fn read(request: &CertificateSigningRequest) -> Answer {
    let status = request.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let condition = |kind: &str| conditions.iter().find(|it| it.type_ == kind && it.status == "True");
    let why = |kind: &str| {
        condition(kind).map(|it| {
            let text = [it.reason.as_deref(), it.message.as_deref()].into_iter().flatten();
            let text = text.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
            if text.is_empty() { text } else { format!(" ({text})") }
        })
    };
    let certificate = status.certificate.and_then(|it| String::from_utf8(it.0).ok());
    match certificate.filter(|pem| !pem.is_empty()) {
        Some(certificate_pem) => Answer::Issued { certificate_pem },
        None => match (why("Denied"), why("Failed"), condition("Approved")) {
            (Some(why), ..) => Answer::Denied { why },
            (None, Some(why), _) => Answer::Failed { why },
            (None, None, Some(_)) => Answer::Approved,
            (None, None, None) => Answer::Undecided,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::*;
    use crate::certificate::made;

    fn answered(status: serde_json::Value) -> Answer {
        let object = json!({"metadata": {"name": "r"}, "spec": {"request": "", "signerName": "a.b/c"}, "status": status});
        read(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn an_answer_says_what_and_why() {
        let condition =
            |kind: &str| json!({"type": kind, "status": "True", "reason": "No", "message": "not you"});
        assert_eq!(answered(json!({})), Answer::Undecided);
        assert_eq!(answered(json!({"conditions": [condition("Approved")]})), Answer::Approved);
        let issued = answered(json!({"conditions": [condition("Approved")], "certificate": "eA=="}));
        assert_eq!(issued, Answer::Issued { certificate_pem: "x".to_owned() });
        let why = || " (No: not you)".to_owned();
        assert_eq!(answered(json!({"conditions": [condition("Denied")]})), Answer::Denied { why: why() });
        let failed = answered(json!({"conditions": [condition("Approved"), condition("Failed")]}));
        assert_eq!(failed, Answer::Failed { why: why() });
        let plain = answered(json!({"conditions": [{"type": "Denied", "status": "True"}]}));
        assert_eq!(plain, Answer::Denied { why: String::new() });
    }

    #[test]
    fn a_request_is_the_node_s_and_for_its_own_key() {
        let names = vec!["n".to_owned(), "10.0.0.1".to_owned()];
        for purpose in [Purpose::Client, Purpose::Serving { names }] {
            let prepared = Prepared::new("n", purpose).unwrap();
            let (_, block) = parse_x509_pem(prepared.request_pem.as_bytes()).unwrap();
            let (_, request) = X509CertificationRequest::from_der(&block.contents).unwrap();
            let subject = request.certification_request_info.subject.to_string();
            assert!(subject.contains("O=system:nodes") && subject.contains("CN=system:node:n"), "{subject}");
        }
    }

    #[test]
    fn only_a_certificate_of_the_key_and_the_node_is_taken() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (certificate, key) = made::certificate("n", now, now + Duration::from_secs(60));
        let (other, other_key) = made::certificate("m", now, now + Duration::from_secs(60));
        assert!(is_for(&certificate, &key, "n"));
        assert!(!is_for(&certificate, &other_key, "n"));
        assert!(!is_for(&other, &other_key, "n"));
        assert!(!is_for("", &key, "n") && !is_for(&certificate, "", "n"));
    }
}
