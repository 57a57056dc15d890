//! The kubelet API on port 10250: what the API server asks of a node on behalf of `kubectl logs`, `exec`, `attach`,
//! `port-forward`, and what metrics are scraped from.
//!
//! Every caller proves itself by a client certificate of the cluster's CA; without one it gets 401. Paths and query
//! names are those of other kubelets, because any API server may call.

mod access;
mod channels;
mod log_requests;
mod programmed;
mod serving_key;
mod spdy;
mod stats;
mod streams;
pub mod tls;
mod tunnel;
mod tunnel_spdy;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use penstock_runtime::{ContainerFilter, ContainerInfo, ContainerState, SandboxState};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::context::Context;
use crate::{PodsError, names, rotation};
pub use access::Caller;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;

/// A refusal with words for the caller.
pub(crate) struct Refusal(pub StatusCode, pub String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl From<penstock_runtime::RuntimeError> for Refusal {
    fn from(error: penstock_runtime::RuntimeError) -> Self {
        let code =
            if error.is_not_found() { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self(code, error.to_string())
    }
}

/// Binds, and serves until shutdown in a task of its own.
///
/// # Errors
/// When the address is taken or a certificate cannot be used.
pub async fn start(context: Arc<Context>, shutdown: CancellationToken) -> Result<(), PodsError> {
    let config = &context.config;
    let acceptor = tls::acceptor(config)?;
    let address = config.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| PodsError::Listen { address, source })?;
    let router = router(context);
    tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let stream = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "kubelet API cannot accept");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let _permit = permit;
                serve(acceptor, stream, router).await;
            });
        }
    });
    Ok(())
}

async fn serve(acceptor: tokio_rustls::TlsAcceptor, stream: tokio::net::TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(std::time::Duration::from_secs(10), acceptor.accept(stream));
    let Ok(Ok(stream)) = handshake.await else { return };
    let caller = access::caller(stream.get_ref().1);
    let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(caller.clone());
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "kubelet API connection ended");
    }
}

fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/pods", get(pods))
        .route("/runningpods", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(log_requests::container_logs))
        .route("/exec/{namespace}/{pod}/{container}", any(streams::exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", any(streams::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(streams::attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", any(streams::attach))
        .route("/portForward/{namespace}/{pod}", any(streams::port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", any(streams::port_forward))
        .route("/run/{namespace}/{pod}/{container}", any(streams::run))
        .route(rotation::PATH, get(programmed::programmed))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics", get(metrics))
        .route("/metrics/probes", get(metrics))
        .route("/metrics/resource", get(stats::resource_metrics))
        .route("/metrics/cadvisor", get(stats::cadvisor_metrics))
        .route_layer(middleware::from_fn_with_state(context.clone(), authorise))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(context)
}

async fn authorise(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Option<Caller>>().cloned().flatten();
    match access::check(&context, caller, request.method(), request.uri().path()).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn pods(State(context): State<Arc<Context>>) -> Response {
    let items: Vec<Pod> = context.pods.lock().values().map(|d| d.pod.clone()).collect();
    let list = serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    axum::Json(list).into_response()
}

async fn metrics(State(context): State<Arc<Context>>) -> String {
    context.metrics.text()
}

/// The newest container of a pod by name; with `previous`, the one before it.
async fn find_container(
    context: &Context,
    namespace: &str,
    pod: &str,
    container: &str,
    previous: bool,
) -> Result<ContainerInfo, Refusal> {
    let label = |name: &str, value: &str| (name.to_string(), value.to_string());
    let labels = vec![
        label(names::POD_NAMESPACE, namespace),
        label(names::POD_NAME, pod),
        label(names::CONTAINER_NAME, container),
    ];
    let mut found = context.runtime.list_containers(&ContainerFilter { sandbox: None, labels }).await?;
    let uid = current_uid(context, namespace, pod);
    found.retain(|c| uid.is_none() || c.labels.get(names::POD_UID) == uid.as_ref());
    found.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.attempt)));
    let words = if previous { "previous terminated container" } else { "container" };
    let missing = || {
        let code = if previous { StatusCode::BAD_REQUEST } else { StatusCode::NOT_FOUND };
        Refusal(code, format!("{words} \"{container}\" in pod \"{pod}\" not found"))
    };
    found.into_iter().nth(usize::from(previous)).ok_or_else(missing)
}

async fn find_running(
    context: &Context,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<ContainerInfo, Refusal> {
    let found = find_container(context, namespace, pod, container, false).await?;
    if found.state == ContainerState::Running {
        return Ok(found);
    }
    Err(Refusal(
        StatusCode::BAD_REQUEST,
        format!("container {container} of pod {namespace}/{pod} is not running"),
    ))
}

async fn find_sandbox(context: &Context, namespace: &str, pod: &str) -> Result<String, Refusal> {
    let labels = [
        (names::POD_NAMESPACE.to_string(), namespace.to_string()),
        (names::POD_NAME.to_string(), pod.to_string()),
    ];
    let mut found = context.runtime.list_sandboxes(&labels).await?;
    found.retain(|s| s.state == SandboxState::Ready);
    found.sort_by_key(|s| std::cmp::Reverse(s.created_at));
    let missing = || Refusal(StatusCode::NOT_FOUND, format!("pod {namespace}/{pod} is not running"));
    found.into_iter().next().map(|s| s.id).ok_or_else(missing)
}

fn current_uid(context: &Context, namespace: &str, pod: &str) -> Option<String> {
    let pods = context.pods.lock();
    pods.values().find(|d| d.namespace == namespace && d.name == pod).map(|d| d.uid.clone())
}
