//! `orchestrator token`: tokens with which machines join, made, listed and deleted through the API.
//!
//! It exists so that joining is one command, which `create` prints whole: with the server, the token, and the hash of the
//! authority by which the machine recognises the cluster.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use penstock_tokens::bootstrap::{self, BootstrapToken, Ends, StoredToken, keys};
use serde_json::json;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cli::token::{ClusterArguments, TokenCommand};
use crate::data_dir::DataDir;

/// What a node agent takes for granted (its `--service-cidr` and `--cluster-dns`): the command need not say it.
const USUAL_SERVICE_CIDR: &str = "10.96.0.0/16";
const USUAL_DNS: &str = "10.96.0.10";

/// Does what was asked for, and prints the answer.
pub async fn run(command: TokenCommand) -> Result<()> {
    // The client takes its cryptography from here.
    drop(rustls::crypto::ring::default_provider().install_default());
    match command {
        TokenCommand::Create { to, ttl, description, groups } => {
            let cluster = Cluster::of(&to).await?;
            let token = cluster.create(ttl, &description, &groups).await?;
            let command = cluster.join_command(&token).await?;
            println!("{}\n", token.reveal());
            match ttl.is_zero() {
                true => println!("It is good until it is deleted. To join a machine, run there as root:\n"),
                false => println!("It is good for {}. To join a machine, run there as root:\n", spelt(ttl)),
            }
            println!("  {command}");
        }
        TokenCommand::List { to } => {
            let mut tokens = Cluster::of(&to).await?.list().await?;
            tokens.sort_by(|a, b| a.id.cmp(&b.id));
            print!("{}", table(&tokens, Timestamp::now()));
        }
        TokenCommand::Delete { token, to } => {
            let id = token.split('.').next().unwrap_or_default();
            Cluster::of(&to).await?.delete(id).await?;
            println!("the token {id} is deleted");
        }
    }
    Ok(())
}

/// The cluster that is asked.
struct Cluster {
    client: Client,
    config: Config,
}

// === impl Cluster ===

impl Cluster {
    async fn of(arguments: &ClusterArguments) -> Result<Self> {
        let file = match (&arguments.kubeconfig, &arguments.data_dir) {
            (Some(file), _) => file.clone(),
            (None, Some(directory)) => {
                let file = DataDir::existing(directory)?.admin_kubeconfig();
                ensure!(
                    file.exists(),
                    "there is no {}; the control plane writes it when it first runs",
                    file.display()
                );
                file
            }
            (None, None) => bail!("give --kubeconfig or --data-dir"),
        };
        let unusable = || format!("the kubeconfig {} cannot be used", file.display());
        let kubeconfig = Kubeconfig::read_from(&file).with_context(unusable)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .with_context(unusable)?;
        Ok(Self { client: Client::try_from(config.clone()).with_context(unusable)?, config })
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), bootstrap::NAMESPACE)
    }

    fn unreachable(&self, what: &str) -> String {
        format!("{what} (asked of {})", self.config.cluster_url)
    }

    async fn create(&self, ttl: Duration, description: &str, groups: &[String]) -> Result<BootstrapToken> {
        let token = BootstrapToken::random();
        let secret = secret(&token, ttl, description, groups, Timestamp::now())?;
        self.secrets()
            .create(&PostParams::default(), &secret)
            .await
            .with_context(|| self.unreachable("the token could not be stored"))?;
        Ok(token)
    }

    async fn list(&self) -> Result<Vec<StoredToken>> {
        let only = ListParams::default().fields(&format!("type={}", bootstrap::SECRET_TYPE));
        let secrets = self
            .secrets()
            .list(&only)
            .await
            .with_context(|| self.unreachable("the tokens could not be read"))?;
        Ok(secrets.items.iter().map(stored).collect())
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let name = format!("{}{id}", bootstrap::NAME_PREFIX);
        match self.secrets().delete(&name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                bail!("there is no token {id}; `orchestrator token list` shows those there are")
            }
            Err(error) => {
                Err(error).with_context(|| self.unreachable(&format!("the token {id} could not be deleted")))
            }
        }
    }

    /// The one command that joins a machine.
    async fn join_command(&self, token: &BootstrapToken) -> Result<String> {
        let authorities = self.config.root_cert.as_deref().unwrap_or_default();
        let hashes = authorities.iter().map(|der| key_hash(der)).collect::<Result<Vec<_>>>()?;
        ensure!(
            !hashes.is_empty(),
            "the kubeconfig names no authority of the API server, by which a machine could recognise it"
        );
        let url = &self.config.cluster_url;
        let host = url.host().context("the kubeconfig's server has no host")?;
        let mut command = format!(
            "node-agent run --join {host}:{} --token {} --ca-hash {}",
            url.port_u16().unwrap_or(443),
            token.reveal(),
            hashes.join(",")
        );
        // Who may make tokens need not be allowed to read these; then the agent has its defaults.
        let ranges: Api<ServiceCIDR> = Api::all(self.client.clone());
        let range = ranges.get("kubernetes").await.ok().and_then(|it| it.spec);
        let cidrs = range.and_then(|it| it.cidrs).unwrap_or_default().join(",");
        let services: Api<Service> = Api::namespaced(self.client.clone(), "kube-system");
        let dns = services.get("kube-dns").await.ok().and_then(|it| it.spec);
        let dns = dns.and_then(|it| it.cluster_ips).unwrap_or_default().join(",");
        for (option, value, usual) in
            [("--service-cidr", cidrs, USUAL_SERVICE_CIDR), ("--cluster-dns", dns, USUAL_DNS)]
        {
            if !value.is_empty() && value != usual {
                let _ = write!(command, " {option} {value}");
            }
        }
        Ok(command)
    }
}

