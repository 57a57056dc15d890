//! `cargo xtask up`: from whatever this machine is to a cluster that serves the demo over eBPF.
//!
//! Checks first and changes nothing until the checks pass; says what it does while it does it; removes everything
//! again when it fails.

mod bring_up;
mod demo;
mod families;
mod phases;
mod pool;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};

use crate::cluster::layout::{self, Families, Layout, StoreKind};
use crate::cluster::teardown;
use crate::{artifacts, ebpf, image, packages, preflight};
pub use families::IpFamily;
use phases::Phases;

#[derive(clap::Args, Clone)]
pub struct Options {
    /// How many nodes, each in its own namespaces with its own containerd
    #[arg(long, default_value_t = 1)]
    pub nodes: u16,
    /// Name of the cluster
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Port of the API server on the node network
    #[arg(long, default_value_t = 6443)]
    pub port: u16,
    /// What keeps the objects
    #[arg(long, value_enum, default_value = "embedded")]
    pub store: StoreKind,
    /// Address families of nodes, pods and Services: ipv4, ipv6, or ipv4,ipv6 [default: those of a kept store, else both where the machine has IPv6]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub ip_families: Vec<IpFamily>,
    /// Folder of image archives (OCI or Docker, *.tar) to preload on every node
    #[arg(long)]
    pub images: Option<PathBuf>,
    /// Do not install the demo application
    #[arg(long)]
    pub no_demo: bool,
    /// Write the time of each phase to this file, as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
}

pub fn run(options: &Options) -> Result<()> {
    check(options)?;
    if let Some(running) = already_running(options)? {
        println!("{running}");
        return Ok(());
    }
    let mut phases = Phases::new();
    let families = choose_families(options)?;
    preflight::check_machine(&layout::data_of(&options.name))?;
    check_port(options, &Layout::all()?)?;
    phases.measure("install what is missing", || {
        packages::ensure(packages::FOR_BUILD)?;
        packages::ensure(packages::FOR_CLUSTER)?;
        if options.store == StoreKind::Etcd {
            packages::ensure(packages::FOR_TESTS)?;
        }
        Ok(())
    })?;
    let (object, binaries) =
        phases.measure("build orchestrator, node-agent, cni and the eBPF programs", build_both)?;
    std::fs::copy(&object, binaries.join("penstock.bpf.o"))
        .context("cannot put the eBPF object beside the programs")?;
    let images = artifacts::target().join("images");
    let mut archives = phases.measure("build the demo's images", || image::build(&images))?;
    archives.extend(preloaded(options)?);
    // Looked at again: building may have taken minutes.
    let layout = plan(options, binaries, families)?;
    let kept_store = layout.has_store();
    families::keep(&layout)?;
    phases.builds_are_over();
    let outcome = bring_up::bring_up(&layout, &archives, !options.no_demo, &mut phases);
    if let Err(error) = outcome {
        bring_up::show_last_words(&layout);
        eprintln!("removing what was made of cluster {}", layout.name);
        if let Err(left) = teardown::remove(&layout, kept_store) {
            eprintln!("{left:#}");
        }
        return Err(error);
    }
    phases.print();
    if let Some(file) = &options.json {
        phases.write(file)?;
    }
    print_next_steps(&layout, !options.no_demo);
    Ok(())
}

/// The eBPF object and the folder of the programs, at the same time: one thread links the object for minutes.
fn build_both() -> Result<(PathBuf, PathBuf)> {
    std::thread::scope(|scope| {
        let object = scope.spawn(ebpf::build);
        let binaries = artifacts::build_programs();
        let object =
            object.join().map_err(|_| anyhow!("the build of the eBPF programs panicked, see above"))?;
        Ok((object?, binaries?))
    })
}

fn check(options: &Options) -> Result<()> {
    layout::check_name(&options.name)?;
    if options.nodes == 0 || options.nodes > layout::NODES_MAX {
        bail!("--nodes {}: a cluster on one machine has 1 to {} nodes", options.nodes, layout::NODES_MAX);
    }
    families::choose(&options.ip_families, None, preflight::has_ipv6())?;
    if let Some(folder) = &options.images
        && !folder.is_dir()
    {
        bail!("--images {}: there is no such folder", folder.display());
    }
    Ok(())
}

/// Which families the cluster gets; says so when it goes without one that nobody left out.
fn choose_families(options: &Options) -> Result<Families> {
    let has_ipv6 = preflight::has_ipv6();
    let families = families::choose(&options.ip_families, families::kept(&options.name)?, has_ipv6)?;
    if families == Families::V4 && !has_ipv6 && options.ip_families.is_empty() {
        println!(
            "- IPv6 is off on this machine (net.ipv6.conf.default.disable_ipv6): the cluster has IPv4 alone"
        );
    }
    Ok(families)
}

/// What to say when the cluster is up already. Remains of one that is not are removed.
fn already_running(options: &Options) -> Result<Option<String>> {
    let Some(found) = Layout::load(&options.name)? else {
        return Ok(None);
    };
    if teardown::supervisor(&found).is_some() {
        let mut text = format!(
            "cluster {} runs already, with {} node(s); nothing was changed",
            found.name, found.node_count
        );
        if found.node_count != options.nodes {
            text.push_str("\nfor another number of nodes: `cargo xtask down --keep-data`, then `cargo xtask up --nodes N`");
        }
        text.push_str(&format!("\nKUBECONFIG={}", found.kubeconfig().display()));
        return Ok(Some(text));
    }
    println!(
        "cluster {} was not taken down but is not running: removing what is left of it, keeping its store",
        found.name
    );
    teardown::remove(&found, true)?;
    Ok(None)
}

fn plan(options: &Options, binaries: PathBuf, families: Families) -> Result<Layout> {
    let taken = Layout::all()?;
    let layout = Layout {
        name: options.name.clone(),
        index: layout::free_index(&taken)?,
        node_count: options.nodes,
        port: options.port,
        store: options.store,
        families,
        binaries,
    };
    check_port(options, &taken)?;
    Ok(layout)
}

/// Clusters beside each other listen on addresses of their own; the first must not meet anybody else's.
fn check_port(options: &Options, running: &[Layout]) -> Result<()> {
    if running.is_empty() { preflight::check_port(options.port) } else { Ok(()) }
}

fn preloaded(options: &Options) -> Result<Vec<PathBuf>> {
    let Some(folder) = &options.images else {
        return Ok(Vec::new());
    };
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut archives: Vec<PathBuf> = entries
        .flatten()
        .map(|it| it.path())
        .filter(|it| it.extension().is_some_and(|end| end == "tar"))
        .collect();
    archives.sort();
    if archives.is_empty() {
        bail!("--images {}: the folder has no .tar archives", folder.display());
    }
    Ok(archives)
}

fn print_next_steps(layout: &Layout, with_demo: bool) {
    let kubeconfig = layout.kubeconfig();
    println!("\nKUBECONFIG={}\n", kubeconfig.display());
    println!("Three things to try:");
    println!("  export KUBECONFIG={}; kubectl get pods --all-namespaces --output wide", kubeconfig.display());
    if with_demo {
        let node = SocketAddr::new(layout.nodes()[0].address(), layout::DEMO_NODE_PORT);
        println!("  curl http://{node}");
        println!("  kubectl --namespace demo exec -it deploy/hello -- demo fetch http://hello.demo/ 6");
    } else {
        println!("  kubectl create deployment web --image={} -- /bin/demo serve", image::DEMO);
        println!("  kubectl expose deployment web --port=80 --target-port=8080");
    }
}
