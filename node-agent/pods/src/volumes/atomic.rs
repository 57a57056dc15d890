//! A directory of files that changes all at once.
//!
//! Files live in a dated directory; `..data` is a link to it, and every visible name is a link through `..data`. A new
//! version is written beside the old one and the link is renamed over. A reader therefore never sees half of each.
//! The layout is the one programs know from other clusters (they watch `..data`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path};

/// Contents and mode by relative path.
pub type Files = BTreeMap<String, (Vec<u8>, u32)>;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes `dir` show exactly `files`, owned by `group` if given. Returns whether anything changed.
///
/// # Errors
/// Of the file system, and for paths that leave `dir` (`InvalidInput`).
pub fn apply(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<bool> {
    for path in files.keys() {
        check(path)?;
    }
    fs::create_dir_all(dir)?;
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && shows(&data, files) {
        return Ok(false);
    }
    let version = format!("..{}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%f"));
    let fresh = dir.join(&version);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, (bytes, mode)) in files {
        let file = fresh.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, bytes)?;
        if group.is_some() {
            chown(&file, None, group)?;
        }
        let mode = if group.is_some() { mode | 0o040 } else { *mode };
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    }
    let link = dir.join(DATA_NEW);
    remove_if_there(&link)?;
    symlink(&version, &link)?;
    fs::rename(&link, &data)?;
    let visible: BTreeSet<&str> = files.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &visible {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let stale = !name.starts_with("..") && !visible.contains(name.as_str());
        if stale && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
        let dated = name.starts_with("..") && name != version && entry.file_type()?.is_dir();
        if dated {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(true)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn check(path: &str) -> io::Result<()> {
    let normal = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !normal || path.split('/').next().is_some_and(|first| first.starts_with("..")) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("path {path:?} leaves the volume")));
    }
    Ok(())
}

/// Whether the current version already has these contents and no others.
fn shows(data: &Path, files: &Files) -> bool {
    let same =
        |(path, (bytes, _)): (&String, &(Vec<u8>, u32))| fs::read(data.join(path)).is_ok_and(|b| b == *bytes);
    count(data) == files.len() && files.iter().all(same)
}

fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { count(&e.path()) } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs.iter().map(|(k, v)| (k.to_string(), (v.as_bytes().to_vec(), 0o644))).collect()
    }

    #[test]
    fn a_new_version_replaces_the_old_one_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert!(apply(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("d/b")).unwrap(), "2");
        assert!(!apply(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        let before = fs::read_link(dir.path().join(DATA)).unwrap();
        assert!(apply(dir.path(), &files(&[("a", "3")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert!(!dir.path().join("d").exists());
        assert!(!dir.path().join(before).exists());
    }

    #[test]
    fn a_path_cannot_leave_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "..data", "a/../../x", ""] {
            assert!(apply(dir.path(), &files(&[(bad, "")]), None).is_err(), "{bad}");
        }
    }
}
