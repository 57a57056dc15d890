//! The servers that are measured: ours on each store, and the peer they are compared with.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use tempfile::TempDir;

use crate::http::Endpoint;
use crate::server::{self, Process};
use crate::{kubeconfig, pods};

/// Upstream's name, which is started here; any other is a kubeconfig's.
const UPSTREAM: &str = "kube-apiserver";
/// All load goes into this namespace.
pub const NAMESPACE: &str = "bench";

/// What ours is compared with.
#[derive(Clone, Debug)]
pub struct Peer {
    name: String,
    path: PathBuf,
}

/// A server under load.
pub struct Contender {
    pub name: String,
    /// Whether others are compared with it.
    pub is_peer: bool,
    pub endpoint: Endpoint,
    /// The server and its database, if they were started here.
    processes: Vec<Process>,
    _folder: Option<TempDir>,
    pods: tokio::sync::Mutex<usize>,
}

// === impl Peer ===

impl FromStr for Peer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, path) = text.split_once('=').ok_or_else(|| {
            anyhow!("{text:?} is not NAME=PATH, such as kube-apiserver=/usr/bin/kube-apiserver")
        })?;
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}

// === impl Contender ===

impl Contender {
    /// Everyone who takes part, the peer first if there is one.
    pub async fn all(orchestrator: &Path, peer: Option<&Peer>) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        if let Some(peer) = peer {
            all.push(Self::peer(peer).await.with_context(|| format!("the peer {}", peer.name))?);
        }
        let folder = TempDir::with_prefix("penstock-bench-")?;
        eprintln!("starting the orchestrator on its embedded store");
        let (process, endpoint) = server::orchestrator(orchestrator, folder.path(), None).await?;
        all.push(Self::new("embedded", false, endpoint, vec![process], Some(folder)));
        if server::has_etcd() {
            let folder = TempDir::with_prefix("penstock-bench-")?;
            eprintln!("starting the orchestrator on etcd");
            let (etcd, url) = server::etcd(folder.path()).await?;
            let (process, endpoint) = server::orchestrator(orchestrator, folder.path(), Some(&url)).await?;
            all.push(Self::new("etcd", false, endpoint, vec![process, etcd], Some(folder)));
        } else {
            eprintln!("SKIPPED: ours on etcd, which is not on the PATH (Debian: apt install etcd-server)");
        }
        for contender in &all {
            contender.prepare().await.with_context(|| format!("preparing {}", contender.name))?;
        }
        Ok(all)
    }

    async fn peer(peer: &Peer) -> Result<Self> {
        if peer.name != UPSTREAM {
            return Ok(Self::new(&peer.name, true, kubeconfig::read(&peer.path)?, Vec::new(), None));
        }
        eprintln!("starting {} on etcd", peer.path.display());
        let folder = TempDir::with_prefix("penstock-bench-")?;
        let (etcd, url) = server::etcd(folder.path()).await?;
        let (process, endpoint) = server::kube_apiserver(&peer.path, folder.path(), &url).await?;
        Ok(Self::new(&peer.name, true, endpoint, vec![process, etcd], Some(folder)))
    }

    fn new(
        name: &str,
        is_peer: bool,
        endpoint: Endpoint,
        processes: Vec<Process>,
        folder: Option<TempDir>,
    ) -> Self {
        let pods = tokio::sync::Mutex::new(0);
        Self { name: name.to_owned(), is_peer, endpoint, processes, _folder: folder, pods }
    }

    pub fn described(&self) -> String {
        let role = if self.is_peer { "peer " } else { "" };
        format!(
            "{role}{} ({})",
            self.name,
            if self.processes.is_empty() { "running already" } else { "started here" }
        )
    }

    /// Resident memory of the server and its database in MB, none if they were not started here.
    pub fn resident_mb(&self) -> Result<Option<f64>> {
        if self.processes.is_empty() {
            return Ok(None);
        }
        self.processes.iter().map(Process::resident_mb).sum::<Result<f64>>().map(Some)
    }

    /// The namespace, and the service account that admission wants of pods where no controller makes it.
    async fn prepare(&self) -> Result<()> {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
        let mut connection = self.endpoint.connect().await?;
        for (path, object) in [("/api/v1/namespaces", namespace), (&*accounts, account)] {
            let request =
                self.endpoint.request("POST", path, "application/json", object.to_string().as_bytes());
            let (status, body) = connection.call(&request).await?;
            // Of a cluster that was measured before they are there.
            if status != 201 && status != 409 {
                return Err(anyhow!("{path} answered {status}: {}", String::from_utf8_lossy(&body)));
            }
        }
        Ok(())
    }

    /// Makes pods until there are so many.
    pub async fn ensure_pods(&self, wanted: usize) -> Result<()> {
        let mut there = self.pods.lock().await;
        if *there < wanted {
            eprintln!("{}: making pods up to {wanted}", self.name);
            pods::create(&self.endpoint, *there..wanted).await?;
            *there = wanted;
        }
        Ok(())
    }
}
