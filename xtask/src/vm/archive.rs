//! An initramfs: a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format).

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

/// An archive that grows.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    made: BTreeSet<String>,
    inode: u32,
}

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

impl Archive {
    /// Adds a folder and those above it. Paths are absolute.
    pub fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let folder = &path[..at];
            if !folder.is_empty() && self.made.insert(folder.to_owned()) {
                self.entry(folder, FOLDER, &[]);
            }
        }
    }

    /// Adds a file that may be executed, unless it is there.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        let path = path.trim_matches('/');
        self.above(path);
        if self.made.insert(path.to_owned()) {
            self.entry(path, FILE, content);
        }
    }

    /// Adds a file of this machine.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, &content);
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        let path = path.trim_matches('/');
        self.above(path);
        if self.made.insert(path.to_owned()) {
            self.entry(path, LINK, to.as_bytes());
        }
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn above(&mut self, path: &str) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let fields = [
            self.inode,
            mode,
            0, // user
            0, // group
            1, // links
            0, // time of the last change
            content.len() as u32,
            0, // device
            0,
            0, // device it stands for
            0,
            name.len() as u32 + 1,
            0, // checksum, not used in this format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_starts_at_a_multiple_of_four_and_folders_come_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.file("/bin/init", b"hello");
        archive.file("/bin/init", b"twice");
        archive.link("/bin/sh", "busybox");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let at: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(at.len(), 4, "a folder, a file, a link and the end");
        assert!(at.iter().all(|at| at % 4 == 0), "{at:?}");
        assert!(text.find("bin\0").expect("the folder") < text.find("bin/init\0").expect("the file"));
        assert!(text.contains("hello") && !text.contains("twice"));
        assert!(bytes.len() % 4 == 0);
    }
}
