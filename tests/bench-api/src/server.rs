//! Servers that are started for a run, and end with it.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::Endpoint;
use crate::{kubeconfig, pki};

/// How long a server has to become ready on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// A process that ends when this is dropped, or with us.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    fn start(mut command: Command, name: &str, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
        }
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    /// Its resident set, in MB.
    pub fn resident_mb(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("{} has no resident set", self.name))? * 1024.0 / 1e6)
    }

    fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(5).collect();
            bail!(
                "{} ended ({status}): {}",
                self.name,
                last.into_iter().rev().collect::<Vec<_>>().join(" | ")
            );
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // One that ended meanwhile is what is wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let until = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether etcd can be started here.
pub fn has_etcd() -> bool {
    let version = Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Starts an etcd of one member; gives its URL.
pub async fn etcd(folder: &Path) -> Result<(Process, String)> {
    let port = free_port()?;
    let (client, peer) = (url("http", port), url("http", free_port()?));
    let mut command = Command::new("etcd");
    command
        .args(["--name", "bench", "--log-level", "error", "--data-dir"])
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("bench={peer}"), "--quota-backend-bytes", "8589934592"]);
    let mut process = Process::start(command, "etcd", folder)?;
    let until = Instant::now() + START_TIMEOUT;
    // It listens to clients once it has elected itself.
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        process.check_alive()?;
        wait(until, "etcd did not listen").await?;
    }
    Ok((process, client))
}

/// Starts our own API server, alone; with an etcd's URL on that.
pub async fn orchestrator(program: &Path, folder: &Path, etcd: Option<&str>) -> Result<(Process, Endpoint)> {
    let port = free_port()?;
    let data = folder.join("data");
    let mut command = Command::new(program);
    command
        .args(["run", "--components", "apiserver", "--advertise-address", "127.0.0.1", "--listen"])
        .arg(format!("127.0.0.1:{port}"))
        .arg("--data-dir")
        .arg(&data);
    if let Some(etcd) = etcd {
        command.args(["--store", "etcd", "--etcd-endpoints", etcd]);
    }
    let mut process = Process::start(command, "orchestrator", folder)?;
    let until = Instant::now() + START_TIMEOUT;
    let endpoint = loop {
        process.check_alive()?;
        // It is written at the start and names the server as others reach it.
        if let Ok(endpoint) = kubeconfig::read(&data.join("admin.kubeconfig")) {
            break endpoint;
        }
        wait(until, "orchestrator wrote no kubeconfig").await?;
    };
    ready(&mut process, &endpoint, until).await?;
    Ok((process, endpoint))
}

/// Starts upstream's API server on an etcd.
pub async fn kube_apiserver(program: &Path, folder: &Path, etcd: &str) -> Result<(Process, Endpoint)> {
    let pki = pki::write(folder)?;
    let port = free_port()?;
    let mut command = Command::new(program);
    let file = |name: &str| folder.join(name).display().to_string();
    command.args([
        format!("--etcd-servers={etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", file(pki::SERVING)),
        format!("--tls-private-key-file={}", file(pki::SERVING_KEY)),
        format!("--client-ca-file={}", file(pki::AUTHORITY)),
        format!("--service-account-key-file={}", file(pki::TOKENS_PUBLIC_KEY)),
        format!("--service-account-signing-key-file={}", file(pki::TOKENS_KEY)),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--cert-dir={}", folder.display()),
    ]);
    let mut process = Process::start(command, "kube-apiserver", folder)?;
    let endpoint = kubeconfig::endpoint(
        &url("https", port),
        pki.authority_pem.as_bytes(),
        Some((pki.client_pem.as_bytes(), pki.client_key_pem.as_bytes())),
        None,
    )?;
    ready(&mut process, &endpoint, Instant::now() + START_TIMEOUT).await?;
    Ok((process, endpoint))
}

async fn ready(process: &mut Process, endpoint: &Endpoint, until: Instant) -> Result<()> {
    let request = endpoint.request("GET", "/readyz", "*/*", b"");
    loop {
        process.check_alive()?;
        if let Ok(mut connection) = endpoint.connect().await
            && connection.ask(&request).await.is_ok()
        {
            return Ok(());
        }
        wait(until, "the server did not become ready").await?;
    }
}

async fn wait(until: Instant, what: &str) -> Result<()> {
    if Instant::now() > until {
        bail!("{what} within {} s", START_TIMEOUT.as_secs());
    }
    tokio::time::sleep(POLL).await;
    Ok(())
}

fn url(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

/// A port that nobody has now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
