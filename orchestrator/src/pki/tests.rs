//! The directory of keys and certificates: what a start makes, keeps, renews and refuses.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

fn read(directory: &Path, name: &str) -> String {
    std::fs::read_to_string(directory.join(name)).unwrap()
}

#[test]
fn a_second_start_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = names(&["localhost", "127.0.0.1", "::1"]);
    ensure(directory.path(), &wanted, USUAL_LIFE).unwrap();
    let files: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let before: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    ensure(directory.path(), &wanted, USUAL_LIFE).unwrap();
    let after: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert_eq!(before, after);
    assert_eq!(files.len(), 12, "two authorities, three certificates, a key pair for tokens: {files:?}");
    for file in files {
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            file.display()
        );
    }
}

#[test]
fn a_changed_name_issues_the_serving_certificate_again_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    ensure(directory.path(), &names(&["localhost"]), USUAL_LIFE).unwrap();
    let before =
        ["ca.crt", "kubelet-client.crt", "sa.key", "apiserver.crt"].map(|name| read(directory.path(), name));
    let pki = ensure(directory.path(), &names(&["localhost", "10.0.0.1"]), USUAL_LIFE).unwrap();
    let after =
        ["ca.crt", "kubelet-client.crt", "sa.key", "apiserver.crt"].map(|name| read(directory.path(), name));
    assert_eq!(before[..3], after[..3]);
    assert_ne!(before[3], after[3]);
    let facts = inspect::certificate(&pki.serving.certificate_pem).unwrap();
    assert_eq!(facts.names, names(&["localhost", "10.0.0.1"]));
    assert_eq!(facts.authority_key_id, pki.authority.signer().key_id());
}

#[test]
fn a_lost_authority_key_is_an_error_and_not_a_new_authority() {
    let directory = tempfile::tempdir().unwrap();
    ensure(directory.path(), &names(&["localhost"]), USUAL_LIFE).unwrap();
    let certificate = read(directory.path(), "ca.crt");
    std::fs::remove_file(directory.path().join("ca.key")).unwrap();
    let error = ensure(directory.path(), &names(&["localhost"]), USUAL_LIFE).err().unwrap();
    assert!(matches!(error, PkiError::Half { .. }), "{error}");
    assert_eq!(read(directory.path(), "ca.crt"), certificate);
}

#[test]
fn an_authority_with_anothers_key_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    ensure_authority(one.path()).unwrap();
    ensure_authority(two.path()).unwrap();
    std::fs::copy(two.path().join("ca.key"), one.path().join("ca.key")).unwrap();
    let error = ensure_authority(one.path()).err().unwrap().to_string();
    assert!(error.contains("does not belong to"), "{error}");
}

#[test]
fn what_another_authority_signed_is_issued_again() {
    let directory = tempfile::tempdir().unwrap();
    ensure(directory.path(), &names(&["localhost"]), USUAL_LIFE).unwrap();
    let before = read(directory.path(), "apiserver.crt");
    std::fs::remove_file(directory.path().join("ca.key")).unwrap();
    std::fs::remove_file(directory.path().join("ca.crt")).unwrap();
    ensure(directory.path(), &names(&["localhost"]), USUAL_LIFE).unwrap();
    assert_ne!(read(directory.path(), "apiserver.crt"), before);
}

#[test]
fn a_client_certificate_carries_its_user_and_groups() {
    let directory = tempfile::tempdir().unwrap();
    let authority = ensure_authority(directory.path()).unwrap();
    let issued = client("system:node:n1", &["system:nodes"]).issue(&authority, USUAL_LIFE).unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(issued.certificate_pem.as_bytes()).unwrap();
    let certificate = block.parse_x509().unwrap();
    assert_eq!(certificate.subject().iter_common_name().next().unwrap().as_str().unwrap(), "system:node:n1");
    assert_eq!(certificate.subject().iter_organization().next().unwrap().as_str().unwrap(), "system:nodes");
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
}

#[test]
fn what_nears_its_end_is_issued_again_and_its_authority_stays() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = names(&["localhost"]);
    let ensure = |life| ensure(directory.path(), &wanted, life).unwrap();
    // A life that is over by seven tenths when it begins.
    let first = ensure(Duration::ZERO);
    let second = ensure(USUAL_LIFE);
    let all = |pki: &Pki| {
        [&pki.serving, &pki.kubelet_client, &pki.front_proxy_client].map(|it| it.certificate_pem.clone())
    };
    assert!(all(&first).iter().zip(all(&second)).all(|(first, second)| *first != second));
    assert_eq!(first.authority.certificate_pem, second.authority.certificate_pem);
    let (now, jitter) = (SystemTime::now(), 0.5);
    assert!(first.renewal_due(jitter) <= now && second.renewal_due(jitter) > now + USUAL_LIFE / 2);
    assert_eq!(all(&ensure(USUAL_LIFE)), all(&second));
}
