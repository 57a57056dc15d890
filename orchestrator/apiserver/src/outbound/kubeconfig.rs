//! A kubeconfig file that says how to reach a webhook: the cluster is the webhook, the user is this server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

use super::exchange::{Caller, Limits};
use super::{CallError, Identity, Target, Trust};
use crate::registry::Registry;

/// The longest answer of a webhook that authenticates or authorises.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// One attempt may take so long (upstream's).
const TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts at one question, the first included, and the pause after the first; each pause is half as long again.
const ATTEMPTS_MAX: usize = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Why a kubeconfig cannot be used for a webhook.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("{file} cannot be read: {why}")]
    Read { file: String, why: String },
    #[error("{file} is no kubeconfig: {why}")]
    Parse { file: String, why: String },
    #[error("{file} has no {what}")]
    Missing { file: String, what: &'static str },
    #[error("{file}: {what} is not supported for webhooks")]
    Unsupported { file: String, what: &'static str },
    #[error("{file}: server {server:?} is no https URL")]
    Server { file: String, server: String },
    #[error("{file}: {what} is not base64")]
    Base64 { file: String, what: &'static str },
    #[error("{file}: the credentials cannot be sent in a header")]
    Header { file: String },
}

/// A webhook, and how to call it.
#[derive(Debug, Clone)]
pub struct Webhook {
    target: Target,
    path: String,
    caller: Caller,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    exec: Option<Value>,
    auth_provider: Option<Value>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

/// Reads what a file says, and the files it names.
struct Reader<'a> {
    path: &'a Path,
    file: String,
}

// === impl Reader ===

impl Reader<'_> {
    /// The bytes in the file or beside it; empty when there are neither.
    fn bytes(
        &self,
        data: Option<&str>,
        named: Option<&Path>,
        what: &'static str,
    ) -> Result<Vec<u8>, KubeconfigError> {
        if let Some(data) = data.filter(|data| !data.is_empty()) {
            let wrong = |_| KubeconfigError::Base64 { file: self.file.clone(), what };
            return STANDARD.decode(data).map_err(wrong);
        }
        let Some(named) = named.filter(|named| !named.as_os_str().is_empty()) else { return Ok(Vec::new()) };
        let path = self.path.parent().unwrap_or(Path::new("")).join(named);
        std::fs::read(&path)
            .map_err(|e| KubeconfigError::Read { file: path.display().to_string(), why: e.to_string() })
    }

    fn refuse(&self, given: bool, what: &'static str) -> Result<(), KubeconfigError> {
        if given { Err(KubeconfigError::Unsupported { file: self.file.clone(), what }) } else { Ok(()) }
    }

    fn trust(&self, cluster: &Cluster) -> Result<Trust, KubeconfigError> {
        if cluster.insecure_skip_tls_verify {
            return Ok(Trust::Anyone);
        }
        let data = cluster.certificate_authority_data.as_deref();
        let named = cluster.certificate_authority.as_deref();
        Ok(Trust::Authorities(self.bytes(data, named, "certificate-authority-data")?.into()))
    }

    fn caller(&self, user: &User) -> Result<Caller, KubeconfigError> {
        self.refuse(user.exec.is_some(), "exec")?;
        self.refuse(user.auth_provider.is_some(), "auth-provider")?;
        let certificate_pem = self.bytes(
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_deref(),
            "client-certificate-data",
        )?;
        let key_pem =
            self.bytes(user.client_key_data.as_deref(), user.client_key.as_deref(), "client-key-data")?;
        let identity = (!certificate_pem.is_empty()).then(|| Arc::new(Identity { certificate_pem, key_pem }));
        let token = match (&user.token, &user.token_file) {
            (Some(token), _) if !token.is_empty() => token.clone(),
            (_, file) => {
                let bytes = self.bytes(None, file.as_deref(), "tokenFile")?;
                String::from_utf8_lossy(&bytes).trim().to_owned()
            }
        };
        let authorization = match (&user.username, token.is_empty()) {
            (_, false) => Some(format!("Bearer {token}")),
            (Some(name), true) => {
                let pair = format!("{name}:{}", user.password.as_deref().unwrap_or_default());
                Some(format!("Basic {}", STANDARD.encode(pair)))
            }
            (None, true) => None,
        };
        let mut header = authorization
            .map(|text| HeaderValue::from_str(&text))
            .transpose()
            .map_err(|_| KubeconfigError::Header { file: self.file.clone() })?;
        if let Some(header) = &mut header {
            header.set_sensitive(true);
        }
        Ok(Caller { identity, authorization: header })
    }
}

// === impl Webhook ===

impl Webhook {
    /// Reads a kubeconfig and the files it names, once: what changes in them counts after a start.
    ///
    /// # Errors
    /// The file, and what of it cannot be used.
    pub fn read(path: &Path) -> Result<Self, KubeconfigError> {
        let reader = Reader { path, file: path.display().to_string() };
        let file = || reader.file.clone();
        let text =
            std::fs::read(path).map_err(|e| KubeconfigError::Read { file: file(), why: e.to_string() })?;
        let config: File = serde_yaml::from_slice(&text)
            .map_err(|e| KubeconfigError::Parse { file: file(), why: e.to_string() })?;
        let missing = |what| KubeconfigError::Missing { file: file(), what };
        let context = config
            .contexts
            .iter()
            .find(|named| named.name == config.current_context)
            .map(|named| &named.context)
            .ok_or_else(|| missing("current-context"))?;
        let cluster = config.clusters.iter().find(|named| named.name == context.cluster);
        let cluster = &cluster.ok_or_else(|| missing("cluster of the current context"))?.cluster;
        reader.refuse(cluster.tls_server_name.is_some(), "tls-server-name")?;
        reader.refuse(cluster.proxy_url.is_some(), "proxy-url")?;
        let user = config.users.iter().find(|named| named.name == context.user);
        let caller = match user {
            Some(named) => reader.caller(&named.user)?,
            None if context.user.is_empty() => Caller::default(),
            None => return Err(missing("user of the current context")),
        };
        let (mut target, path) = Target::of_url(&cluster.server, b"")
            .ok_or_else(|| KubeconfigError::Server { file: file(), server: cluster.server.clone() })?;
        target.trust = reader.trust(cluster)?;
        Ok(Self { target, path, caller })
    }

    /// Asks the webhook, again if it is overloaded or says it failed. The caller's time bounds all attempts.
    pub(crate) async fn ask(&self, registry: &Registry, question: &Value) -> Result<Value, CallError> {
        let limits = Limits { timeout: TIMEOUT, answer_bytes_max: ANSWER_BYTES_MAX };
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS_MAX {
            match self.ask_once(registry, question, limits).await {
                Err(CallError::Refused { code: 429 | 500, .. }) => {}
                answered => return answered,
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5);
        }
        self.ask_once(registry, question, limits).await
    }

    async fn ask_once(
        &self,
        registry: &Registry,
        question: &Value,
        limits: Limits,
    ) -> Result<Value, CallError> {
        let outbound = registry.outbound();
        outbound.exchange_as(&self.caller, registry, &self.target, &self.path, question, limits).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Webhook, KubeconfigError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), "authority").unwrap();
        let path = folder.path().join("webhook.kubeconfig");
        std::fs::write(&path, text).unwrap();
        Webhook::read(&path)
    }

    const CONTEXT: &str = "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n";

    #[test]
    fn a_kubeconfig_says_whom_to_call_and_as_whom() {
        let webhook = read(&format!(
            "{CONTEXT}clusters: [{{name: k, cluster: {{server: 'https://h.example:1/authenticate', certificate-authority: ca.pem}}}}]\n\
             users: [{{name: u, user: {{token: secret, client-certificate-data: YQ==, client-key-data: Yg==}}}}]"
        ))
        .unwrap();
        assert_eq!(
            (webhook.target.authority().as_str(), webhook.path.as_str()),
            ("h.example:1", "/authenticate")
        );
        assert_eq!(webhook.target.trust, Trust::Authorities(b"authority".as_slice().into()));
        assert_eq!(webhook.caller.authorization.as_ref().unwrap(), "Bearer secret");
        assert_eq!(webhook.caller.identity.as_ref().unwrap().key_pem, b"b");
        let basic = read(&format!(
            "{CONTEXT}clusters: [{{name: k, cluster: {{server: 'https://h.example', insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: u, user: {{username: a, password: b}}}}]"
        ))
        .unwrap();
        assert_eq!(basic.caller.authorization.as_ref().unwrap(), "Basic YTpi");
        assert_eq!(basic.target.trust, Trust::Anyone);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let with = |cluster: &str, user: &str| {
            let text = format!(
                "{CONTEXT}clusters: [{{name: k, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]"
            );
            read(&text).unwrap_err().to_string()
        };
        assert!(with("server: 'http://h'", "").contains("is no https URL"));
        assert!(with("server: 'https://h', tls-server-name: x", "").contains("tls-server-name"));
        assert!(with("server: 'https://h', certificate-authority-data: '!'", "").contains("not base64"));
        assert!(with("server: 'https://h', certificate-authority: none.pem", "").contains("none.pem"));
        assert!(with("server: 'https://h'", "exec: {command: x}").contains("exec"));
        assert!(read("clusters: []").unwrap_err().to_string().contains("current-context"));
        assert!(read("[").unwrap_err().to_string().contains("no kubeconfig"));
        assert!(
            Webhook::read(Path::new("/nonexistent/x")).unwrap_err().to_string().contains("cannot be read")
        );
    }
}
