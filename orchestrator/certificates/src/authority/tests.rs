//! What an authority signs, read back by another reader of certificates.

use rcgen::{BasicConstraints as Constraints, CertificateParams, IsCa};

use super::*;

fn authority(algorithm: &'static rcgen::SignatureAlgorithm, ends_at: SystemTime) -> (Authority, String) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(Constraints::Unconstrained);
    params.not_after = ends_at.into();
    let certificate = params.self_signed(&key).unwrap().pem();
    (Authority::parse(&certificate, &key.serialize_pem()).unwrap(), certificate)
}

fn in_days(days: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(days * 24 * 3600)
}

#[test]
fn a_certificate_says_every_group_and_is_signed_by_each_kind_of_key() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let (authority, authority_pem) = authority(algorithm, in_days(1000));
        let subject = Subject { common_name: "jane".into(), organizations: vec!["b".into(), "a:é".into()] };
        let usages = Usages::named(["client auth", "digital signature"]).unwrap();
        let names = [AlternativeName::of_server("10.0.0.1"), AlternativeName::of_server("node")];
        let lifetime = Lifetime::from_now(SystemTime::now(), Duration::from_secs(3600));
        let key = KeyPair::generate().unwrap();
        let pem =
            authority.issue(&subject, &key, &Wanted { names: &names, usages: &usages, lifetime }).unwrap();

        let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = block.parse_x509().unwrap();
        let (_, issuer) = parse_x509_pem(authority_pem.as_bytes()).unwrap();
        certificate.verify_signature(Some(issuer.parse_x509().unwrap().public_key())).unwrap();
        let groups: Vec<_> =
            certificate.subject().iter_organization().map(|group| group.as_str().unwrap()).collect();
        assert_eq!(groups, ["b", "a:é"]);
        assert_eq!(certificate.public_key().subject_public_key.data, key.der_bytes());
        let extended = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth && !extended.server_auth);
        assert!(certificate.key_usage().unwrap().unwrap().value.digital_signature());
        assert!(!certificate.is_ca());
        assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
    }
}

#[test]
fn nothing_outlives_its_authority() {
    let end = in_days(2);
    let (authority, _) = authority(&rcgen::PKCS_ED25519, end);
    let subject = Subject { common_name: "x".into(), organizations: vec![] };
    let usages = Usages::named(["client auth"]).unwrap();
    let key = KeyPair::generate().unwrap();
    let issue = |lifetime| authority.issue(&subject, &key, &Wanted { names: &[], usages: &usages, lifetime });
    let pem = issue(Lifetime { begins_at: SystemTime::now(), ends_at: in_days(30) }).unwrap();
    let ends = crate::expiry(pem.as_bytes()).unwrap();
    assert!(ends <= end && ends + Duration::from_secs(2) > end);
    let late = issue(Lifetime { begins_at: in_days(3), ends_at: in_days(4) });
    assert!(matches!(late, Err(AuthorityError::Expired)));
}

#[test]
fn times_are_short_until_2049_and_long_after() {
    let year = |year: u64| SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_556_952 + 86_400);
    assert!(matches!(time(year(2049)).unwrap(), Time::UtcTime(_)));
    assert!(matches!(time(year(2051)).unwrap(), Time::GeneralTime(_)));
}

#[test]
fn a_certificate_and_anothers_key_are_no_authority() {
    let (_, certificate) = authority(&rcgen::PKCS_ED25519, in_days(1));
    let other = KeyPair::generate().unwrap().serialize_pem();
    assert!(matches!(Authority::parse(&certificate, &other), Err(AuthorityError::NotItsKey)));
    assert!(matches!(Authority::parse(&certificate, "no key"), Err(AuthorityError::Key { .. })));
    assert!(matches!(Authority::parse("", &other), Err(AuthorityError::Certificate { .. })));
}
