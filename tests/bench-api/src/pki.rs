//! The certificates an API server of others needs to start, made for one run.

use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// What was made.
pub struct Pki {
    pub authority_pem: String,
    pub client_pem: String,
    pub client_key_pem: String,
}

/// Files of the server, in the folder they are in.
pub const AUTHORITY: &str = "ca.crt";
pub const SERVING: &str = "serving.crt";
pub const SERVING_KEY: &str = "serving.key";
pub const TOKENS_KEY: &str = "tokens.key";
pub const TOKENS_PUBLIC_KEY: &str = "tokens.pub";

/// Makes an authority, the server's certificate, an administrator's, and the key that signs tokens.
pub fn write(folder: &Path) -> Result<Pki> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "bench");
    let key = KeyPair::generate()?;
    let authority_pem = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);

    let mut serving = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    serving.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let serving_key = KeyPair::generate()?;
    let serving_pem = serving.signed_by(&serving_key, &issuer)?.pem();

    let mut client = CertificateParams::default();
    client.distinguished_name.push(DnType::CommonName, "bench");
    client.distinguished_name.push(DnType::OrganizationName, "system:masters");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client_key = KeyPair::generate()?;
    let client_pem = client.signed_by(&client_key, &issuer)?.pem();

    let tokens_key = KeyPair::generate()?;
    for (name, content) in [
        (AUTHORITY, &authority_pem),
        (SERVING, &serving_pem),
        (SERVING_KEY, &serving_key.serialize_pem()),
        (TOKENS_KEY, &tokens_key.serialize_pem()),
        (TOKENS_PUBLIC_KEY, &tokens_key.public_key_pem()),
    ] {
        let file = folder.join(name);
        std::fs::write(&file, content).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(Pki { authority_pem, client_pem, client_key_pem: client_key.serialize_pem() })
}
