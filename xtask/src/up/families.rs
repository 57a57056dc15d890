//! Which address families a cluster gets: both where the machine has them, and with a kept store those it was made with.
//!
//! A store remembers its ranges: nodes keep the pod ranges and Services the addresses they were given. A cluster whose
//! families changed under it would be half of each, so that is refused.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::cluster::layout::{self, Families, Layout};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IpFamily {
    #[value(name = "ipv4")]
    V4,
    #[value(name = "ipv6")]
    V6,
}

/// The families of the cluster. `kept` are those of a kept store.
pub fn choose(asked: &[IpFamily], kept: Option<Families>, has_ipv6: bool) -> Result<Families> {
    let default = if has_ipv6 { Families::Both } else { Families::V4 };
    let families = match asked {
        [] => kept.unwrap_or(default),
        [IpFamily::V4] => Families::V4,
        [IpFamily::V6] => Families::V6,
        [IpFamily::V4, IpFamily::V6] => Families::Both,
        _ => bail!("--ip-families takes ipv4, ipv6, or ipv4,ipv6: of two, IPv4 is the first family here"),
    };
    if let Some(kept) = kept.filter(|kept| *kept != families) {
        bail!(
            "--ip-families {}: the kept store is of a cluster with {}; leave the option out to go on with it, or \
             `cargo xtask down` it without --keep-data to begin anew",
            text(families),
            text(kept)
        );
    }
    if families != Families::V4 && !has_ipv6 {
        bail!(
            "a cluster of {}: IPv6 is off on this machine (net.ipv6.conf.default.disable_ipv6); switch it on{}",
            text(families),
            if kept.is_some() { ", as it was when the store was made" } else { " or ask for ipv4 alone" }
        );
    }
    Ok(families)
}

/// The families of a kept store; `None` when no store is kept.
pub fn kept(name: &str) -> Result<Option<Families>> {
    if !layout::has_store_in(&layout::data_of(name)) {
        return Ok(None);
    }
    let file = file_of(name);
    match std::fs::read_to_string(&file) {
        Ok(families) => {
            let known = [Families::V4, Families::V6, Families::Both];
            let families = known.into_iter().find(|known| text(*known) == families.trim());
            Ok(Some(families.with_context(|| format!("{} names no families", file.display()))?))
        }
        // Made when every cluster had one unless it was asked for two, and nobody wrote down which.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(Families::V4)),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Writes down what the store is going to be made with.
pub fn keep(layout: &Layout) -> Result<()> {
    layout::make_private(&layout.data())?;
    let file = file_of(&layout.name);
    std::fs::write(&file, text(layout.families)).with_context(|| format!("cannot write {}", file.display()))
}

fn file_of(name: &str) -> PathBuf {
    layout::data_of(name).join("ip-families")
}

fn text(families: Families) -> &'static str {
    match families {
        Families::V4 => "ipv4",
        Families::V6 => "ipv6",
        Families::Both => "ipv4,ipv6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[IpFamily] = &[IpFamily::V4, IpFamily::V6];

    #[test]
    fn a_cluster_has_the_families_it_is_asked_for_and_two_where_the_machine_has() {
        assert_eq!(choose(&[], None, true).unwrap(), Families::Both);
        assert_eq!(choose(&[], None, false).unwrap(), Families::V4);
        assert_eq!(choose(&[IpFamily::V4], None, true).unwrap(), Families::V4);
        assert_eq!(choose(&[IpFamily::V6], None, true).unwrap(), Families::V6);
        assert_eq!(choose(BOTH, None, true).unwrap(), Families::Both);
        for needs_it in [BOTH, &[IpFamily::V6]] {
            assert!(choose(needs_it, None, false).unwrap_err().to_string().contains("disable_ipv6"));
        }
        assert!(choose(&[IpFamily::V6, IpFamily::V4], None, true).is_err());
        assert!(choose(&[IpFamily::V4, IpFamily::V4], None, true).is_err());
    }

    #[test]
    fn a_kept_store_goes_on_with_the_families_it_was_made_with() {
        assert_eq!(choose(&[], Some(Families::V4), true).unwrap(), Families::V4);
        assert_eq!(choose(&[], Some(Families::V6), true).unwrap(), Families::V6);
        assert_eq!(choose(&[], Some(Families::Both), true).unwrap(), Families::Both);
        assert!(choose(BOTH, Some(Families::V4), true).unwrap_err().to_string().contains("--keep-data"));
        assert!(choose(&[IpFamily::V6], Some(Families::Both), true).is_err());
        for kept in [Families::V6, Families::Both] {
            let refused = choose(&[], Some(kept), false).unwrap_err().to_string();
            assert!(refused.contains("switch it on, as it was"), "{refused}");
        }
    }
}
