//! A file that is read and never written: what would be written to it is kept in memory.
//!
//! redb repairs what it opens. A check must tell of damage and leave the file as it is, so it opens this instead.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use parking_lot::Mutex;
use redb::StorageBackend;

const PAGE_BYTES: u64 = 4096;

/// The file with what was written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    file_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    length: u64,
    /// Pages that differ from the file, by their number.
    pages: HashMap<u64, Box<[u8]>>,
}

// === impl Overlay ===

impl Overlay {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        Ok(Self { file, file_bytes, state: Mutex::new(State { length: file_bytes, pages: HashMap::new() }) })
    }

    /// A page of the file; zeros beyond its end.
    fn page_of_file(&self, number: u64) -> io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE_BYTES as usize].into_boxed_slice();
        let begins = number * PAGE_BYTES;
        let there = self.file_bytes.saturating_sub(begins).min(PAGE_BYTES) as usize;
        self.file.read_exact_at(&mut page[..there], begins)?;
        Ok(page)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if state.pages.is_empty() && offset + out.len() as u64 <= self.file_bytes {
            return self.file.read_exact_at(out, offset);
        }
        for (number, within, part) in pieces(offset, out.len()) {
            let target = &mut out[part];
            match state.pages.get(&number) {
                Some(page) => target.copy_from_slice(&page[within..within + target.len()]),
                None => {
                    let page = self.page_of_file(number)?;
                    target.copy_from_slice(&page[within..within + target.len()]);
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let kept = length.div_ceil(PAGE_BYTES);
        state.pages.retain(|number, _| *number < kept);
        state.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        for (number, within, part) in pieces(offset, data.len()) {
            if let Entry::Vacant(place) = state.pages.entry(number) {
                place.insert(self.page_of_file(number)?);
            }
            if let Some(page) = state.pages.get_mut(&number) {
                page[within..within + part.len()].copy_from_slice(&data[part]);
            }
        }
        state.length = state.length.max(offset + data.len() as u64);
        Ok(())
    }
}

/// The pages a stretch touches: number, where in the page, which part of the stretch.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= length {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES) as usize;
        let part = (PAGE_BYTES as usize - within).min(length - done);
        done += part;
        Some((at / PAGE_BYTES, within, done - part..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_file_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..10_000).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let overlay = Overlay::open(&path).unwrap();
        overlay.write(4_000, &[7; 5_000]).unwrap();
        overlay.set_len(20_000).unwrap();
        overlay.write(15_000, b"beyond").unwrap();

        let mut expected = content.clone();
        expected[4_000..9_000].fill(7);
        expected.resize(20_000, 0);
        expected[15_000..15_006].copy_from_slice(b"beyond");
        let mut read = vec![1; 20_000];
        overlay.read(0, &mut read).unwrap();
        assert_eq!(read, expected);
        assert!(overlay.read(19_999, &mut [0; 2]).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
}
