//! Requests as others make them: read, and refused where they are not what they claim.

use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;
use crate::{Authority, Lifetime, Usages};

fn params() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["node-1".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, "system:node:node-1");
    params.subject_alt_names.push(SanType::URI("spiffe://x".try_into().unwrap()));
    params
}

fn request_of(key: &KeyPair) -> String {
    params().serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn each_kind_of_key_may_ask() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let request =
            Request::parse(request_of(&KeyPair::generate_for(algorithm).unwrap()).as_bytes()).unwrap();
        assert_eq!(request.common_name, "system:node:node-1");
        assert_eq!(request.organizations, ["system:nodes"]);
        let names: Vec<_> = request.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["node-1", "10.0.0.1", "spiffe://x"]);
    }
}

/// Made with `openssl req -new -newkey rsa:2048 -nodes -subj /O=a/O=b/CN=jane`, and the same with 1024 bits.
const RSA_2048: &str = include_str!("rsa_2048.csr");
const RSA_1024: &str = include_str!("rsa_1024.csr");

#[test]
fn a_request_of_an_rsa_key_is_granted_whole_and_a_short_key_is_refused() {
    let request = Request::parse(RSA_2048.as_bytes()).unwrap();
    assert_eq!((request.organizations.join(","), &*request.common_name), ("a,b".to_owned(), "jane"));
    assert_eq!(Request::parse(RSA_1024.as_bytes()), Err(RequestError::Signature));

    let key = KeyPair::generate().unwrap();
    let certificate = params().self_signed(&key).unwrap().pem();
    let authority = Authority::parse(&certificate, &key.serialize_pem()).unwrap();
    let lifetime = Lifetime::from_now(std::time::SystemTime::now(), std::time::Duration::from_secs(600));
    let granted = authority.grant(&request, &Usages::named(["client auth"]).unwrap(), lifetime).unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(granted.as_bytes()).unwrap();
    let granted = block.parse_x509().unwrap();
    assert_eq!(granted.subject().as_raw(), request.subject);
    assert_eq!(granted.public_key().raw, request.public_key);
}

#[test]
fn what_is_no_request_is_refused() {
    let key = KeyPair::generate().unwrap();
    let certificate = params().self_signed(&key).unwrap().pem();
    for text in ["", "hello", &certificate] {
        assert_eq!(Request::parse(text.as_bytes()), Err(RequestError::NotPem), "{text}");
    }
}

proptest! {
    /// Bytes around what is signed may vary in their encoding; what is asked for may not.
    #[test]
    fn a_changed_request_asks_for_nothing_else(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let key = KeyPair::generate().unwrap();
        let der = params().serialize_request(&key).unwrap().der().to_vec();
        let asked = Request::read(&der).unwrap();
        let mut changed = der.clone();
        changed[at.index(der.len())] ^= 1 << bit;
        if let Ok(read) = Request::read(&changed) {
            prop_assert_eq!(read, asked);
        }
    }

    #[test]
    fn nothing_panics_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::read(&bytes);
        let _ = Request::parse(&bytes);
        let _ = crate::check_chain(&bytes);
    }
}
