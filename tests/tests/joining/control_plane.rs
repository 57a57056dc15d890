//! An orchestrator that runs, gone with the test.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use penstock_identity::{Join, JoinToken, KeyHash};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// See the module.
pub struct ControlPlane {
    pub directory: TempDir,
    pub address: SocketAddr,
    flags: Vec<String>,
    process: Option<Child>,
}

/// Why there is no program to test, if so.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.ancestors().nth(2).context("no target folder")?.join("orchestrator");
    ensure!(program.exists(), "{} is not built: cargo build -p orchestrator", program.display());
    Ok(program)
}

// === impl ControlPlane ===

impl ControlPlane {
    /// One that is ready.
    pub async fn start(flags: &[&str]) -> Result<Self> {
        let mut control_plane = Self::prepare(flags)?;
        control_plane.launch()?;
        control_plane.until_ready().await?;
        Ok(control_plane)
    }

    /// One that does not run yet, and a port for it.
    pub fn prepare(flags: &[&str]) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Ok(Self { directory: tempfile::tempdir()?, address, flags, process: None })
    }

    pub fn launch(&mut self) -> Result<()> {
        let log = std::fs::File::create(self.directory.path().join("log"))?;
        let child = Command::new(program()?)
            .arg("run")
            .arg(format!("--data-dir={}", self.data_dir().display()))
            .arg(format!("--listen={}", self.address))
            .arg("--advertise-address=127.0.0.1")
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(child);
        Ok(())
    }

    pub async fn until_ready(&mut self) -> Result<()> {
        eventually("the API server is ready", async || {
            let client = self.admin().await?;
            client.request_text(http::Request::get("/readyz").body(Vec::new())?).await?;
            Ok(())
        })
        .await
        .with_context(|| self.log())
    }

    /// Ends the process, and leaves its data.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Whether it still is the process that was started.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|it| matches!(it.try_wait(), Ok(None)))
    }

    /// A client of the administrator's, with the certificate that lies in the data directory at the moment.
    pub async fn admin(&self) -> Result<Client> {
        let config = penstock_identity::read(&self.data_dir().join("admin.kubeconfig")).await?;
        Ok(Client::try_from(config)?)
    }

    /// `orchestrator token WORDS`; what it printed.
    pub fn token(&self, words: &[&str]) -> Result<String> {
        let said = Command::new(program()?)
            .arg("token")
            .args(words)
            .arg("--data-dir")
            .arg(self.data_dir())
            .output()?;
        let complaint = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success(), "orchestrator token {words:?}: {complaint}");
        Ok(String::from_utf8(said.stdout)?)
    }

    /// What `token create` tells a machine to do, as that machine understands it.
    pub fn invitation(&self, node: &str, words: &[&str]) -> Result<Join> {
        let said = self.token(&[&["create"], words].concat())?;
        let command = said.lines().find(|line| line.contains("--join")).with_context(|| said.clone())?;
        let value = |flag: &str| -> Result<String> {
            let mut words = command.split_whitespace().skip_while(|word| *word != flag).skip(1);
            words.next().map(str::to_owned).with_context(|| format!("no {flag} in {command}"))
        };
        let wrong = |why: String| anyhow::anyhow!(why);
        let pins = value("--ca-hash")?.split(',').map(str::parse).collect::<Result<Vec<KeyHash>, _>>();
        let token: JoinToken = value("--token")?.parse().map_err(wrong)?;
        let first = said.lines().next().unwrap_or_default();
        ensure!(first.starts_with(token.id()), "the first line is not the token: {said}");
        Ok(Join {
            server: value("--join")?,
            token,
            pins: pins.map_err(wrong)?,
            node: node.to_owned(),
            kubeconfig: self.directory.path().join(node).join("kubeconfig"),
            authority: self.directory.path().join(node).join("ca.crt"),
        })
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Looks until `look` succeeds; its last error when patience is over.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        match look().await {
            Err(error) if tokio::time::Instant::now() > deadline => {
                return Err(error.context(what.to_owned()));
            }
            Err(_) => {}
            value => return value,
        }
    }
}
