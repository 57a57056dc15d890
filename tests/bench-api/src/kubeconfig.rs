//! The parts of a kubeconfig that say where a server is and who asks.

use std::net::ToSocketAddrs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_yaml::Value;

use crate::http::Endpoint;

/// Reads the current context of a kubeconfig.
pub fn read(file: &Path) -> Result<Endpoint> {
    parse(file).with_context(|| format!("the kubeconfig {} cannot be used", file.display()))
}

fn parse(file: &Path) -> Result<Endpoint> {
    let config: Value = serde_yaml::from_slice(&std::fs::read(file)?)?;
    let named = |list: &str, name: &Value, part: &str| -> Result<Value> {
        let all = config[list].as_sequence().with_context(|| format!("it has no {list}"))?;
        let found = all.iter().find(|it| &it["name"] == name);
        Ok(found.with_context(|| format!("it has no {part} {name:?}"))?[part].clone())
    };
    let context = named("contexts", &config["current-context"], "context")?;
    let cluster = named("clusters", &context["cluster"], "cluster")?;
    let user = named("users", &context["user"], "user")?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let content = |of: &Value, name: &str| -> Result<Option<Vec<u8>>> {
        if let Some(data) = of[format!("{name}-data")].as_str() {
            return Ok(Some(STANDARD.decode(data)?));
        }
        of[name].as_str().map(|path| Ok(std::fs::read(folder.join(path))?)).transpose()
    };
    let server = cluster["server"].as_str().context("its cluster has no server")?;
    let authority = content(&cluster, "certificate-authority")?.context("it has no certificate authority")?;
    let certificate = content(&user, "client-certificate")?.zip(content(&user, "client-key")?);
    let certificate = certificate.as_ref().map(|(certificate, key)| (&certificate[..], &key[..]));
    endpoint(server, &authority, certificate, user["token"].as_str())
}

/// An endpoint of PEM texts.
pub fn endpoint(
    server: &str,
    authority_pem: &[u8],
    certificate_pem: Option<(&[u8], &[u8])>,
    token: Option<&str>,
) -> Result<Endpoint> {
    let host = server.strip_prefix("https://").context("the server's URL is not https")?;
    let host = host.split('/').next().unwrap_or(host);
    let with_port = if host.rsplit_once(':').is_some() { host.to_owned() } else { format!("{host}:443") };
    let address =
        with_port.to_socket_addrs()?.next().with_context(|| format!("{with_port} has no address"))?;
    let name = with_port.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']).to_owned();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem) {
        roots.add(certificate?)?;
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut tls = match certificate_pem {
        Some((certificate, key)) => builder.with_client_auth_cert(
            CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_slice(key)?,
        )?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Endpoint {
        address,
        name: ServerName::try_from(name)?,
        tls: Arc::new(tls),
        bearer: token.map(str::to_owned),
    })
}
