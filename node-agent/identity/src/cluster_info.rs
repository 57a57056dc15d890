//! What a cluster tells everybody of itself, and whether it is to be believed. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::pin::{self, KeyHash};
use crate::token::JoinToken;

const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

/// Where the cluster is, and who signs its servers' certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInfo {
    /// The API server's URL, as the cluster names it.
    pub server: String,
    pub authority_pem: String,
}

/// Why what was read is not to be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error(
        "its ConfigMap kube-public/cluster-info holds no kubeconfig: it is not set up for joining by token"
    )]
    Empty,
    #[error("it knows no token {id:?}, or that one has ended; `orchestrator token create` makes a new one")]
    Unknown { id: String },
    #[error(
        "its signature was not made with the token {id:?}: the second part of --token is mistyped, or this is not the cluster that made it"
    )]
    Signature { id: String },
    #[error("what it says of itself cannot be read: {why}")]
    Unreadable { why: String },
    #[error(
        "its authority has the key {}, and --ca-hash asks for {}: this is another cluster, or the hash is mistyped",
        pin::listed(.found),
        pin::listed(.wanted)
    )]
    Authority { found: Vec<KeyHash>, wanted: Vec<KeyHash> },
}

/// The kubeconfig of the ConfigMap's data, if the token has signed it.
pub fn signed<'a>(data: &'a BTreeMap<String, String>, token: &JoinToken) -> Result<&'a str, Distrust> {
    let text = data.get(KUBECONFIG).filter(|text| !text.is_empty()).ok_or(Distrust::Empty)?;
    let id = || token.id().to_owned();
    let signature = data.get(&format!("{SIGNATURE_PREFIX}{}", token.id()));
    let signature = signature.ok_or_else(|| Distrust::Unknown { id: id() })?;
    if token.has_signed(text, signature) { Ok(text) } else { Err(Distrust::Signature { id: id() }) }
}

/// What a kubeconfig says of its cluster, if one of the authority's keys is one that is expected.
pub fn read(kubeconfig: &str, pins: &[KeyHash]) -> Result<ClusterInfo, Distrust> {
    let unreadable = |why: &str| Distrust::Unreadable { why: why.to_owned() };
    let value: Value = serde_yaml::from_str(kubeconfig).map_err(|error| unreadable(&error.to_string()))?;
    let cluster = value.pointer("/clusters/0/cluster").ok_or_else(|| unreadable("it names no cluster"))?;
    let server = cluster["server"].as_str().filter(|url| url.starts_with("https://"));
    let server = server.ok_or_else(|| unreadable("its server is no https URL"))?;
    let authority = cluster["certificate-authority-data"].as_str().unwrap_or_default();
    let authority = STANDARD.decode(authority).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let authority_pem = authority.ok_or_else(|| unreadable("its authority is no PEM in base64"))?;
    let found = pin::hashes(&authority_pem).map_err(|error| unreadable(&error.why))?;
    if !found.iter().any(|hash| pins.contains(hash)) {
        return Err(Distrust::Authority { found, wanted: pins.to_vec() });
    }
    Ok(ClusterInfo { server: server.to_owned(), authority_pem })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(authority: &str) -> String {
        let authority = STANDARD.encode(authority);
        format!(
            "clusters:\n- cluster:\n    server: https://10.0.0.1:6443\n    certificate-authority-data: {authority}\n  name: ''\n"
        )
    }

    fn authority() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
    }

    #[test]
    fn only_the_authority_with_the_pinned_key_is_believed() {
        let (ours, other) = (authority(), authority());
        let pins = pin::hashes(&ours).unwrap();
        let info = read(&kubeconfig(&ours), &pins).unwrap();
        assert_eq!((info.server.as_str(), &info.authority_pem), ("https://10.0.0.1:6443", &ours));
        let refused = read(&kubeconfig(&other), &pins).unwrap_err();
        let told = refused.to_string();
        assert!(told.contains(&pins[0].to_string()) && told.contains("--ca-hash"), "{told}");
        assert!(told.contains(&pin::hashes(&other).unwrap()[0].to_string()), "{told}");
    }

    #[test]
    fn what_is_no_description_of_a_cluster_is_refused() {
        let pins = pin::hashes(&authority()).unwrap();
        let plain = kubeconfig(&authority()).replace("https", "http");
        for text in ["", "[", "clusters: []", &plain, &kubeconfig("no certificate")] {
            assert!(matches!(read(text, &pins), Err(Distrust::Unreadable { .. })), "{text}");
        }
    }

    #[test]
    fn a_text_must_be_signed_by_the_token_that_is_used() {
        let token: JoinToken = "abcdef.0123456789abcdef".parse().unwrap();
        let data = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(signed(&data(&[]), &token), Err(Distrust::Empty));
        let id = || "abcdef".to_owned();
        let unsigned = data(&[("kubeconfig", "x"), ("jws-kubeconfig-ghijkl", "y")]);
        assert_eq!(signed(&unsigned, &token), Err(Distrust::Unknown { id: id() }));
        let forged = data(&[("kubeconfig", "x"), ("jws-kubeconfig-abcdef", "a..b")]);
        assert_eq!(signed(&forged, &token), Err(Distrust::Signature { id: id() }));
    }
}
