//! Joining a cluster: from a token and the hash of a key to a kubeconfig.
//!
//! The server is asked what it says of itself before it is known. What it says counts if the token has signed it, if its
//! authority has the key that was asked for, and if a server with a certificate of that authority says the same: the way
//! kubeadm does it. Only then is the token shown to it. See docs/adr/0044-joining-and-renewing.md.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{Api, Client, Config};
use penstock_process::private_files::FileError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::certificate::user_of;
use crate::cluster_info::{self, ClusterInfo, Distrust};
use crate::failure::{code, is_untrusted, reason};
use crate::kubeconfig;
use crate::pin::KeyHash;
use crate::request::{self, Prepared, Purpose, RequestError};
use crate::token::JoinToken;

/// A server that is not there is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often it is said that something is still waited for.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// A new token's signature comes a moment after the token.
const SIGNATURE_PATIENCE: Duration = Duration::from_secs(15);

/// What is needed to join.
#[derive(Clone, Debug)]
pub struct Join {
    /// Where an API server is, as `HOST:PORT`.
    pub server: String,
    pub token: JoinToken,
    /// The cluster's authority has one of these keys.
    pub pins: Vec<KeyHash>,
    pub node: String,
    /// The file to write.
    pub kubeconfig: PathBuf,
    /// The file for the cluster's authority, which signs whoever calls the node.
    pub authority: PathBuf,
}

/// Why a machine has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("--join {server}: this is no HOST:PORT")]
    Server { server: String },
    #[error("--join {server}")]
    Distrust {
        server: String,
        #[source]
        source: Distrust,
    },
    #[error(
        "--join {server}: it lets nobody read kube-public/cluster-info without credentials ({why}); the cluster is not set up for joining by token, or runs with --anonymous-auth=false"
    )]
    Closed { server: String, why: String },
    #[error("{server} shows a certificate that the cluster's authority did not sign for it: {why}")]
    Stranger { server: String, why: String },
    #[error(
        "{server} said something else of itself when it was asked again: somebody is between, or it was changed just then"
    )]
    Changed { server: String },
    #[error(
        "{server} refuses the token {id:?}: it has ended, is not for authentication, or such tokens are off there; `orchestrator token create` makes a new one"
    )]
    Token { server: String, id: String },
    #[error("{server} lets nobody join by token: {why}")]
    Forbidden { server: String, why: String },
    #[error(
        "there is a node {node:?} in the cluster, and it is Ready; give this machine another --node-name, or remove that one first (kubectl delete node {node})"
    )]
    NameTaken { node: String },
    #[error("{server} gives no certificate")]
    Request {
        server: String,
        #[source]
        source: RequestError,
    },
    #[error("{server} cannot be asked: {why}")]
    Client { server: String, why: String },
    #[error(transparent)]
    File(#[from] FileError),
}

/// Joins. A server that is not there is waited for.
pub async fn join(join: &Join) -> Result<(), JoinError> {
    let info = discover(join).await?;
    let mut config = trusting(&info)?;
    config.auth_info.token = Some(join.token.reveal().into());
    let client = connect(&info.server, config)?;
    check_name(join, &info, &client).await?;
    let (certificate_pem, key_pem) = ask(join, &info, &client).await?;
    let text = kubeconfig::compose(&info, &user_of(&join.node), &certificate_pem, &key_pem);
    for path in [&join.authority, &join.kubeconfig] {
        if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty() && !it.exists()) {
            penstock_process::private_files::ensure_private_directory(folder)?;
        }
    }
    kubeconfig::write(&join.authority, &info.authority_pem)?;
    // Last: with it the machine has joined.
    kubeconfig::write(&join.kubeconfig, &text)?;
    tracing::info!(node = join.node, server = info.server, kubeconfig = %join.kubeconfig.display(), "joined the cluster");
    Ok(())
}

/// Finds the cluster, and recognises it.
async fn discover(join: &Join) -> Result<ClusterInfo, JoinError> {
    let server = join.server.clone();
    let url = format!("https://{server}");
    let wrong = || JoinError::Server { server: server.clone() };
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    if uri.port_u16().is_none() || uri.path_and_query().is_some_and(|it| it.as_str() != "/") {
        return Err(wrong());
    }
    let mut config = patient(Config::new(uri));
    // Nobody is believed yet, and nothing is shown.
    config.accept_invalid_certs = true;
    let client = connect(&url, config)?;
    let distrust = |source| JoinError::Distrust { server: server.clone(), source };
    let began = Instant::now();
    let text = loop {
        let map = cluster_info(&url, &client).await?;
        match cluster_info::signed(&map.data.unwrap_or_default(), &join.token) {
            Ok(text) => break text.to_owned(),
            Err(Distrust::Unknown { .. }) if began.elapsed() < SIGNATURE_PATIENCE => {
                tracing::info!(server, token = join.token.id(), "waiting for the cluster to know the token");
                tokio::time::sleep(ASK_AGAIN * 4).await;
            }
            Err(why) => return Err(distrust(why)),
        }
    };
    let info = cluster_info::read(&text, &join.pins).map_err(distrust)?;
    let at_first = ClusterInfo { server: url.clone(), ..info.clone() };
    let client = connect(&url, trusting(&at_first)?)?;
    let again = cluster_info(&url, &client).await?.data.unwrap_or_default();
    if again.get("kubeconfig") != Some(&text) {
        return Err(JoinError::Changed { server });
    }
    Ok(info)
}

