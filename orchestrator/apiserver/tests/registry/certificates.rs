//! Requests for certificates: what is refused, and what of their status may be written where.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use penstock_apiserver::error::ApiError;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use crate::cluster::Cluster;

const KIND: &str = "certificatesigningrequests";

fn params(name: &str, groups: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A signed request for a new key, as `spec.request` holds it.
pub fn request(name: &str, groups: &[&str]) -> String {
    let key = KeyPair::generate().unwrap();
    STANDARD.encode(params(name, groups).serialize_request(&key).unwrap().pem().unwrap())
}

/// Some certificate, as `status.certificate` holds it.
pub fn certificate() -> String {
    STANDARD.encode(params("x", &[]).self_signed(&KeyPair::generate().unwrap()).unwrap().pem())
}

fn asking(name: &str, signer: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"request": request("jane", &[]), "signerName": signer,
        "usages": ["client auth"], "expirationSeconds": 600}})
}

/// Paths and words of what is wrong.
fn causes(error: &ApiError) -> String {
    let status = error.status();
    let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
    let texts = causes.iter().map(|it| format!("{}: {}", it["field"], it["message"]));
    texts.collect::<Vec<_>>().join("\n")
}

fn conditions(object: &mut Value, kinds: &[&str]) {
    let all: Vec<_> =
        kinds.iter().map(|kind| json!({"type": kind, "status": "True", "reason": "R"})).collect();
    object["status"]["conditions"] = json!(all);
}

#[tokio::test]
async fn what_is_asked_for_must_make_sense() {
    let cluster = Cluster::start().await;
    let refused = async |change: &dyn Fn(&mut Value)| {
        let mut object = asking("bad", "example.com/s");
        change(&mut object);
        causes(&cluster.create(KIND, object).await.unwrap_err())
    };
    let told = refused(&|it| it["spec"]["request"] = STANDARD.encode("hello").into()).await;
    assert!(told.contains("spec.request") && told.contains("CERTIFICATE REQUEST"), "{told}");
    let told = refused(&|it| it["spec"]["request"] = certificate().into()).await;
    assert!(told.contains("spec.request"), "{told}");
    let told = refused(&|it| it["spec"]["usages"] = json!(["client auth", "fly", "client auth"])).await;
    assert!(told.contains("spec.usages[1]") && told.contains("spec.usages[2]"), "{told}");
    let told = refused(&|it| it["spec"]["usages"] = json!([])).await;
    assert!(told.contains("spec.usages"), "{told}");
    let told = refused(&|it| it["spec"]["expirationSeconds"] = 599.into()).await;
    assert!(told.contains("600 seconds"), "{told}");
    for signer in ["", "noslash", "nodots/x", "a.b/c/d", "A.b/c", "a.b/C", "kubernetes.io/legacy-unknown"] {
        let told = refused(&|it| it["spec"]["signerName"] = signer.into()).await;
        assert!(told.contains("spec.signerName"), "{signer}: {told}");
    }
    let made = cluster.create(KIND, asking("good", "example.com/a.b-c")).await.unwrap();
    assert_eq!(made["spec"]["username"], "test");
}

#[tokio::test]
async fn what_was_asked_for_stays() {
    let cluster = Cluster::start().await;
    let made = cluster.create(KIND, asking("a", "example.com/s")).await.unwrap();
    let mut other = made.clone();
    other["spec"]["request"] = request("joe", &[]).into();
    other["spec"]["username"] = "joe".into();
    conditions(&mut other, &["Approved"]);
    other["metadata"]["labels"] = json!({"a": "b"});
    for sub in [None, Some("status")] {
        let mut other = other.clone();
        other["metadata"]["resourceVersion"] = "".into();
        if sub.is_some() {
            conditions(&mut other, &[]);
        }
        let stored = cluster.update(KIND, sub, &other).await.unwrap();
        assert_eq!(stored["spec"], made["spec"]);
        assert!(stored.pointer("/status/conditions/0").is_none(), "{stored}");
    }
}

#[tokio::test]
async fn a_decision_is_made_once_by_the_way_of_approval() {
    let cluster = Cluster::start().await;
    let made = cluster.create(KIND, asking("a", "example.com/s")).await.unwrap();
    let with = |object: &Value, kinds: &[&str]| {
        let mut object = object.clone();
        conditions(&mut object, kinds);
        object
    };
    let told = causes(&cluster.update(KIND, Some("status"), &with(&made, &["Approved"])).await.unwrap_err());
    assert!(told.contains("may not add a condition of type"), "{told}");
    let told = causes(
        &cluster.update(KIND, Some("approval"), &with(&made, &["Approved", "Denied"])).await.unwrap_err(),
    );
    assert!(told.contains("mutually exclusive"), "{told}");
    let mut false_one = with(&made, &["Denied"]);
    false_one["status"]["conditions"][0]["status"] = "False".into();
    let told = causes(&cluster.update(KIND, Some("approval"), &false_one).await.unwrap_err());
    assert!(told.contains("status.conditions[0].status"), "{told}");

    let approved = cluster.update(KIND, Some("approval"), &with(&made, &["Approved"])).await.unwrap();
    assert!(approved["status"]["conditions"][0]["lastUpdateTime"].is_string(), "{approved}");
    for (sub, kinds) in [("approval", vec![]), ("approval", vec!["Denied"]), ("status", vec!["Failed"])] {
        let told = causes(&cluster.update(KIND, Some(sub), &with(&approved, &kinds)).await.unwrap_err());
        assert!(told.contains("may not remove a condition of type"), "{sub} {kinds:?}: {told}");
    }
    // The words of a decision are the approver's.
    let mut failed = with(&approved, &["Approved", "Failed"]);
    failed["status"]["conditions"][0]["reason"] = "Mine".into();
    let failed = cluster.update(KIND, Some("status"), &failed).await.unwrap();
    assert_eq!(failed["status"]["conditions"][0], approved["status"]["conditions"][0]);
    assert_eq!(failed["status"]["conditions"][1]["type"], "Failed");
}

#[tokio::test]
async fn a_certificate_is_written_once_and_never_for_a_denied_request() {
    let cluster = Cluster::start().await;
    let made = cluster.create(KIND, asking("a", "example.com/s")).await.unwrap();
    let with = |object: &Value, certificate: &str| {
        let mut object = object.clone();
        object["status"]["certificate"] = certificate.into();
        object
    };
    for text in ["hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        let wrong = with(&made, &STANDARD.encode(text));
        let told = causes(&cluster.update(KIND, Some("status"), &wrong).await.unwrap_err());
        assert!(told.contains("status.certificate"), "{told}");
    }
    let mut by_approval = with(&made, &certificate());
    conditions(&mut by_approval, &["Approved"]);
    let approved = cluster.update(KIND, Some("approval"), &by_approval).await.unwrap();
    assert!(approved["status"].get("certificate").is_none(), "{approved}");
    let issued = cluster.update(KIND, Some("status"), &with(&approved, &certificate())).await.unwrap();
    for other in [certificate(), String::new()] {
        let told = causes(&cluster.update(KIND, Some("status"), &with(&issued, &other)).await.unwrap_err());
        assert!(told.contains("may not modify existing certificate"), "{told}");
    }

    let mut denied = cluster.create(KIND, asking("b", "example.com/s")).await.unwrap();
    conditions(&mut denied, &["Denied"]);
    let denied = cluster.update(KIND, Some("approval"), &denied).await.unwrap();
    let told =
        causes(&cluster.update(KIND, Some("status"), &with(&denied, &certificate())).await.unwrap_err());
    assert!(told.contains("a denied request"), "{told}");
}
