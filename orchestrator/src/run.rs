//! `orchestrator run`: store, registry, API server, control loops, in that order, and back in the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::Client;
use penstock_apiserver::audit::{AuditConfig, Policy};
use penstock_apiserver::{ApiServer, ClusterInfo, Limits, Registry, RegistryConfig, ServerConfig, User};
use penstock_cloud::CloudConfig;
use penstock_controllers::ipnet::Cidr;
use penstock_controllers::{ControllersConfig, NodeRanges};
use penstock_process::memory;
use penstock_scheduler::SchedulerConfig;
use penstock_store::Store;
use penstock_store::embedded::{Embedded, EmbeddedOptions};
use penstock_store::etcd::{self, Etcd};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::access::{self, Access};
use crate::cli::StoreKind;
use crate::config::{AuditFiles, RunConfig, ServerPart};
use crate::control;
use crate::data_dir::DataDir;
use crate::loops::Loops;
use crate::pki::Pki;
use crate::renewal::{self, Renewal};

const NODE_PORTS: (u16, u16) = (30000, 32767);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The names under which controllers and scheduler own fields.
const CONTROLLERS_AGENT: &str = "kube-controller-manager";
const SCHEDULER_AGENT: &str = "kube-scheduler";
/// Whom the API server takes the loops of its own process for.
const LOOPS_USERS: [&str; 2] = ["system:kube-controller-manager", "system:kube-scheduler"];
const LOOPS_GROUPS: [&str; 2] = ["system:masters", "system:authenticated"];

/// Runs until a signal ends it or something it needs fails.
pub async fn run(config: RunConfig) -> anyhow::Result<()> {
    // Both TLS users of this process (server and kube client) take the provider from here. It is installed once.
    drop(rustls::crypto::ring::default_provider().install_default());
    let data = DataDir::ensure(&config.data_dir)?;
    let _owned = data.own()?;
    let identity = data.ensure_identity()?;
    let stop = stop_on_signal()?;
    tokio::spawn(memory::trim_regularly(stop.clone()));

    let server = match &config.server {
        Some(part) => Some(serve(&data, part).await?),
        None => None,
    };
    let [client, scheduler_client] = match &server {
        Some(server) => server.clients.clone(),
        None => {
            [remote_client(&config, CONTROLLERS_AGENT).await?, remote_client(&config, SCHEDULER_AGENT).await?]
        }
    };
    let loops = Loops {
        client,
        scheduler_client,
        identity,
        controllers: config.controllers.then(|| controllers_config(&config, server.as_ref())),
        cloud: CloudConfig { load_balancer_pools: config.load_balancer_pools.clone() },
        scheduler: config.scheduler.then(SchedulerConfig::default),
    };
    let stop_loops = stop.child_token();
    let mut loops = tokio::spawn(loops.run(stop_loops.clone()));

    let Some(mut server) = server else {
        loops.await.context("the control loops failed")?;
        return Ok(());
    };
    let ended = tokio::select! {
        () = stop.cancelled() => None,
        ended = &mut server.serving => Some(ended),
    };
    server.server.begin_leaving();
    // The loops give their leases back through the server, so they end first.
    stop_loops.cancel();
    if tokio::time::timeout(STOP_TIMEOUT, &mut loops).await.is_err() {
        tracing::warn!("the control loops did not stop in time");
    }
    match ended {
        Some(ended) => {
            server.store.close().await;
            ended.context("the API server failed")??;
            anyhow::bail!("the API server ended by itself");
        }
        None => server.stop().await,
    }
}

