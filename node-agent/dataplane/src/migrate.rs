//! Maps that are replaced while traffic flows: by larger ones, or by those of another layout.
//!
//! Pinned maps keep the size and the layout they were made with, and what is in them must not be lost. So a former map's
//! pin moves aside, the new map is made in its place, and what was in the one is brought to the other:
//!
//! 1. What user space wrote, before any program uses the new maps: nobody else changes it.
//! 2. What programs make, by the programs themselves: for the time of the exchange programs are attached that know both
//!    maps (`ebpf/src/kept.rs`), so that it does not matter which hook has which.
//! 3. When all hooks have those, the rest of it; nobody uses the former map alone any more.
//! 4. The same programs without the former maps; then the former maps go.
//!
//! An agent that dies in between leaves the former pins, by which the next one knows that the exchange is not over. Where the
//! layout differs the programs do not know the former map; its entries are converted before and after the
//! switch. Must not know what the maps are for, nor how programs are attached.

mod convert;
mod copy;
mod rank;
mod tables;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use penstock_ebpf_common::{Flow, KnownPeer, map};

use crate::sys::{self, MapInfo};
use crate::{DataplaneError, kernel, table};

/// Bytes of an entry: key and value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// How entries of an earlier layout are read. None leaves an entry behind.
#[derive(Debug, Clone, Copy)]
pub struct Conversion {
    /// The map's name in the earlier version.
    pub from: &'static str,
    /// Its name now.
    pub to: &'static str,
    /// What an entry is now. None when the layout is the same and only the name is another.
    pub convert: Option<fn(&[u8], &[u8]) -> Option<Entry>>,
}

/// The earlier layouts of which something is carried over. A map whose layout changes gets a new name in
/// `penstock_ebpf_common::map` and its former one an entry here, to be kept as long as upgrades from there are supported.
pub const CONVERSIONS: &[Conversion] = &[
    Conversion { from: "peers_v2", to: map::PEERS, convert: Some(convert::peer_without_place) },
    Conversion { from: map::PEERS_BY_COOKIE, to: map::PEERS, convert: Some(convert::as_it_is) },
    Conversion { from: map::FLOWS_BY_KEY, to: map::FLOWS, convert: Some(convert::as_it_is) },
];

/// One map that takes another's place.
#[derive(Debug, Clone)]
pub struct Move {
    /// The map that is to be used.
    pub name: &'static str,
    /// The name of the one before.
    pub from: String,
    conversion: Option<Conversion>,
    /// Whether the former map is still where programs expect theirs.
    in_place: bool,
}

/// What is to be done with the maps that are there.
#[derive(Debug, Default)]
pub struct Plan {
    pub moves: Vec<Move>,
    /// The maps that were asked to be smaller than they are.
    pub larger: Vec<Larger>,
}

/// A map with more room than was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Larger {
    pub name: &'static str,
    pub entries_max: u32,
    pub wanted: u32,
}

/// What is pinned: names to what the kernel says of the maps.
type Pinned = BTreeMap<String, MapInfo>;

