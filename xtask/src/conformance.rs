//! `cargo xtask conformance`: a fresh cluster, and a Kubernetes conformance binary run against it.
//!
//! The binary (`e2e.test` of a Kubernetes release) and the images of its tests are the user's. Tests that may run
//! beside each other are shared out in small batches over several processes; what must run alone follows.

mod batches;
mod report;
mod suite;
mod summary;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::cluster::layout::{Layout, StoreKind};
use crate::cluster::teardown;
use crate::{preflight, up};
use batches::Batches;
use suite::{Choice, Suite};
use summary::Summary;

const NAME: &str = "conformance";

#[derive(clap::Args)]
pub struct Options {
    /// The conformance binary of a Kubernetes release (`e2e.test`)
    #[arg(long)]
    suite: PathBuf,
    /// Folder of image archives (OCI or Docker, *.tar) that the tests use, preloaded on every node
    #[arg(long)]
    images: Option<PathBuf>,
    /// Only tests whose name this matches; may be given several times
    #[arg(long)]
    focus: Vec<String>,
    /// No tests whose name this matches; may be given several times
    #[arg(long)]
    skip: Vec<String>,
    /// Choose among all tests of the binary, not only those of conformance
    #[arg(long)]
    every: bool,
    /// Nodes of the cluster; the whole suite needs two
    #[arg(long, default_value_t = 2)]
    nodes: u16,
    /// Tests that run beside each other
    #[arg(long, default_value_t = 8)]
    processes: usize,
    /// Use this cluster, which is not touched otherwise, instead of bringing one up
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Leave the cluster running afterwards
    #[arg(long)]
    keep: bool,
    /// Write the outcome of each test to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

pub fn run(options: &Options) -> Result<()> {
    let choice = Choice::new(&options.focus, &options.skip, options.every)?;
    if !options.suite.is_file() {
        bail!(
            "--suite {}: there is no such file; build `e2e.test` of a Kubernetes release",
            options.suite.display()
        );
    }
    if options.processes == 0 {
        bail!("--processes 0 runs nothing: use 1 or more");
    }
    let kubeconfig = match &options.kubeconfig {
        Some(file) => file.clone(),
        None => bring_up(options)?,
    };
    let suite = Suite { binary: options.suite.clone(), kubeconfig, nodes: options.nodes };
    let outcome = test(options, &suite, &choice);
    match Layout::load(NAME)? {
        Some(layout) if options.kubeconfig.is_none() && !options.keep => teardown::remove(&layout, false)?,
        Some(layout) if options.kubeconfig.is_none() => {
            println!("the cluster runs on: KUBECONFIG={}", layout.kubeconfig().display());
        }
        _ => {}
    }
    outcome
}

fn bring_up(options: &Options) -> Result<PathBuf> {
    if let Some(former) = Layout::load(NAME)? {
        println!("removing the cluster of a former run");
        teardown::remove(&former, false)?;
    }
    // Many pods of tests watch files at once; the kernel's default is for one desktop.
    preflight::allow_file_watches()?;
    up::run(&up::Options {
        nodes: options.nodes,
        name: NAME.to_owned(),
        port: 6443,
        store: StoreKind::Embedded,
        ip_families: Vec::new(),
        spare: 0,
        control_flag: Vec::new(),
        images: options.images.clone(),
        no_demo: true,
        kube_proxy: None,
        kube_proxy_mode: String::new(),
        json: None,
    })?;
    let layout = Layout::load(NAME)?.context("the cluster went away right after it came up")?;
    Ok(layout.kubeconfig())
}

fn test(options: &Options, suite: &Suite, choice: &Choice) -> Result<()> {
    let tests = suite.list(choice)?;
    if tests.is_empty() {
        bail!("no test of {} is chosen: see --focus, --skip and --every", options.suite.display());
    }
    let batches = Batches::plan(&tests, options.processes);
    println!(
        "{} tests: {} beside each other in {} processes, {} alone",
        tests.len(),
        batches.beside.iter().map(Vec::len).sum::<usize>(),
        options.processes,
        batches.alone.iter().map(Vec::len).sum::<usize>()
    );
    let results = batches.run(suite, options.processes)?;
    let summary = Summary::new(results);
    summary.print();
    if let Some(file) = &options.json {
        summary.write(file)?;
    }
    match summary.failed() {
        0 => Ok(()),
        failed => bail!("{failed} of {} tests failed", tests.len()),
    }
}
