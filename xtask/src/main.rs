//! The menu: `cargo xtask VERB`. One verb, one file; CI runs the same verbs as people do.
//!
//! Knows how to build, start, test and measure Penstock on a development machine. Nothing that ships depends on it.

mod artifacts;
mod bench;
mod cluster;
mod codegen;
mod command;
mod conformance;
mod dist;
mod down;
mod ebpf;
mod image;
mod kubeconfig;
mod packages;
mod preflight;
mod supervise;
mod test;
mod tidy;
mod up;
mod vm;

use clap::{Parser, Subcommand};

/// Build, run, test and measure Penstock.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about, max_term_width = 110)]
struct Menu {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring up a cluster on this machine, with a demo application served over eBPF
    Up(up::Options),
    /// Remove a cluster and everything it left on this machine
    Down(down::Options),
    /// Print the path of a running cluster's kubeconfig
    Kubeconfig(kubeconfig::Options),
    /// Everything CI checks: format, tidiness, lints, unit, packet, network and cluster tests
    Test(test::Options),
    /// Verify the programs and run their tests on other kernels, in virtual machines
    Vm(vm::Options),
    /// Run a Kubernetes conformance binary against a fresh cluster
    Conformance(conformance::Options),
    /// Measure; prints a table and, with --json, writes its rows
    Bench(bench::Options),
    /// Build what ships: optimised, stripped programs and the eBPF object
    Dist(dist::Options),
    /// Check module docs, file lengths and banned names
    Tidy,
    /// Build the eBPF programs
    Ebpf(ebpf::Options),
    /// Derive the schema table of the built-in kinds from published crates (`--check`: only say if it is stale)
    Codegen {
        #[arg(allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the OCI archives of our own images
    Image(image::Options),
    /// Keep a cluster's processes running (started by `up`, not by hand)
    #[command(hide = true)]
    Supervise(supervise::Options),
}

fn main() {
    let outcome = match Menu::parse().verb {
        Verb::Up(options) => up::run(&options),
        Verb::Down(options) => down::run(&options),
        Verb::Kubeconfig(options) => kubeconfig::run(&options),
        Verb::Test(options) => test::run(&options),
        Verb::Vm(options) => vm::run(&options),
        Verb::Conformance(options) => conformance::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Dist(options) => dist::run(&options),
        Verb::Tidy => tidy::run(),
        Verb::Ebpf(options) => ebpf::run(&options),
        Verb::Codegen { args } => codegen::run(&args),
        Verb::Image(options) => image::run(&options),
        Verb::Supervise(options) => supervise::run(&options),
    };
    if let Err(error) = outcome {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}