/// Plans what to do. `there` is pinned where programs look, `former` was moved aside by an exchange that is not over,
/// `wanted` says how many entries maps are to have at least; the others have a fixed size.
pub fn plan_moves(
    there: &Pinned,
    former: &Pinned,
    wanted: &[(&'static str, u32)],
    conversions: &[Conversion],
) -> Plan {
    let mut plan = Plan::default();
    for name in map::ALL.iter().copied() {
        let conversions = || conversions.iter().filter(|it| it.to == name);
        let plain = |from: &str, in_place| Move { name, from: from.to_owned(), conversion: None, in_place };
        let converted = |conversion: &Conversion, in_place| Move {
            name,
            from: conversion.from.to_owned(),
            conversion: Some(*conversion),
            in_place,
        };
        let wanted = wanted.iter().find(|(of, _)| *of == name).map(|(_, entries_max)| *entries_max);
        if former.contains_key(name) {
            plan.moves.push(plain(name, false));
        } else if let Some(conversion) = conversions().find(|it| former.contains_key(it.from)) {
            plan.moves.push(converted(conversion, false));
        } else if let Some(info) = there.get(name) {
            match wanted {
                Some(wanted) if info.entries_max < wanted => plan.moves.push(plain(name, true)),
                Some(wanted) if info.entries_max > wanted => {
                    plan.larger.push(Larger { name, entries_max: info.entries_max, wanted });
                }
                _ => {}
            }
        } else if let Some(conversion) = conversions().find(|it| there.contains_key(it.from)) {
            plan.moves.push(converted(conversion, true));
        }
    }
    plan
}

/// Pins that are of no use to anybody: earlier versions of maps that are there.
fn plan_leftovers(there: &Pinned) -> Vec<&str> {
    let stem = |name: &str| name.rsplit_once("_v").map(|(stem, _)| stem.to_owned());
    let known: Vec<_> = map::ALL.iter().map(|name| stem(name)).collect();
    let is_leftover =
        |name: &&str| !map::ALL.contains(name) && stem(name).is_some() && known.contains(&stem(name));
    there.keys().map(String::as_str).filter(is_leftover).collect()
}

/// An exchange under way.
#[derive(Debug)]
pub struct Exchange {
    directory: PathBuf,
    moves: Vec<Moving>,
    /// Whether an earlier agent began it.
    resumed: bool,
}

#[derive(Debug)]
struct Moving {
    is: Move,
    former: OwnedFd,
    info: MapInfo,
}

impl Exchange {
    /// Moves the pins of maps aside that are to be replaced; none when there is nothing to do.
    pub fn begin(
        directory: &Path,
        wanted: &[(&'static str, u32)],
        conversions: &[Conversion],
    ) -> Result<Option<Self>, DataplaneError> {
        let (there, former) = (observe(&directory.join("maps"))?, observe(&directory.join("former"))?);
        let Plan { moves, larger } = plan_moves(&there, &former, wanted, conversions);
        for Larger { name, entries_max, wanted } in larger {
            let entries = |of| if map::TABLES.contains(&name) { table::entries_in(of) } else { of };
            let (entries_max, wanted) = (entries(entries_max), entries(wanted));
            tracing::info!(
                "the map {name} keeps room for {entries_max} entries, though {wanted} were asked for: maps do not \
                 shrink while they are in use"
            );
        }
        if moves.is_empty() {
            return Ok(None);
        }
        let mut exchange =
            Self { directory: directory.to_owned(), moves: Vec::new(), resumed: !former.is_empty() };
        for is in moves {
            match exchange.take(&is) {
                Ok((former, info)) => exchange.moves.push(Moving { is, former, info }),
                Err(error) => {
                    exchange.undo();
                    return Err(error);
                }
            }
        }
        let names: Vec<_> = exchange.moves.iter().map(|it| it.is.from.as_str()).collect();
        tracing::info!(resumed = exchange.resumed, "maps are replaced: {}", names.join(", "));
        Ok(Some(exchange))
    }

    fn take(&self, is: &Move) -> Result<(OwnedFd, MapInfo), DataplaneError> {
        let aside = self.aside(&is.from);
        if is.in_place {
            rename(&kernel::pin(&self.directory, &is.from), &aside)?;
        }
        let wrap = |source| kernel_error("opening the former map", &is.from, source);
        let former = sys::get(&aside).map_err(wrap)?;
        let info = sys::map_info(former.as_fd()).map_err(wrap)?;
        Ok((former, info))
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.directory.join("former").join(name)
    }

    /// How many entries a map had that is replaced: the new one is not to have less, whatever is asked for.
    pub fn entries_max(&self, name: &str) -> Option<u32> {
        let moving = self.moves.iter().find(|it| it.is.name == name)?;
        let was_hash = map::TABLES.contains(&name) && moving.info.kind != copy::ARRAY;
        Some(if was_hash { table::buckets_for(moving.info.entries_max) } else { moving.info.entries_max })
    }

    /// Whether an earlier agent began it.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The former maps that programs are to know, by the names they know them under.
    pub fn known(&self) -> Vec<(&'static str, PathBuf)> {
        let by_programs = |moving: &Moving| {
            let (_, known_as) = map::KEPT.iter().find(|(name, _)| *name == moving.is.name)?;
            let same_layout = moving.is.conversion.is_none_or(|it| it.convert.is_none());
            same_layout.then(|| (*known_as, self.aside(&moving.is.from)))
        };
        self.moves.iter().filter_map(by_programs).collect()
    }

    /// Brings over what programs do not bring themselves, before they use the new maps.
    pub fn bring_before(&self) -> Result<usize, DataplaneError> {
        let known = self.known();
        let by_programs = |moving: &&Moving| {
            let known_as = map::KEPT.iter().find(|(name, _)| *name == moving.is.name).map(|it| it.1);
            known.iter().any(|(name, _)| Some(*name) == known_as)
        };
        self.bring(|moving| !by_programs(&moving))
    }

    /// Brings over what programs made since, once none uses a former map alone.
    pub fn bring_after(&self) -> Result<usize, DataplaneError> {
        self.bring(|moving| map::KEPT.iter().any(|(name, _)| *name == moving.is.name))
    }

    fn bring(&self, which: impl Fn(&Moving) -> bool) -> Result<usize, DataplaneError> {
        let mut brought = 0;
        for moving in self.moves.iter().filter(|moving| which(moving)) {
            let name = moving.is.name;
            let wrap = |source| kernel_error("bringing entries to the new map", name, source);
            let to = sys::get(&kernel::pin(&self.directory, name)).map_err(wrap)?;
            let convert = moving.is.conversion.and_then(|it| it.convert);
            let (from, info) = (moving.former.as_fd(), &moving.info);
            let copied = match name {
                map::FLOWS => tables::apply_copy::<Flow>(from, info, to, convert),
                map::PEERS => tables::apply_copy::<KnownPeer>(from, info, to, convert),
                _ => copy::apply_copy(from, info, to.as_fd(), convert, rank::rank_of(name)),
            };
            brought += copied.map_err(wrap)?;
        }
        Ok(brought)
    }

    /// Puts everything back as it was, as long as no program uses the new maps. What an earlier agent began is left as it
    /// is: its programs may.
    pub fn undo(&self) {
        if self.resumed {
            return;
        }
        for Moving { is, .. } in &self.moves {
            // What is made of the new map goes with its pin. Errors leave the former pin, which the next start finds.
            if is.from != is.name {
                let _ = std::fs::remove_file(kernel::pin(&self.directory, is.name));
            }
            if let Err(error) = rename(&self.aside(&is.from), &kernel::pin(&self.directory, &is.from)) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Forgets the former maps, once no program uses them.
    pub fn finish(self) -> Result<(), DataplaneError> {
        self.moves.iter().try_for_each(|moving| remove(&self.aside(&moving.is.from)))
    }
}

/// Whether an exchange was begun and is not over.
pub fn is_under_way(directory: &Path) -> Result<bool, DataplaneError> {
    Ok(!observe(&directory.join("former"))?.is_empty())
}

/// Removes pins of earlier versions that nothing uses any more.
pub fn remove_leftovers(directory: &Path) -> Result<(), DataplaneError> {
    let there = observe(&directory.join("maps"))?;
    for name in plan_leftovers(&there) {
        tracing::info!("the map {name} of an earlier version is forgotten");
        remove(&kernel::pin(directory, name))?;
    }
    Ok(())
}

fn observe(folder: &Path) -> Result<Pinned, DataplaneError> {
    let on = |source| DataplaneError::Path { doing: "listing", path: folder.to_owned(), source };
    let mut pinned = Pinned::new();
    for entry in std::fs::read_dir(folder).map_err(on)? {
        let name = entry.map_err(on)?.file_name().to_string_lossy().into_owned();
        let info = sys::get(&folder.join(&name)).and_then(|map| sys::map_info(map.as_fd()));
        pinned.insert(
            name.clone(),
            info.map_err(|source| kernel_error("opening a pinned map", &name, source))?,
        );
    }
    Ok(pinned)
}

fn rename(from: &Path, to: &Path) -> Result<(), DataplaneError> {
    let on = |source| DataplaneError::Path { doing: "moving the pin", path: from.to_owned(), source };
    std::fs::rename(from, to).map_err(on)
}

fn remove(pin: &Path) -> Result<(), DataplaneError> {
    match std::fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DataplaneError::Path { doing: "removing the pin", path: pin.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn kernel_error(doing: &'static str, subject: &str, source: io::Error) -> DataplaneError {
    DataplaneError::Kernel { doing, subject: subject.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(maps: &[(&str, u32)]) -> Pinned {
        let info = |entries_max| MapInfo { id: 1, kind: 1, key_size: 4, value_size: 4, entries_max };
        maps.iter().map(|(name, entries_max)| ((*name).to_owned(), info(*entries_max))).collect()
    }

    fn moves(
        there: &[(&str, u32)],
        former: &[(&str, u32)],
        wanted: u32,
    ) -> Vec<(&'static str, String, bool)> {
        let conversions = [Conversion { from: "flows_v0", to: map::FLOWS, convert: None }];
        let plan = plan_moves(&pinned(there), &pinned(former), &[(map::FLOWS, wanted)], &conversions);
        plan.moves.into_iter().map(|it| (it.name, it.from, it.in_place)).collect()
    }

    #[test]
    fn a_map_is_replaced_by_a_larger_one_and_never_by_a_smaller_one() {
        let flows = map::FLOWS;
        assert_eq!(moves(&[], &[], 8), [], "there is none yet");
        assert_eq!(moves(&[(flows, 8)], &[], 8), []);
        assert_eq!(moves(&[(flows, 4)], &[], 8), [(flows, flows.to_owned(), true)]);
        assert_eq!(moves(&[(flows, 9)], &[], 8), []);
        let plan = plan_moves(&pinned(&[(flows, 9)]), &pinned(&[]), &[(flows, 8)], &[]);
        assert_eq!(plan.larger, [Larger { name: flows, entries_max: 9, wanted: 8 }]);
    }

    #[test]
    fn an_earlier_version_is_converted_unless_the_new_one_is_there() {
        let flows = map::FLOWS;
        assert_eq!(moves(&[("flows_v0", 4)], &[], 8), [(flows, "flows_v0".to_owned(), true)]);
        assert_eq!(moves(&[("flows_v0", 4), (flows, 8)], &[], 8), []);
        assert_eq!(moves(&[("other_v0", 4)], &[], 8), []);
    }

    #[test]
    fn an_exchange_that_was_cut_short_is_taken_up_again_whatever_is_wanted() {
        let flows = map::FLOWS;
        for there in [&[][..], &[(flows, 8)]] {
            assert_eq!(moves(there, &[(flows, 4)], 4), [(flows, flows.to_owned(), false)]);
            assert_eq!(moves(there, &[("flows_v0", 4)], 99), [(flows, "flows_v0".to_owned(), false)]);
        }
    }

    #[test]
    fn pins_of_earlier_versions_are_leftovers_and_those_of_others_are_not() {
        let there =
            pinned(&[(map::FLOWS, 1), ("flows_v0", 1), ("peers_v1", 1), ("theirs_v1", 1), ("flows", 1)]);
        assert_eq!(plan_leftovers(&there), ["flows_v0", "peers_v1"]);
    }
}
