//! Questions to other nodes' kubelet API, with this node's own certificate.
//!
//! The other side proves itself by a certificate of the cluster's authority for the address it is asked at; a node whose
//! certificate is its own is as one that is not there. It must not know what is waited for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::ConfigExt;
use parking_lot::Mutex;
use penstock_identity::Credentials;
use penstock_pods::{Answer, Question};
use tokio::sync::{Semaphore, watch};

use super::nodes::Nodes;
use super::peers::{Ask, Silence};

/// A node that does not take a connection within this time is not there. Its kernel does that, however busy its agent is,
/// and a first packet that was lost is sent again after one second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How much later than it was asked for an answer may come.
const ANSWER_SLACK: Duration = Duration::from_millis(500);
/// Connections are kept this long: a rollout asks again and again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How many questions travel at once; more wait.
const QUESTIONS_MAX: usize = 256;
const ANSWER_BYTES_MAX: usize = 64 * 1024;

type Get = dyn Fn(Uri) -> Pin<Box<dyn Future<Output = anyhow::Result<Bytes>> + Send>> + Send + Sync;

/// See the module.
pub struct Https {
    nodes: Nodes,
    get: Box<Get>,
    permits: Arc<Semaphore>,
}

impl Https {
    /// As whom the node talks to its API server, it talks to other nodes.
    pub fn new(credentials: &Credentials, nodes: Nodes) -> anyhow::Result<Self> {
        let mut changes = credentials.changes();
        let first = connect(&changes.borrow_and_update())?;
        let state = Mutex::new((changes, first));
        let get = move |uri: Uri| -> Pin<Box<dyn Future<Output = _> + Send>> {
            let request = present(&state)(request_for(uri));
            Box::pin(async move {
                let answer = request.await?;
                ensure!(answer.status().is_success(), "it answers {}", answer.status());
                let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
                Ok(body.map_err(|error| anyhow::anyhow!("its answer is cut short: {error}"))?.to_bytes())
            })
        };
        Ok(Self { nodes, get: Box::new(get), permits: Arc::new(Semaphore::new(QUESTIONS_MAX)) })
    }
}

/// Sends a request over kept connections, or new ones, which show one certificate.
type Sender = dyn Fn(Request<Empty<Bytes>>) -> ResponseFuture + Send + Sync;

/// What shows the certificate of now.
fn present(state: &Mutex<(watch::Receiver<kube::Config>, Arc<Sender>)>) -> Arc<Sender> {
    let mut state = state.lock();
    if state.0.has_changed().unwrap_or(false) {
        let renewed = connect(&state.0.borrow_and_update());
        match renewed {
            Ok(send) => state.1 = send,
            Err(error) => {
                tracing::error!("the new client certificate cannot be shown to other nodes: {error:#}")
            }
        }
    }
    state.1.clone()
}

fn connect(config: &kube::Config) -> anyhow::Result<Arc<Sender>> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // The kubeconfig may name the API server's certificate; other nodes have names of their own.
    let mut config = config.clone();
    config.tls_server_name = None;
    let connector = config
        .rustls_https_connector_with_connector(tcp)
        .context("no TLS to other nodes with the kubeconfig's credentials")?;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_timer(TokioTimer::new())
        .build(connector);
    Ok(Arc::new(move |request| client.request(request)))
}

fn request_for(uri: Uri) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri;
    request
}

#[async_trait]
impl Ask for Https {
    async fn ask(&self, node: &str, question: &Question) -> Result<Answer, Silence> {
        let ask = async {
            let address = self.nodes.address(node).context("it is not Ready, or not known")?;
            let uri: Uri = format!("https://{address}{}", question.path()).parse()?;
            let _permit = self.permits.acquire().await?;
            match tokio::time::timeout(question.within + ANSWER_SLACK, (self.get)(uri)).await {
                Ok(answer) => serde_json::from_slice(&answer?).context("its answer is none").map(Some),
                Err(_) => Ok(None),
            }
        };
        ask.await.map_err(Silence::Nobody)?.ok_or(Silence::Late)
    }
}