/// A running API server and what must end after it.
struct Running {
    /// The controllers' and the scheduler's.
    clients: [Client; 2],
    server: ApiServer,
    pki: Pki,
    store: OpenStore,
    stop: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

/// The store, and what closing it means.
enum OpenStore {
    Embedded(Arc<Embedded>),
    Etcd(Arc<Etcd>),
}

async fn serve(data: &DataDir, part: &Arc<ServerPart>) -> anyhow::Result<Running> {
    // First what fails for reasons an operator can see: the port, before the keys and the store are touched.
    let Access { static_tokens, authentication, authorization } = access::read(&part.access)?;
    let listener = listen(part.listen).await?;
    let renewal = Renewal { data: data.clone(), part: part.clone() };
    let pki = renewal.ensure()?;
    let store = OpenStore::open(data, part).await?;
    let registry = Registry::new(store.shared(), registry_config(part)).await?;
    let config = ServerConfig {
        static_tokens,
        authentication,
        authorization,
        audit: part.audit.as_ref().map(audit_config).transpose()?,
        ..server_config(part, &pki)
    };
    let server = ApiServer::new(registry, config).await?;
    let clients = LOOPS_USERS.map(|user| {
        let groups = LOOPS_GROUPS.map(str::to_owned).to_vec();
        server.client(User { name: user.to_owned(), groups, ..User::default() })
    });
    let stop = CancellationToken::new();
    store.keep(data, &stop);
    tokio::spawn(renewal.run(server.clone(), renewal::next_due(&pki), stop.clone()));
    let serving = tokio::spawn({
        let (server, stop) = (server.clone(), stop.clone());
        async move { Ok(server.serve_on(listener, stop).await?) }
    });
    tracing::info!(
        listen = %part.listen,
        kubeconfig = %data.admin_kubeconfig().display(),
        "the API server serves"
    );
    Ok(Running { clients, server, pki, store, stop, serving })
}

// === impl Running ===

impl Running {
    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        // The server bounds how long it waits for requests that are being answered.
        let ended = self.serving.await;
        self.store.close().await;
        ended.context("the API server failed")?
    }
}

// === impl OpenStore ===

impl OpenStore {
    async fn open(data: &DataDir, part: &ServerPart) -> anyhow::Result<Self> {
        Ok(match part.store {
            StoreKind::Embedded => {
                let options =
                    EmbeddedOptions { file_bytes_max: part.store_bytes_max, ..EmbeddedOptions::default() };
                Self::Embedded(Embedded::open_with(&data.store(), options).await?)
            }
            StoreKind::Etcd => Self::Etcd(Arc::new(Etcd::connect(&part.etcd_endpoints).await?)),
        })
    }

    fn shared(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => store.clone(),
            Self::Etcd(store) => store.clone(),
        }
    }

    /// What goes on beside the API server until it is stopped.
    fn keep(&self, data: &DataDir, stop: &CancellationToken) {
        let stop = stop.clone();
        match self {
            Self::Etcd(store) => drop(tokio::spawn(etcd::keep_compacted(store.clone(), stop))),
            Self::Embedded(store) => {
                let (socket, store) = (data.control_socket(), store.clone());
                tokio::spawn(async move {
                    if let Err(error) = control::serve(&socket, store, stop).await {
                        let socket = socket.display();
                        tracing::warn!(%socket, %error, "no control socket: `orchestrator backup` works only when this is stopped");
                    }
                });
            }
        }
    }

    async fn close(&self) {
        if let Self::Embedded(store) = self {
            store.close().await;
        }
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "cannot listen on {address}: another program uses this port; choose another with --listen"
            )
        }
        std::io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("cannot listen on {address}: this machine has no such address")
        }
        std::io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("cannot listen on {address}: ports below 1024 need root")
        }
        _ => anyhow::anyhow!("cannot listen on {address}: {error}"),
    })
}

fn registry_config(part: &ServerPart) -> RegistryConfig {
    RegistryConfig {
        service_cidrs: part.service_cidrs.clone(),
        node_ports: NODE_PORTS,
        cluster_dns: part.cluster_dns.clone(),
        cluster_domain: part.cluster_domain.clone(),
        advertise_address: part.advertise_address,
        advertise_port: part.listen.port(),
    }
}

