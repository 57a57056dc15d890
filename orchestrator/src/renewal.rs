//! Renewing the control plane's own certificates while it runs.
//!
//! They are looked at when most of their life is over, issued again in the data directory as at a start, and shown from then
//! on: nothing is restarted, and connections go on. What fails is tried again until it works, and told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use penstock_apiserver::{ApiServer, Certificates, Pair};
use tokio_util::sync::CancellationToken;

use crate::config::ServerPart;
use crate::credentials;
use crate::data_dir::DataDir;
use crate::pki::{self, Issued, Pki};

/// The clock may be set, and somebody may take files away: nothing is slept through for longer.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Near the end of their authority certificates live shorter and shorter, and must not be all that is done.
const LEAST: Duration = Duration::from_secs(1);
/// After something failed.
const AGAIN: Duration = Duration::from_secs(10);

/// Where the certificates are, and what must be in them.
#[derive(Clone)]
pub struct Renewal {
    pub data: DataDir,
    pub part: Arc<ServerPart>,
}

// === impl Renewal ===

impl Renewal {
    /// Reads the certificates, issues what is missing, wrong or near its end, and writes the administrator's kubeconfig.
    pub fn ensure(&self) -> anyhow::Result<Pki> {
        let pki = {
            let _turn = self.data.lock_pki()?;
            pki::ensure(&self.data.pki(), &self.part.serving_names(), self.part.certificate_life)?
        };
        credentials::write_admin(
            &pki.authority,
            &self.part.url(),
            &self.kubeconfig(),
            self.part.certificate_life,
        )?;
        Ok(pki)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.data.admin_kubeconfig()
    }

    /// Renews until `stop`. `due` is when the certificates that are shown now are to be renewed.
    pub async fn run(self, server: ApiServer, mut due: SystemTime, stop: CancellationToken) {
        loop {
            let left = due.duration_since(SystemTime::now()).unwrap_or_default();
            let pause = tokio::time::sleep(left.min(LOOK_EVERY));
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
            if SystemTime::now() < due {
                continue;
            }
            due = match self.renew(&server).await {
                Ok(next) => next.max(SystemTime::now() + LEAST),
                Err(error) => {
                    tracing::error!("the API server's certificates are not renewed yet: {error:#}");
                    SystemTime::now() + AGAIN
                }
            };
        }
    }

    /// Issues what is due, shows it, and says when the next one is.
    async fn renew(&self, server: &ApiServer) -> anyhow::Result<SystemTime> {
        let renewal = self.clone();
        // Files, and a lock that another process may hold for a moment.
        let pki = tokio::task::spawn_blocking(move || renewal.ensure()).await.context("it panicked")??;
        server.show(&certificates(&pki))?;
        let due = next_due(&pki);
        tracing::info!(
            next_in = ?due.duration_since(SystemTime::now()).unwrap_or_default(),
            "the API server's certificates are renewed"
        );
        Ok(due)
    }
}

/// When the first of them is to be renewed, at another moment each time.
pub fn next_due(pki: &Pki) -> SystemTime {
    pki.renewal_due(rand::random())
}

fn certificates(pki: &Pki) -> Certificates {
    let pair = |issued: &Issued| Pair {
        certificate_pem: issued.certificate_pem.clone().into_bytes(),
        key_pem: issued.key_pem.clone().into_bytes(),
    };
    Certificates {
        serving: pair(&pki.serving),
        kubelet_client: pair(&pki.kubelet_client),
        front_proxy_client: pair(&pki.front_proxy_client),
    }
}
