//! Making the cluster once everything is built: network, namespaces, processes, images, demo.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};

use super::demo;
use super::phases::Phases;
use super::pool;
use crate::cluster::layout::{Layout, NodeLayout, make_private};
use crate::cluster::{containerd, host_network, node_namespaces, teardown};
use crate::command;

const READY_TIMEOUT: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(25);
const LAST_LINES: usize = 12;

/// Brings the cluster up and waits until every node is Ready and, with the demo, serves it.
pub fn bring_up(layout: &Layout, archives: &[PathBuf], with_demo: bool, phases: &mut Phases) -> Result<()> {
    layout.save()?;
    make_private(&layout.data())?;
    make_private(&layout.logs())?;
    make_private(&layout.control())?;
    host_network::create(layout)?;
    for_every_node(layout, |node| {
        node_namespaces::create(node)?;
        containerd::write_config(node)
    })?;
    write_credentials(layout)?;
    phases.reached("namespaces, links and keys made");
    start_supervisor(layout)?;
    for_every_node(layout, |node| {
        wait_for(layout, &format!("containerd of {}", node.name), || {
            containerd::listens(&node.containerd_socket())
        })?;
        archives.iter().try_for_each(|archive| containerd::import(node, archive))?;
        std::os::unix::fs::symlink(node.containerd_socket(), node.runtime_socket())
            .with_context(|| format!("cannot make {}", node.runtime_socket().display()))
    })?;
    phases.reached("containerd up, images loaded");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(wait_until_serving(layout, with_demo, phases))
}

async fn wait_until_serving(layout: &Layout, with_demo: bool, phases: &mut Phases) -> Result<()> {
    let client = wait_for_api(layout).await?;
    phases.reached("API server ready");
    // Replicas spread over the nodes that are there when they are scheduled: with several nodes the demo waits for all.
    let demo_waits = layout.agent_count() > 1;
    if with_demo && !demo_waits {
        demo::install(&client).await?;
    }
    wait_for_nodes(layout, &client).await?;
    phases.reached("every node Ready");
    pool::install(layout, &client).await?;
    if with_demo && demo_waits {
        demo::install(&client).await?;
    }
    if with_demo {
        demo::wait_until_served(layout, READY_TIMEOUT).await?;
        phases.reached("demo served by every node");
    }
    Ok(())
}

/// Prints the end of each process's log, for whoever has to find out why it failed.
pub fn show_last_words(layout: &Layout) {
    let Ok(entries) = std::fs::read_dir(layout.logs()) else {
        return;
    };
    for entry in entries.flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if !lines.is_empty() {
            let tail = &lines[lines.len().saturating_sub(LAST_LINES)..];
            eprintln!("--- end of {} ---\n{}", entry.file_name().to_string_lossy(), tail.join("\n"));
        }
    }
}

fn for_every_node(layout: &Layout, work: impl Fn(&NodeLayout) -> Result<()> + Sync) -> Result<()> {
    let nodes = layout.nodes();
    std::thread::scope(|scope| {
        let workers: Vec<_> = nodes.iter().map(|node| scope.spawn(|| work(node))).collect();
        workers.into_iter().try_for_each(|it| it.join().unwrap_or_else(|_| bail!("a node's set-up panicked")))
    })
}

/// The administrator's kubeconfig, one with a serving certificate for each node, and that of service proxies.
fn write_credentials(layout: &Layout) -> Result<()> {
    let credentials = |words: &[&str], out: &Path| {
        let program = layout.binaries.join("orchestrator").display().to_string();
        let data = format!("--data-dir={}", layout.control().display());
        let server = format!("--server={}", layout.server_url());
        let out = format!("--out={}", out.display());
        let mut arguments = vec!["credentials"];
        arguments.extend(words);
        arguments.extend([data.as_str(), server.as_str(), out.as_str()]);
        command::capture(&program, &arguments).map(drop)
    };
    credentials(&["admin"], &layout.kubeconfig())?;
    for node in layout.nodes_with_agent() {
        let address = format!("--address={}", node.address());
        credentials(&["node", &node.name, &address], &node.kubeconfig())?;
    }
    if layout.kube_proxy.is_some() {
        credentials(&["user", "system:kube-proxy"], &layout.proxy_kubeconfig())?;
    }
    Ok(())
}

fn start_supervisor(layout: &Layout) -> Result<()> {
    let tree = crate::preflight::cgroup_v2_mount()?;
    let folder = tree.join(layout.cgroup().trim_start_matches('/')).join("control");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
    let log = std::fs::File::create(layout.logs().join("supervisor.log"))
        .context("cannot write the supervisor's log")?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    // SAFETY: between fork and exec only setsid(2) is called.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
    let child = command
        .args(["supervise", "--name", &layout.name])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the supervisor")?;
    std::fs::write(folder.join("cgroup.procs"), child.id().to_string())
        .context("cannot move the supervisor to its cgroup")?;
    std::fs::write(layout.run().join("supervisor.pid"), child.id().to_string())
        .context("cannot note the supervisor")
}

fn wait_for(layout: &Layout, what: &str, condition: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    while !condition() {
        check_time(layout, what, deadline)?;
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn check_time(layout: &Layout, what: &str, deadline: Instant) -> Result<()> {
    if Instant::now() > deadline {
        bail!("{what} was not there after {} s", READY_TIMEOUT.as_secs());
    }
    if teardown::supervisor(layout).is_none() {
        bail!("the supervisor ended while {what} was awaited");
    }
    Ok(())
}

async fn wait_for_api(layout: &Layout) -> Result<Client> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let config =
        kube::config::Kubeconfig::read_from(layout.kubeconfig()).context("cannot read the new kubeconfig")?;
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await?;
    let client = Client::try_from(config)?;
    loop {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        if client.request_text(request).await.is_ok() {
            return Ok(client);
        }
        check_time(layout, "the API server", deadline)?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits for every node to be Ready, and routes its pods as soon as it has a range for them.
async fn wait_for_nodes(layout: &Layout, client: &Client) -> Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let api: Api<Node> = Api::all(client.clone());
    let mut routed = std::collections::BTreeSet::new();
    loop {
        let nodes = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        for node in layout.nodes_with_agent() {
            let found = nodes.iter().find(|it| it.metadata.name.as_deref() == Some(&node.name));
            let ranges = found.and_then(|it| it.spec.as_ref()?.pod_cidrs.clone());
            if let Some(ranges) = ranges
                && routed.insert(node.name.clone())
            {
                ranges.iter().try_for_each(|range| host_network::route_pods(&node, range))?;
            }
        }
        let ready = nodes.iter().filter(|it| is_ready(it)).count();
        let wanted = layout.agent_count();
        if ready == usize::from(wanted) && routed.len() == ready {
            return Ok(());
        }
        check_time(layout, &format!("Ready on all nodes ({ready} of {wanted})"), deadline)?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|it| it.type_ == "Ready" && it.status == "True"))
}
