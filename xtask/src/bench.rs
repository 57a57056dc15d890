//! `cargo xtask bench NAME`: measurements under one contract: a table for people, rows for programs.
//!
//! A bench exits 0 when it could measure, whether goals are met or not, and says how many are.

mod api;
mod dataplane;
mod plots;
pub mod report;
mod start;

use std::path::PathBuf;

use anyhow::Result;

#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    bench: Bench,
    /// Also write the rows to this file: [{case, value, unit, peer, ratio, goal, met}]
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    /// Also draw the rows into this folder: an SVG with bars for each measure
    #[arg(long, global = true, value_name = "DIR")]
    plots: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// Time from the end of the builds to a served demo, idle memory, size of the programs
    Start(start::Options),
    /// The data plane beside bare hops and kube-proxy's rules: latency, CPU, throughput, cost of packets and changes
    Dataplane(dataplane::Options),
    /// The API server on each store, beside another: writes, gets, lists, watches, memory
    Api(api::Options),
}

pub fn run(options: &Options) -> Result<()> {
    let report = match &options.bench {
        Bench::Start(options) => Some(start::run(options)?),
        Bench::Dataplane(options) => dataplane::run(options)?,
        Bench::Api(options) => api::run(options)?,
    };
    let Some(report) = report else { return Ok(()) };
    report.print();
    if let Some(file) = &options.json {
        report.write(file)?;
    }
    if let Some(folder) = &options.plots {
        plots::write(folder, &report.rows)?;
    }
    Ok(())
}
