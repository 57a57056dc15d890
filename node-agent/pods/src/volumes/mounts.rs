//! Directories behind volumes that are not made of files: emptyDir on disk or in memory, host paths, sub-paths.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use penstock_runtime::FsMount;

use super::VolumeError;

/// An empty directory everyone may write to.
pub fn ensure_empty_dir(dir: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    if fs::metadata(dir)?.permissions().mode() & 0o7777 != mode {
        chown(dir, None, group)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The same in memory.
pub fn ensure_memory_dir(dir: &Path, size_bytes: Option<i64>, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if !is_mount_point(dir)? {
        let options = size_bytes.filter(|s| *s > 0).map(|s| format!("size={s}"));
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), dir, Some("tmpfs"), flags, options.as_deref())?;
    }
    ensure_empty_dir(dir, group)
}

/// Mounts the files of an image, one layer over the other, for reading alone.
///
/// # Errors
/// What the kernel refused; then nothing stays mounted here.
pub fn mount_read_only(dir: &Path, layers: &[FsMount]) -> io::Result<()> {
    for layer in layers {
        let is = |word: &str| layer.options.iter().any(|option| option == word);
        let bind = is("bind") || is("rbind");
        let data: Vec<&str> = layer
            .options
            .iter()
            .map(String::as_str)
            .filter(|o| !["ro", "rw", "bind", "rbind"].contains(o))
            .collect();
        let quiet = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let done = if bind {
            // A bind takes its flags in a second step alone.
            mount(Some(layer.source.as_str()), dir, None::<&str>, MsFlags::MS_BIND, None::<&str>).and_then(
                |()| {
                    mount(
                        None::<&str>,
                        dir,
                        None::<&str>,
                        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | quiet,
                        None::<&str>,
                    )
                },
            )
        } else {
            let data = data.join(",");
            mount(Some(layer.source.as_str()), dir, Some(layer.fs_type.as_str()), quiet, Some(data.as_str()))
        };
        if let Err(error) = done {
            while is_mounted(dir) && umount2(dir, MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
            return Err(error.into());
        }
    }
    Ok(())
}

/// Whether something is mounted exactly here.
pub fn is_mounted(dir: &Path) -> bool {
    mount_points().iter().any(|point| point == dir)
}

fn mount_points() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|l| l.split(' ').nth(4)).map(unescape).collect()
}

fn is_mount_point(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(dir);
    Ok(fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev())
}

/// Unmounts whatever is mounted below `dir`, deepest first. Failures are reported and passed over: a mount that stays
/// must not keep the pod, but then its directory must stay too; returns whether everything is unmounted.
pub fn unmount_below(dir: &Path) -> bool {
    let mut points = mount_points();
    points.retain(|p| p.starts_with(dir) && p != dir);
    points.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    let mut clean = true;
    for point in points {
        if let Err(error) = umount2(&point, MntFlags::UMOUNT_NOFOLLOW) {
            tracing::warn!(path = %point.display(), %error, "volume stays mounted");
            clean = false;
        }
    }
    clean
}

/// mountinfo writes blanks and backslashes as octal.
fn unescape(text: &str) -> PathBuf {
    let text =
        text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    PathBuf::from(text)
}

/// Checks a host path against its declared type, making it where the type says so.
pub fn ensure_host_path(path: &str, kind: &str) -> Result<(), VolumeError> {
    let wrong = || VolumeError::HostPath { path: path.to_string(), kind: kind.to_string() };
    let io = |source| VolumeError::Io { path: path.into(), source };
    let found = fs::metadata(path).ok();
    let is = |test: fn(&fs::Metadata) -> bool| found.as_ref().is_some_and(test);
    let fine = match kind {
        "" => true,
        "DirectoryOrCreate" => {
            if found.is_none() {
                fs::create_dir_all(path).map_err(io)?;
            }
            found.is_none() || is(fs::Metadata::is_dir)
        }
        "Directory" => is(fs::Metadata::is_dir),
        "FileOrCreate" => {
            if found.is_none() {
                fs::File::create(path).map_err(io)?;
            }
            found.is_none() || is(fs::Metadata::is_file)
        }
        "File" => is(fs::Metadata::is_file),
        "Socket" => is(|m| m.file_type().is_socket()),
        "CharDevice" => is(|m| m.file_type().is_char_device()),
        "BlockDevice" => is(|m| m.file_type().is_block_device()),
        _ => false,
    };
    fine.then_some(()).ok_or_else(wrong)
}

/// A path inside a volume, made if it is not there. What it resolves to must be inside the volume: a container could
/// have put a link there.
pub fn ensure_sub_path(volume: &Path, sub: &str) -> Result<PathBuf, VolumeError> {
    let outside = || VolumeError::SubPath { path: sub.to_string() };
    let io = |source| VolumeError::Io { path: volume.join(sub), source };
    let inside = Path::new(sub).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(outside());
    }
    let root = volume.canonicalize().map_err(io)?;
    let mut at = root.clone();
    for part in Path::new(sub).components().filter(|c| matches!(c, Component::Normal(_))) {
        let next = at.join(part);
        match next.canonicalize() {
            Ok(real) if real.starts_with(&root) => at = real,
            Ok(_) => return Err(outside()),
            Err(e) if e.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&next).is_err() => {
                fs::create_dir(&next).map_err(io)?;
                let mode = fs::metadata(&root).map_err(io)?.permissions().mode() & 0o7777;
                fs::set_permissions(&next, fs::Permissions::from_mode(mode)).map_err(io)?;
                at = next;
            }
            Err(_) => return Err(outside()),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_is_made_inside_and_never_followed_outside() {
        let dir = tempfile::tempdir().unwrap();
        let made = ensure_sub_path(dir.path(), "a/b").unwrap();
        assert!(made.is_dir() && made.ends_with("a/b"));
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        for bad in ["../x", "/etc", "link", "link/passwd"] {
            assert!(ensure_sub_path(dir.path(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_path_must_be_what_it_is_declared_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        assert!(ensure_host_path(&path("none"), "Directory").is_err());
        ensure_host_path(&path("made"), "DirectoryOrCreate").unwrap();
        assert!(ensure_host_path(&path("made"), "Directory").is_ok());
        assert!(ensure_host_path(&path("made"), "File").is_err());
    }
}