fn secret(
    token: &BootstrapToken,
    ttl: Duration,
    description: &str,
    groups: &[String],
    now: Timestamp,
) -> Result<Secret> {
    let mut data = json!({
        keys::ID: token.id(),
        keys::SECRET: token.secret(),
        keys::AUTHENTICATION: "true",
        keys::SIGNING: "true",
    });
    if !ttl.is_zero() {
        let end = SignedDuration::try_from(ttl).ok().and_then(|ttl| now.checked_add(ttl).ok());
        let end = end.with_context(|| format!("--ttl {} is too long", spelt(ttl)))?;
        data[keys::EXPIRATION] = format!("{end:.0}").into();
    }
    if !description.is_empty() {
        data[keys::DESCRIPTION] = description.into();
    }
    if !groups.is_empty() {
        data[keys::GROUPS] = groups.join(",").into();
    }
    let stored = StoredToken::read(|key| data.get(key)?.as_str().map(str::to_owned));
    stored.groups().context("--group")?;
    Ok(serde_json::from_value(json!({
        "metadata": {"name": token.secret_name(), "namespace": bootstrap::NAMESPACE},
        "type": bootstrap::SECRET_TYPE,
        "stringData": data,
    }))?)
}

fn stored(secret: &Secret) -> StoredToken {
    StoredToken::read(|key| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok())
}

/// As `sha256:` and the digest of a certificate's public key (its SubjectPublicKeyInfo), as kubeadm has it.
fn key_hash(certificate_der: &[u8]) -> Result<String> {
    let (_, certificate) =
        X509Certificate::from_der(certificate_der).context("the authority's certificate cannot be read")?;
    let digest = Sha256::digest(certificate.public_key().raw);
    Ok(digest.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

fn table(tokens: &[StoredToken], now: Timestamp) -> String {
    let mut rows = vec![["TOKEN", "TTL", "USAGES", "DESCRIPTION", "EXTRA GROUPS"].map(str::to_owned)];
    for token in tokens {
        let left = match token.ends() {
            Ends::Never => "forever".to_owned(),
            Ends::Unreadable => "invalid".to_owned(),
            Ends::At(end) => match Duration::try_from(end.duration_since(now)) {
                Ok(left) if !left.is_zero() => spelt(Duration::from_secs(left.as_secs())),
                _ => "expired".to_owned(),
            },
        };
        let usages = [(token.is_for_authentication, "authentication"), (token.is_for_signing, "signing")];
        let usages: Vec<&str> = usages.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
        rows.push([
            format!("{}.{}", token.id, token.secret),
            left,
            or_none(&usages.join(",")),
            or_none(&token.description),
            or_none(&token.extra_groups),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text.to_owned() }
}

/// As `24h`, `1h30m`, `90s`.
fn spelt(time: Duration) -> String {
    let (hours, minutes, seconds) = (time.as_secs() / 3600, time.as_secs() / 60 % 60, time.as_secs() % 60);
    let parts = [(hours, 'h'), (minutes, 'm'), (seconds, 's')];
    let text: String =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn made(ttl: Duration, groups: &[&str]) -> Result<StoredToken> {
        let token = BootstrapToken::parse("abcdef.0123456789abcdef").context("a token")?;
        let groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        let secret = secret(&token, ttl, "a rack", &groups, now())?;
        assert_eq!(secret.type_.as_deref(), Some(bootstrap::SECRET_TYPE));
        let data = secret.string_data.unwrap();
        Ok(StoredToken::read(|key| data.get(key).cloned()))
    }

    #[test]
    fn a_token_is_stored_as_everybody_reads_it() {
        let token = made(Duration::from_secs(3600), &["system:bootstrappers:rack"]).unwrap();
        assert_eq!((token.id.as_str(), token.expiration.as_str()), ("abcdef", "2026-01-01T01:00:00Z"));
        assert!(token.is_for_authentication && token.is_for_signing);
        assert_eq!(made(Duration::ZERO, &[]).unwrap().ends(), Ends::Never);
        let wrong = format!("{:#}", made(Duration::ZERO, &["system:masters"]).err().unwrap());
        assert!(wrong.contains("--group") && wrong.contains("system:masters"), "{wrong}");
    }

    #[test]
    fn the_list_says_what_each_token_is_for_and_how_long() {
        let lives = made(Duration::from_secs(5400), &[]).unwrap();
        let over = StoredToken { expiration: "2025-01-01T00:00:00Z".to_owned(), ..lives.clone() };
        let text = table(&[lives, over], now());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "abcdef.0123456789abcdef   1h30m     authentication,signing   a rack        <none>"
        );
        assert!(lines[2].contains("expired"), "{text}");
    }

    /// By `openssl x509 -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256`.
    #[test]
    fn the_hash_is_of_the_public_key_and_the_same_for_a_new_certificate_of_it() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = |name: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.self_signed(&key).unwrap()
        };
        let hash = |name: &str| key_hash(certificate(name).der()).unwrap();
        assert_eq!(hash("one"), hash("another"));
        let expected = Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key));
        assert_eq!(hash("one"), format!("sha256:{expected:x}"));
        assert!(key_hash(b"no certificate").is_err());
    }
}
