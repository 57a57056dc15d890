//! `counters`, `status`, `maps`, `observe` and `explain`: what the kernel programs did and do, where they are and what they know,
//! read from their pins.
//!
//! It exists so that a person can look without the agent's help, even when it is not running. It changes nothing but who is
//! told what happens.

mod explain;
mod known;
mod observe;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use penstock_network::{observe_attachments, observe_links};
use penstock_observe::Format;

use crate::kernel::PIN_DIR;
use crate::options::{Counters, Inspect};

pub use explain::explain;
pub use observe::observe;

/// Packets, connections and drops.
pub fn counters(options: &Counters) -> anyhow::Result<()> {
    let pods = observe_links(&observe_attachments(&options.state_dir));
    let pod = |link| pods.get(&link).cloned();
    print(&penstock_observe::show_counters(&pins(&options.inspect)?, pod, format(&options.inspect))?)
}

/// Maps and their fill.
pub fn maps(options: &Inspect) -> anyhow::Result<()> {
    print(&penstock_observe::show_maps(&pins(options)?, format(options))?)
}

/// Where packets from outside are met.
pub fn status(options: &Inspect) -> anyhow::Result<()> {
    print(&penstock_observe::show_status(&pins(options)?, format(options))?)
}

fn format(options: &Inspect) -> Format {
    match options.json {
        true => Format::Json,
        false => Format::Table,
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    // Not `println!`: a reader that stops reading, like `head`, is no panic.
    writeln!(std::io::stdout(), "{}", text.trim_end()).context("writing to standard output")
}

fn pins(options: &Inspect) -> anyhow::Result<PathBuf> {
    let pins = options.bpffs.join(PIN_DIR);
    std::fs::read_dir(&pins).with_context(|| {
        format!("no programs are pinned at {}; is a node agent's network half running here?", pins.display())
    })?;
    Ok(pins)
}
