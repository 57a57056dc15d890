//! `cargo xtask bench start`: how long a cluster takes to serve, what it holds when idle, how big its programs are.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::report::{Report, Row, median};
use crate::cluster::layout::{Layout, StoreKind};
use crate::cluster::teardown;
use crate::{artifacts, command, preflight, up};

const NAME: &str = "bench";
/// Goals of the project: seconds after the builds, MB resident when idle, MB of a stripped program.
const PHASE_GOALS: &[(&str, f64)] = &[("every node Ready", 3.0), ("demo served by every node", 6.0)];
const MEMORY_GOALS: &[(&str, f64)] = &[("orchestrator", 60.0), ("node-agent", 50.0)];
const SIZE_GOAL_MB: f64 = 40.0;
const MB: f64 = 1_000_000.0;

#[derive(clap::Args)]
pub struct Options {
    /// How often the cluster is brought up; medians are reported
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Nodes of the cluster
    #[arg(long, default_value_t = 1)]
    nodes: u16,
    /// How long a cluster that serves is left alone before its memory is read
    #[arg(long, default_value_t = 10)]
    idle_seconds: u64,
}

/// What one round saw.
struct Round {
    phases: Vec<(String, f64)>,
    memory_mb: Vec<(String, f64)>,
}

pub fn run(options: &Options) -> Result<Report> {
    if options.rounds == 0 {
        bail!("--rounds 0 measures nothing: use 1 or more");
    }
    let rounds: Vec<Round> = (0..options.rounds).map(|_| measure(options)).collect::<Result<_>>()?;
    let mut rows = Vec::new();
    for (name, _) in &rounds[0].phases {
        let value = median_of(&rounds, |round| &round.phases, name)?;
        rows.push(Row::at_most(format!("start: {name}"), value, "s", goal(PHASE_GOALS, name)));
    }
    for (name, _) in &rounds[0].memory_mb {
        let value = median_of(&rounds, |round| &round.memory_mb, name)?;
        rows.push(Row::at_most(format!("resident when idle: {name}"), value, "MB", goal(MEMORY_GOALS, name)));
    }
    for program in ["orchestrator", "node-agent", "cni"] {
        rows.push(Row::at_most(
            format!("stripped program: {program}"),
            stripped_mb(program)?,
            "MB",
            Some(SIZE_GOAL_MB),
        ));
    }
    let kernel = nix::sys::utsname::uname()?;
    let configuration = format!(
        "{} node(s), profile dev (opt-level 1), Linux {}, {} processors, median of {} round(s), idle after {} s",
        options.nodes,
        kernel.release().to_string_lossy(),
        std::thread::available_parallelism()?,
        options.rounds,
        options.idle_seconds
    );
    Ok(Report { configuration, rows })
}

fn measure(options: &Options) -> Result<Round> {
    let file = artifacts::target().join("bench-start.json");
    up::run(&up::Options {
        nodes: options.nodes,
        name: NAME.to_owned(),
        port: 6443,
        store: StoreKind::Embedded,
        ip_families: Vec::new(),
        spare: 0,
        control_flag: Vec::new(),
        images: None,
        no_demo: false,
        kube_proxy: None,
        kube_proxy_mode: String::new(),
        json: Some(file.clone()),
    })?;
    let layout = Layout::load(NAME)?.context("the cluster that came up has no description")?;
    std::thread::sleep(Duration::from_secs(options.idle_seconds));
    let memory_mb = resident_mb(&layout);
    teardown::remove(&layout, false)?;
    Ok(Round { phases: read_phases(&file)?, memory_mb: memory_mb? })
}

fn read_phases(file: &Path) -> Result<Vec<(String, f64)>> {
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(file)?)?;
    rows.iter()
        .filter(|row| row["after_builds"] == true)
        .map(|row| Some((row["phase"].as_str()?.to_owned(), row["seconds"].as_f64()?)))
        .collect::<Option<_>>()
        .context("the phases that `up` wrote cannot be read")
}

/// The largest resident set among the processes of each program.
fn resident_mb(layout: &Layout) -> Result<Vec<(String, f64)>> {
    let tree = preflight::cgroup_v2_mount()?;
    let mut folders = vec![format!("{}/control", layout.cgroup())];
    folders.extend(layout.nodes().iter().map(|node| format!("{}/system", node.cgroup)));
    let mut largest = std::collections::BTreeMap::<String, f64>::new();
    for folder in folders {
        let file = tree.join(folder.trim_start_matches('/')).join("cgroup.procs");
        for pid in
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?.lines()
        {
            let Ok(name) = std::fs::read_to_string(format!("/proc/{pid}/comm")) else {
                continue;
            };
            let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
                continue;
            };
            let kib = status.lines().find_map(|line| {
                line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok()
            });
            let entry = largest.entry(name.trim().to_owned()).or_default();
            *entry = entry.max(kib.unwrap_or_default() * 1024.0 / MB);
        }
    }
    largest.remove("xtask");
    Ok(largest.into_iter().collect())
}

fn stripped_mb(program: &str) -> Result<f64> {
    let stripped = artifacts::target().join(format!("{program}.stripped"));
    let source = artifacts::target().join("debug").join(program);
    command::capture("strip", &["-o".as_ref(), stripped.as_os_str(), source.as_os_str()])?;
    Ok(stripped.metadata()?.len() as f64 / MB)
}

fn median_of(rounds: &[Round], of: impl Fn(&Round) -> &Vec<(String, f64)>, name: &str) -> Result<f64> {
    let values =
        rounds.iter().filter_map(|round| Some(of(round).iter().find(|(it, _)| it == name)?.1)).collect();
    median(values).with_context(|| format!("no round measured {name}"))
}

fn goal(goals: &[(&str, f64)], name: &str) -> Option<f64> {
    goals.iter().find(|(it, _)| *it == name).map(|(_, goal)| *goal)
}
