//! What the kernel holds for a process's maps: `memlock` in the descriptions of its open files, and of the maps within
//! arrays of maps.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};

use crate::bpf;

/// BPF_MAP_TYPE_ARRAY_OF_MAPS.
const ARRAY_OF_MAPS: u64 = 12;

/// Bytes of every map that a process has open, by the map's number.
pub fn of_process(pid: u32) -> Result<BTreeMap<u64, u64>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut bytes = BTreeMap::new();
    for file in std::fs::read_dir(&folder).with_context(|| format!("reading {folder}"))?.flatten() {
        let Ok(text) = std::fs::read_to_string(file.path()) else { continue };
        let (Some(id), Some(held)) = (field(&text, "map_id"), field(&text, "memlock")) else { continue };
        bytes.insert(id, held);
        if field(&text, "map_type") == Some(ARRAY_OF_MAPS) {
            let outer = bpf::map_by_id(u32::try_from(id)?).context("opening an array of maps")?;
            let entries = field(&text, "max_entries").unwrap_or_default();
            for inner in bpf::maps_in(outer.as_fd(), u32::try_from(entries)?) {
                // One that is deleted meanwhile holds nothing.
                let Ok(map) = bpf::map_by_id(inner) else { continue };
                let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
                bytes.insert(inner.into(), field(&text, "memlock").unwrap_or_default());
            }
        }
    }
    Ok(bytes)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_by_its_whole_name() {
        let text = "pos:\t0\nmap_type:\t12\nmap_id_other:\t4\nmap_id:\t7\nmemlock:\t4096\n";
        assert_eq!(field(text, "map_id"), Some(7));
        assert_eq!(field(text, "map_type"), Some(12));
        assert_eq!(field(text, "frozen"), None);
    }
}