fn server_config(part: &ServerPart, pki: &Pki) -> ServerConfig {
    let issuer = format!("https://kubernetes.default.svc.{}", part.cluster_domain);
    let authority = || pki.authority.certificate_pem.clone().into_bytes();
    ServerConfig {
        serving_certificate_pem: pki.serving.certificate_pem.clone().into_bytes(),
        serving_key_pem: pki.serving.key_pem.clone().into_bytes(),
        client_ca_pem: authority(),
        front_proxy_ca_pem: Some(pki.front_proxy_authority.certificate_pem.clone().into_bytes()),
        front_proxy_names: vec!["front-proxy-client".to_owned()],
        front_proxy_client_certificate_pem: pki.front_proxy_client.certificate_pem.clone().into_bytes(),
        front_proxy_client_key_pem: pki.front_proxy_client.key_pem.clone().into_bytes(),
        service_account_key_pem: pki.service_account_key_pem.clone().into_bytes(),
        bootstrap_tokens: part.access.enable_bootstrap_token_auth,
        cluster_info: Some(ClusterInfo {
            server: part.url(),
            authority_pem: pki.authority.certificate_pem.clone(),
        }),
        audiences: vec![issuer.clone()],
        service_account_issuer: issuer,
        kubelet_ca_pem: authority(),
        kubelet_client_certificate_pem: pki.kubelet_client.certificate_pem.clone().into_bytes(),
        kubelet_client_key_pem: pki.kubelet_client.key_pem.clone().into_bytes(),
        priority_and_fairness: part.load.priority_and_fairness,
        max_requests_inflight: part.load.requests_max,
        max_mutating_requests_inflight: part.load.mutating_requests_max,
        limits: Limits {
            connections_max: part.load.connections_max as usize,
            watches_max: part.load.watches_max as usize,
            shutdown_delay: part.load.shutdown_delay,
            ..Limits::default()
        },
        ..ServerConfig::new(part.listen, part.advertise_address)
    }
}

fn audit_config(files: &AuditFiles) -> anyhow::Result<AuditConfig> {
    let file = files.policy.display().to_string();
    let text = std::fs::read(&files.policy).with_context(|| format!("--audit-policy-file {file}"))?;
    Ok(AuditConfig { policy: Arc::new(Policy::parse(&file, &text)?), log: files.log.clone() })
}

fn controllers_config(config: &RunConfig, server: Option<&Running>) -> ControllersConfig {
    ControllersConfig {
        cluster_cidrs: config
            .cluster_cidrs
            .iter()
            .map(|range| NodeRanges::new(Cidr::new(range.network(), range.prefix())))
            .collect(),
        // Alone, the loops have no authority's key: the API server's own control plane publishes and signs.
        root_ca_pem: server.map(|server| server.pki.authority.certificate_pem.clone()),
        signer: server.map(|server| penstock_controllers::SignerFiles {
            certificate_pem: server.pki.authority.certificate_pem.clone(),
            key_pem: server.pki.authority.key_pem.clone(),
        }),
        signing_duration: config.signing_duration,
        token_key_pem: server
            .map(|server| penstock_controllers::Secret(server.pki.service_account_key_pem.clone())),
        ..ControllersConfig::default()
    }
}

async fn remote_client(config: &RunConfig, agent: &'static str) -> anyhow::Result<Client> {
    let path = config.kubeconfig.as_deref().context("no kubeconfig was given")?;
    let kubeconfig = kube::config::Kubeconfig::read_from(path)
        .with_context(|| format!("the kubeconfig {} cannot be used", path.display()))?;
    let mut client =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
            .await
            .with_context(|| format!("the kubeconfig {} cannot be used", path.display()))?;
    client.headers.push((USER_AGENT, HeaderValue::from_static(agent)));
    Ok(Client::try_from(client)?)
}

/// Cancelled by SIGTERM or SIGINT; a second signal ends the process at once.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = stop.clone();
    tokio::spawn(async move {
        let mut wait = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
        wait().await;
        tracing::info!("stopping");
        token.cancel();
        wait().await;
        std::process::exit(1);
    });
    Ok(stop)
}
