//! The allocations on disk: `<dir>/<address>.json`, one file an address.
//!
//! A file appears by rename, so it is whole or absent, and it appears before the link does: whatever exists in the
//! kernel has a file. Nothing is synced to the platter, because a power loss ends every sandbox too; a file that
//! such a loss left empty is dropped when it is read. It must not know links: whoever calls decides who lives.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use penstock_cni::protocol::{AddRequest, AttachmentId};

use super::{Pool, at, place_of};
use crate::PodRanges;
use crate::attachment::Attachment;

/// Largest record read, in bytes. One is some 500.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// Why an address could not be given or taken back.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    /// All are taken.
    #[error("all {capacity} addresses of {range} are taken")]
    Exhausted {
        /// The node's range.
        range: IpNetwork,
        /// How many pods it holds.
        capacity: usize,
    },
    /// The disk refused.
    #[error("the address record {path:?} cannot be {doing}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// `written`, `removed` or `read`.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// All attachments of the node. At most the range's capacity.
#[derive(Debug)]
pub(crate) struct Ledger {
    dir: PathBuf,
    ranges: PodRanges,
    pool: Pool,
    held: BTreeMap<AttachmentId, Attachment>,
}

impl Ledger {
    /// Reads what an earlier agent left.
    pub(crate) fn open(dir: &Path, ranges: PodRanges) -> Result<Self, IpamError> {
        fs::create_dir_all(dir).map_err(|source| disk(dir, "written", source))?;
        let pool = Pool::new(ranges.first());
        let mut ledger = Self { dir: dir.to_path_buf(), ranges, pool, held: BTreeMap::new() };
        for entry in fs::read_dir(dir).map_err(|source| disk(dir, "read", source))? {
            let path = entry.map_err(|source| disk(dir, "read", source))?.path();
            match read_record(&path) {
                Some(attachment) if path == ledger.path(attachment.address) => {
                    // The second too: a node may have lost the range that its pods' first ones are of.
                    attachment.addresses().for_each(|address| ledger.pool.mark(address));
                    ledger.held.insert(attachment.id.clone(), attachment);
                }
                // Half a write, or not ours: it names no owner that could be checked.
                _ => {
                    tracing::warn!(path = %path.display(), "dropping an address record that cannot be read");
                    fs::remove_file(&path).map_err(|source| disk(&path, "removed", source))?;
                }
            }
        }
        Ok(ledger)
    }

    pub(crate) fn get(&self, id: &AttachmentId) -> Option<&Attachment> {
        self.held.get(id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Attachment> {
        self.held.values()
    }

    /// The record for this attachment: the one there is, or a new one with the next free address.
    pub(crate) fn ensure(&mut self, request: &AddRequest) -> Result<Attachment, IpamError> {
        if let Some(held) = self.held.get(&request.id) {
            let renewed = Attachment::new(request, held.address, held.address_v6);
            if renewed != *held {
                self.write(&renewed)?;
            }
            return Ok(renewed);
        }
        let Some(address) = self.pool.take() else {
            return Err(IpamError::Exhausted { range: self.ranges.first(), capacity: self.pool.capacity() });
        };
        let attachment = Attachment::new(request, address, self.beside(address));
        if let Err(error) = self.write(&attachment) {
            self.pool.release(address);
            return Err(error);
        }
        Ok(attachment)
    }

    /// Forgets an attachment and frees its address. Call after its link is gone.
    pub(crate) fn release(&mut self, id: &AttachmentId) -> Result<(), IpamError> {
        let Some(attachment) = self.held.get(id) else { return Ok(()) };
        let path = self.path(attachment.address);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(disk(&path, "removed", source));
            }
            _ => {}
        }
        attachment.addresses().for_each(|address| self.pool.release(address));
        self.held.remove(id);
        Ok(())
    }

    fn write(&mut self, attachment: &Attachment) -> Result<(), IpamError> {
        let path = self.path(attachment.address);
        let draft = path.with_extension("draft");
        let written = serde_json::to_vec(attachment)
            .map_err(io::Error::other)
            .and_then(|bytes| fs::write(&draft, bytes))
            .and_then(|()| fs::rename(&draft, &path));
        written.map_err(|source| disk(&path, "written", source))?;
        self.held.insert(attachment.id.clone(), attachment.clone());
        Ok(())
    }

    /// The address of the second family that goes with one of the first: the same place in its range. One file so
    /// holds both, and neither can leak without the other.
    fn beside(&self, address: IpAddr) -> Option<Ipv6Addr> {
        let place = place_of(self.ranges.first(), address)?;
        let beside = at(self.ranges.second()?.into(), place)?;
        let held = self.held.values().any(|held| held.addresses().any(|other| other == beside));
        match beside {
            IpAddr::V6(beside) if !held => Some(beside),
            _ => None,
        }
    }

    fn path(&self, address: IpAddr) -> PathBuf {
        self.dir.join(format!("{address}.json"))
    }
}

