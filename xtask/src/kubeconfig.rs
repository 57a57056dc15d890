//! `cargo xtask kubeconfig`: where the administrator's kubeconfig of a running cluster is.

use anyhow::{Result, bail};

use crate::cluster::layout::Layout;

#[derive(clap::Args)]
pub struct Options {
    /// Name of the cluster
    #[arg(long, default_value = "default")]
    name: String,
}

pub fn run(options: &Options) -> Result<()> {
    let Some(layout) = Layout::load(&options.name)? else {
        bail!("no cluster named {} runs on this machine; start one with `cargo xtask up`", options.name);
    };
    println!("{}", layout.kubeconfig().display());
    Ok(())
}