/// Reads the ConfigMap, as soon as the server answers.
async fn cluster_info(server: &str, client: &Client) -> Result<ConfigMap, JoinError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    answered(server, async || api.get("cluster-info").await)
        .await?
        .map_err(|error| JoinError::Closed { server: server.to_owned(), why: error.to_string() })
}

/// What a server answers, which may be a refusal, as soon as it does. Says now and then that it does not.
async fn answered<T>(
    server: &str,
    ask: impl AsyncFn() -> Result<T, kube::Error>,
) -> Result<Result<T, kube::Error>, JoinError> {
    let began = Instant::now();
    let mut said: Option<Instant> = None;
    loop {
        let error = match ask().await {
            Ok(value) => return Ok(Ok(value)),
            Err(error) if code(&error).is_some_and(|code| code < 500 && code != 429) => {
                return Ok(Err(error));
            }
            Err(error) => error,
        };
        let why = reason(&error);
        if is_untrusted(&error) {
            return Err(JoinError::Stranger { server: server.to_owned(), why });
        }
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            said = Some(Instant::now());
            let waited_s = began.elapsed().as_secs();
            tracing::warn!(server, why, waited_s, "the API server cannot be reached yet; going on asking");
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// A name that another machine has would make two of them one node.
async fn check_name(join: &Join, info: &ClusterInfo, client: &Client) -> Result<(), JoinError> {
    let api: Api<Node> = Api::all(client.clone());
    let found = answered(&info.server, async || api.get_opt(&join.node).await).await?;
    match found {
        Ok(Some(node)) if is_ready(&node) => Err(JoinError::NameTaken { node: join.node.clone() }),
        Ok(_) => Ok(()),
        // Other clusters need not let them see nodes.
        Err(error) if code(&error) == Some(403) => Ok(()),
        Err(error) => Err(refused(join, info, &error)),
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|it| it.type_ == "Ready" && it.status == "True"))
}

/// Asks for the node's client certificate; it and its key, PEM.
async fn ask(join: &Join, info: &ClusterInfo, client: &Client) -> Result<(String, String), JoinError> {
    let failed = |source| JoinError::Request { server: info.server.clone(), source };
    let prepared = Prepared::new(&join.node, Purpose::Client).map_err(failed)?;
    let submitted = answered(&info.server, async || prepared.submit(client, &join.node).await).await?;
    let name = submitted.map_err(|error| refused(join, info, &error))?;
    tracing::info!(request = name, "asked for a certificate");
    let began = Instant::now();
    let mut waiting = Box::pin(request::certificate(client, &name, |_| {}));
    let certificate_pem = loop {
        match tokio::time::timeout(SAY_EVERY, waiting.as_mut()).await {
            Ok(answer) => break answer.map_err(failed)?,
            Err(_) => {
                let waited_s = began.elapsed().as_secs();
                tracing::warn!(
                    waited_s,
                    "the certificate is not there yet: approve the request with `kubectl certificate approve {name}`, if nobody does, and see that the cluster's controllers run"
                );
            }
        }
    };
    drop(waiting);
    if !request::is_for(&certificate_pem, &prepared.key_pem, &join.node) {
        return Err(failed(RequestError::Other { name }));
    }
    Ok((certificate_pem, prepared.key_pem))
}

fn refused(join: &Join, info: &ClusterInfo, error: &kube::Error) -> JoinError {
    let server = info.server.clone();
    match code(error) {
        Some(401) => JoinError::Token { server, id: join.token.id().to_owned() },
        Some(403) => JoinError::Forbidden { server, why: error.to_string() },
        _ => JoinError::Client { server, why: error.to_string() },
    }
}

/// A configuration that believes servers with certificates of the cluster's authority.
fn trusting(info: &ClusterInfo) -> Result<Config, JoinError> {
    let cannot = |why: String| JoinError::Client { server: info.server.clone(), why };
    let uri: http::Uri = info.server.parse().map_err(|_| cannot("it is no URL".to_owned()))?;
    let mut config = patient(Config::new(uri));
    let authorities = CertificateDer::pem_slice_iter(info.authority_pem.as_bytes());
    let authorities: Result<Vec<_>, _> = authorities.map(|it| it.map(|der| der.to_vec())).collect();
    config.root_cert = Some(authorities.map_err(|error| cannot(error.to_string()))?);
    Ok(config)
}

fn patient(mut config: Config) -> Config {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(ANSWER_TIMEOUT);
    config
}

fn connect(server: &str, config: Config) -> Result<Client, JoinError> {
    let cannot = |error: kube::Error| JoinError::Client { server: server.to_owned(), why: error.to_string() };
    Client::try_from(config).map_err(cannot)
}
