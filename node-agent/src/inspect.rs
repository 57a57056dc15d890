//! `counters` and `maps`: what the kernel programs did and know, read from their pins.
//!
//! It exists so that a person can look without the agent's help, even when it is not running. It must not write.

use anyhow::{Context, bail};

use crate::kernel::PIN_DIR;
use crate::options::Inspect;

/// Packets, connections and drops.
pub fn counters(options: &Inspect) -> anyhow::Result<()> {
    let pins = pins(options)?;
    bail!("{} holds programs that keep no counters", pins.display())
}

/// Maps and their fill.
pub fn maps(options: &Inspect) -> anyhow::Result<()> {
    let pins = pins(options)?;
    bail!("{} holds no maps", pins.display())
}

fn pins(options: &Inspect) -> anyhow::Result<std::path::PathBuf> {
    let pins = options.bpffs.join(PIN_DIR);
    std::fs::read_dir(&pins).with_context(|| {
        format!("no programs are pinned at {}; is a node agent's network half running here?", pins.display())
    })?;
    Ok(pins)
}
