//! A control plane to measure with: our orchestrator, its store in memory, and a client of it.
//!
//! In memory because it is filled by a hundred thousand writes, each of which would wait for a disk. Must not know what is
//! measured, nor who else follows it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use penstock_tests::eventually::eventually;
use penstock_tests::netns::Netns;
use tokio::runtime::Runtime;

use crate::cluster::objects;
use crate::process::{self, Running};

pub const API_PORT: u16 = 6443;
pub const SERVICE_CIDR: &str = "10.96.0.0/12";
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";
const START_MAX: Duration = Duration::from_secs(60);

/// A running control plane.
pub struct Control {
    // In the order in which they are to go.
    pub client: kube::Client,
    pub runtime: Runtime,
    _orchestrator: Running,
    data: Mounted,
}

/// Memory that is mounted as a folder.
struct Mounted(PathBuf);

// === impl Control ===

impl Control {
    /// Starts in the calling thread's namespace, which has this address; with the thread it ends.
    pub fn start(folder: &Path, address: Ipv4Addr) -> Result<Control> {
        // Several crates bring TLS; the process decides once which cryptography they share.
        drop(rustls::crypto::ring::default_provider().install_default());
        let data = Mounted::new(folder.join("control"))?;
        let mut orchestrator = process::command("orchestrator")?;
        orchestrator.arg("run").arg("--data-dir").arg(&data.0);
        orchestrator.args([
            format!("--listen={address}:{API_PORT}"),
            format!("--advertise-address={address}"),
            format!("--service-cidr={SERVICE_CIDR}"),
            format!("--cluster-cidr={CLUSTER_CIDR}"),
        ]);
        let here = Netns::current()?;
        let orchestrator = Running::spawn(orchestrator, &here, folder.join("orchestrator.log"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let kubeconfig = data.0.join("admin.kubeconfig");
        let client = eventually(START_MAX, || {
            runtime.block_on(async {
                let client = connect(&kubeconfig).await?;
                objects::is_ready(&client).await?;
                anyhow::Ok(client)
            })
        })
        .context("the orchestrator does not serve")?;
        Ok(Control { client, runtime, _orchestrator: orchestrator, data })
    }

    /// Where its keys and kubeconfigs are.
    pub fn data(&self) -> &Path {
        &self.data.0
    }

    /// The kubeconfig of who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.0.join("admin.kubeconfig")
    }
}

async fn connect(kubeconfig: &Path) -> Result<kube::Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).context("the kubeconfig")?;
    let options = kube::config::KubeConfigOptions::default();
    Ok(kube::Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?)?)
}

// === impl Mounted ===

impl Mounted {
    fn new(folder: PathBuf) -> Result<Mounted> {
        std::fs::create_dir(&folder).context("a folder for the control plane")?;
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
            .context("mounting a file system in memory")?;
        Ok(Mounted(folder))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
