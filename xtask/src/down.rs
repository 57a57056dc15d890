//! `cargo xtask down`: removes a cluster and everything that it left on this machine.

use anyhow::{Result, bail};

use crate::cluster::layout::{self, Layout};
use crate::cluster::teardown;

#[derive(clap::Args)]
pub struct Options {
    /// Name of the cluster
    #[arg(long, default_value = "default")]
    name: String,
    /// Keep the store and the keys: the next `up` finds every object again
    #[arg(long)]
    keep_data: bool,
}

pub fn run(options: &Options) -> Result<()> {
    layout::check_name(&options.name)?;
    if !nix::unistd::Uid::effective().is_root() {
        bail!("removing a cluster needs root: run `sudo -E cargo xtask down`");
    }
    let Some(layout) = Layout::load(&options.name)? else {
        let kept = layout::data_of(&options.name);
        if kept.exists() && !options.keep_data {
            std::fs::remove_dir_all(&kept)?;
            println!(
                "no cluster named {} runs; removed the data it had kept in {}",
                options.name,
                kept.display()
            );
        } else {
            println!("no cluster named {} runs on this machine", options.name);
        }
        return Ok(());
    };
    teardown::remove(&layout, options.keep_data)?;
    match options.keep_data {
        true => {
            println!("cluster {} is down; its store is kept in {}", layout.name, layout.control().display())
        }
        false => println!("cluster {} is down and nothing of it is left", layout.name),
    }
    Ok(())
}
