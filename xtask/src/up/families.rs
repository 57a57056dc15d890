//! Which address families a cluster gets: both where the machine has them, and with a kept store those it was made with.
//!
//! A store remembers its ranges: nodes keep the pod ranges and Services the addresses they were given. A cluster whose
//! families changed under it would be half of each, so that is refused.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::cluster::layout::{self, Layout};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IpFamily {
    #[value(name = "ipv4")]
    V4,
    #[value(name = "ipv6")]
    V6,
}

/// Whether the cluster has a second family. `kept` says whether that of a kept store had one.
pub fn choose(asked: &[IpFamily], kept: Option<bool>, has_ipv6: bool) -> Result<bool> {
    let dual = match asked {
        [] => kept.unwrap_or(has_ipv6),
        [IpFamily::V4] => false,
        [IpFamily::V4, IpFamily::V6] => true,
        _ => bail!(
            "--ip-families takes ipv4 or ipv4,ipv6: nodes need IPv4, the first family of every cluster here"
        ),
    };
    if let Some(kept) = kept.filter(|kept| *kept != dual) {
        bail!(
            "--ip-families {}: the kept store is of a cluster with {}; leave the option out to go on with it, or \
             `cargo xtask down` it without --keep-data to begin anew",
            text(dual),
            text(kept)
        );
    }
    if dual && !has_ipv6 {
        bail!(
            "a cluster of ipv4,ipv6: IPv6 is off on this machine (net.ipv6.conf.default.disable_ipv6); switch it on{}",
            if kept.is_some() { ", as it was when the store was made" } else { " or leave ipv6 out" }
        );
    }
    Ok(dual)
}

/// Whether the cluster of a kept store had two families; `None` when no store is kept.
pub fn kept(name: &str) -> Result<Option<bool>> {
    if !layout::has_store_in(&layout::data_of(name)) {
        return Ok(None);
    }
    let file = file_of(name);
    match std::fs::read_to_string(&file) {
        Ok(families) => Ok(Some(families.trim() == text(true))),
        // Made when every cluster had one unless it was asked for two, and nobody wrote down which.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(false)),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Writes down what the store is going to be made with.
pub fn keep(layout: &Layout) -> Result<()> {
    layout::make_private(&layout.data())?;
    let file = file_of(&layout.name);
    std::fs::write(&file, text(layout.dual_stack)).with_context(|| format!("cannot write {}", file.display()))
}

fn file_of(name: &str) -> PathBuf {
    layout::data_of(name).join("ip-families")
}

fn text(dual: bool) -> &'static str {
    if dual { "ipv4,ipv6" } else { "ipv4" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[IpFamily] = &[IpFamily::V4, IpFamily::V6];

    #[test]
    fn a_cluster_has_two_families_where_the_machine_has_and_never_the_second_alone() {
        assert!(choose(&[], None, true).unwrap());
        assert!(!choose(&[], None, false).unwrap());
        assert!(!choose(&[IpFamily::V4], None, true).unwrap());
        assert!(choose(BOTH, None, true).unwrap());
        assert!(choose(BOTH, None, false).unwrap_err().to_string().contains("disable_ipv6"));
        assert!(choose(&[IpFamily::V6], None, true).is_err());
    }

    #[test]
    fn a_kept_store_goes_on_with_the_families_it_was_made_with() {
        assert!(!choose(&[], Some(false), true).unwrap());
        assert!(choose(&[], Some(true), true).unwrap());
        assert!(choose(BOTH, Some(false), true).unwrap_err().to_string().contains("--keep-data"));
        assert!(choose(&[IpFamily::V4], Some(true), true).is_err());
        assert!(choose(&[], Some(true), false).unwrap_err().to_string().contains("switch it on, as it was"));
    }
}
