//! A machine that becomes a node by the one command that `orchestrator token create` prints, in a cluster whose certificates
//! live for a minute.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use penstock_tests::cluster::{Cluster, PATIENCE};
use penstock_tests::eventually::eventually;

use super::Scenario;

pub const SCENARIOS: &[Scenario] =
    &[("a_machine_joins_by_one_command_runs_a_pod_and_outlives_its_certificates", joins)];

const NAME: &str = "joins";
/// The machine that has no agent yet.
const NODE: &str = "node-2";
const LIFE: Duration = Duration::from_secs(60);

fn joins(_: &Cluster) -> Result<()> {
    let life = format!("{}s", LIFE.as_secs());
    let cluster = Cluster::up_spare(
        NAME,
        &[&format!("--certificate-validity-period={life}"), &format!("--cluster-signing-duration={life}")],
    )?;
    let control_plane = cluster.pid("control", "orchestrator")?;
    let agent = Agent::start(&cluster)?;
    let ready = eventually(PATIENCE, || {
        let said = cluster.kubectl(&["get", "node", NODE, "--no-headers"])?;
        ensure!(said.split_whitespace().nth(1) == Some("Ready"), "{said}");
        Ok(())
    });
    ready.with_context(|| agent.log())?;
    let address = cluster.kubectl(&["get", "node", NODE, "-o", "jsonpath={.status.addresses[0].address}"])?;
    ensure!(address.parse::<std::net::IpAddr>().is_ok(), "the node's address is {address:?}");

    runs_a_pod(&cluster)?;
    approve_serving(&cluster)?;
    let read_log = || {
        let said = cluster.kubectl(&["logs", "visitor"])?;
        ensure!(!said.is_empty(), "the log is empty");
        Ok::<_, anyhow::Error>(())
    };
    eventually(PATIENCE, read_log).context("the log of a pod on the new node")?;

    // Until the node has its third certificate, and all of the beginning have ended.
    let began = Instant::now();
    let mut certificates = vec![certificate(&agent.kubeconfig)?];
    while certificates.len() < 3 || began.elapsed() < 2 * LIFE {
        ensure!(began.elapsed() < 6 * LIFE, "{} certificates: {}", certificates.len(), agent.log());
        let present = certificate(&agent.kubeconfig)?;
        if certificates.last() != Some(&present) {
            certificates.push(present);
        }
        let said = cluster.kubectl(&["get", "node", NODE, "--no-headers"]).context("kubectl get")?;
        ensure!(said.split_whitespace().nth(1) == Some("Ready"), "{said}{}", agent.log());
        std::thread::sleep(Duration::from_millis(500));
    }
    // By the API server's new certificate for nodes, to the node's present one, which may wait for its approval again.
    approve_serving(&cluster)?;
    eventually(PATIENCE, read_log).context("the log of the pod, later")?;
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    ensure!(cluster.kubectl(&["get", "pod", "visitor", "-o", restarts])? == "0", "the pod was restarted");
    ensure!(cluster.pid("control", "orchestrator")? == control_plane, "the control plane was restarted");
    agent.stop()
}

fn runs_a_pod(cluster: &Cluster) -> Result<()> {
    let image = "jsonpath={.items[0].spec.containers[0].image}";
    let image = cluster.kubectl(&["-n", "demo", "get", "pods", "-o", image])?;
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: visitor }}\nspec:\n  nodeName: {NODE}\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{{ name: demo, image: '{image}', \
         imagePullPolicy: Never, command: [/bin/demo, serve] }}]\n"
    );
    cluster.kubectl_with(&["create", "-f", "-"], &pod)?;
    eventually(PATIENCE, || {
        let phase = cluster.kubectl(&["get", "pod", "visitor", "-o", "jsonpath={.status.phase}"])?;
        ensure!(phase == "Running", "the pod is {phase}");
        Ok(())
    })
}

/// What a person does for each request of the node's server; there may be none.
fn approve_serving(cluster: &Cluster) -> Result<()> {
    eventually(PATIENCE, || {
        let said = cluster.kubectl(&["get", "csr", "--no-headers"])?;
        let asked = said.lines().filter(|line| line.starts_with(&format!("node-serving-{NODE}-")));
        let pending: Vec<&str> = asked
            .clone()
            .filter(|line| line.contains("Pending"))
            .filter_map(|line| line.split(' ').next())
            .collect();
        for name in &pending {
            cluster.kubectl(&["certificate", "approve", name])?;
        }
        ensure!(asked.count() > 0 && pending.is_empty(), "{said}");
        Ok(())
    })
}

/// The certificate in a kubeconfig.
fn certificate(kubeconfig: &Path) -> Result<String> {
    let text = std::fs::read_to_string(kubeconfig)?;
    let line = text.lines().find(|line| line.contains("client-certificate-data"));
    line.map(str::to_owned).context("the kubeconfig has no certificate")
}

/// The agent of the machine, started by hand; gone when dropped.
struct Agent {
    process: Child,
    log: PathBuf,
    kubeconfig: PathBuf,
}

impl Agent {
    fn start(cluster: &Cluster) -> Result<Self> {
        let own = std::env::current_exe()?;
        let target = own.ancestors().nth(2).context("no target folder")?;
        let data = PathBuf::from("/var/lib/penstock").join(NAME);
        let said = Command::new(target.join("orchestrator"))
            .args(["token", "create", "--data-dir"])
            .arg(data.join("control"))
            .output()?;
        ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let said = String::from_utf8(said.stdout)?;
        let printed = said.lines().find(|line| line.contains("node-agent run")).context(said.clone())?;
        let mut words: Vec<String> = printed.split_whitespace().map(str::to_owned).collect();
        words[0] = target.join("node-agent").display().to_string();
        // What differs because several nodes share this machine, and its containerd lies elsewhere.
        let state = PathBuf::from(cluster.agent_state_dir(NODE));
        let run = PathBuf::from("/run/penstock").join(NAME).join(NODE);
        words.extend([
            format!("--node-name={NODE}"),
            format!("--state-dir={}", state.display()),
            format!("--runtime-endpoint=unix://{}", run.join("runtime.sock").display()),
            format!("--cgroup-parent=/penstock/{NAME}/{NODE}"),
            format!("--cluster-cidr={}", cluster.pod_range()?),
        ]);
        let log = data.join("logs").join("joined.log");
        let file = std::fs::File::create(&log)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let process = cluster
            .in_node_command(NODE, &words)?
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self { process, log, kubeconfig: state.join("kubeconfig") })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// It has run all the time.
    fn stop(mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the agent ended ({status}): {}", self.log()),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