/// The attachments that an agent has on record in its state directory, for another process to read: nothing is changed, and
/// what cannot be read is left out.
pub fn observe_attachments(state_dir: &Path) -> Vec<Attachment> {
    let records = fs::read_dir(state_dir.join("ipam")).into_iter().flatten().flatten();
    records.filter_map(|entry| read_record(&entry.path())).collect()
}

fn read_record(path: &Path) -> Option<Attachment> {
    if fs::metadata(path).ok()?.len() > RECORD_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn disk(path: &Path, doing: &'static str, source: io::Error) -> IpamError {
    IpamError::Disk { path: path.to_path_buf(), doing, source }
}

#[cfg(test)]
mod tests {
    use penstock_cni::protocol::PodName;

    use super::*;

    fn request(container: &str) -> AddRequest {
        AddRequest {
            id: AttachmentId { container: container.into(), interface: "eth0".into() },
            netns: "/run/netns/x".into(),
            network: "penstock".into(),
            pod: PodName::default(),
            port_mappings: Vec::new(),
            bandwidth: Default::default(),
        }
    }

    fn open(dir: &Path) -> Ledger {
        Ledger::open(dir, ranges("10.244.1.0/29,fd00:1::/64")).unwrap()
    }

    fn ranges(text: &str) -> PodRanges {
        PodRanges::of(&text.split(',').map(|range| range.parse().unwrap()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn asking_twice_gives_one_address() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path());
        let first = ledger.ensure(&request("a")).unwrap().address;
        assert_eq!(ledger.ensure(&request("a")).unwrap().address, first);
        assert_ne!(ledger.ensure(&request("b")).unwrap().address, first);
    }

    #[test]
    fn a_pod_s_second_address_is_at_the_same_place_of_its_range_and_stays_the_pod_s() {
        let dir = tempfile::tempdir().unwrap();
        let single =
            Ledger::open(dir.path(), ranges("10.244.1.0/29")).unwrap().ensure(&request("old")).unwrap();
        assert_eq!(single.addresses().count(), 1);
        let mut ledger = open(dir.path());
        assert_eq!(ledger.ensure(&request("old")).unwrap(), single, "a pod's addresses do not change");
        let both = ledger.ensure(&request("new")).unwrap();
        assert_eq!(both.address, IpAddr::from([10, 244, 1, 3]));
        assert_eq!(both.address_v6, Some("fd00:1::3".parse().unwrap()));
        drop(ledger);
        assert_eq!(open(dir.path()).ensure(&request("new")).unwrap(), both);
    }

    #[test]
    fn a_node_of_ipv6_alone_gives_addresses_of_ipv6_and_none_that_an_earlier_pod_has() {
        let dir = tempfile::tempdir().unwrap();
        let old = open(dir.path()).ensure(&request("old")).unwrap();
        assert_eq!(old.address_v6, Some("fd00:1::2".parse().unwrap()));
        let mut ledger = Ledger::open(dir.path(), ranges("fd00:1::/64")).unwrap();
        let new = ledger.ensure(&request("new")).unwrap();
        assert_eq!(new.addresses().collect::<Vec<_>>(), ["fd00:1::3".parse::<IpAddr>().unwrap()]);
        drop(ledger);
        let mut ledger = Ledger::open(dir.path(), ranges("fd00:1::/64")).unwrap();
        assert_eq!(ledger.ensure(&request("new")).unwrap(), new);
        ledger.release(&new.id).unwrap();
        ledger.release(&old.id).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_new_agent_finds_every_address_an_old_one_gave() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path());
        let a = ledger.ensure(&request("a")).unwrap();
        let b = ledger.ensure(&request("b")).unwrap();
        ledger.release(&b.id).unwrap();
        drop(ledger);
        let mut ledger = open(dir.path());
        assert_eq!(ledger.all().collect::<Vec<_>>(), [&a]);
        assert_ne!(ledger.ensure(&request("c")).unwrap().address, a.address);
    }

    #[test]
    fn another_process_reads_the_records_and_changes_none() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = dir.path().join("ipam");
        fs::create_dir(&ipam).unwrap();
        let held = open(&ipam).ensure(&request("a")).unwrap();
        fs::write(ipam.join("10.244.1.3.json"), "").unwrap();
        assert_eq!(observe_attachments(dir.path()), [held]);
        assert_eq!(fs::read_dir(&ipam).unwrap().count(), 2);
        assert!(observe_attachments(&dir.path().join("nothing")).is_empty());
    }

    #[test]
    fn a_crash_in_the_middle_of_a_write_leaks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("10.244.1.2.draft"), "{").unwrap();
        fs::write(dir.path().join("10.244.1.3.json"), "").unwrap();
        let mut ledger = open(dir.path());
        let given: Vec<_> =
            (0..5).map(|i| ledger.ensure(&request(&i.to_string())).unwrap().address).collect();
        assert_eq!(given.len(), 5);
        assert!(matches!(ledger.ensure(&request("more")), Err(IpamError::Exhausted { capacity: 5, .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
    }
}
