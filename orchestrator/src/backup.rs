//! `orchestrator backup` and `restore`: all objects of one revision in a file, and a store made of such a file.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use penstock_store::backup::{self, Restored, Summary};
use penstock_store::embedded::{self, Embedded};
use penstock_store::etcd::{self, Etcd};
use penstock_store::{Revision, Store};

use crate::cli::{BackupArguments, RestoreArguments, StoreKind};
use crate::control::{self, Ask};
use crate::data_dir::DataDir;
use crate::progress::{self, Shown};

const BUFFER_BYTES: usize = 1 << 18;

/// Takes a backup and says what is in it.
pub async fn backup(arguments: BackupArguments) -> anyhow::Result<()> {
    let new = NewFile::create(&arguments.out)?;
    let mut shown = Shown::new("written");
    let (summary, new) = match arguments.of.store {
        StoreKind::Etcd => {
            let store = Etcd::connect(&arguments.of.etcd_endpoints).await?;
            let (summary, out) = store.backup(new, &mut |at| shown.show(at)).await?;
            shown.end();
            (summary, out)
        }
        StoreKind::Embedded => {
            let data = DataDir::existing(arguments.of.data_dir()?)?;
            let taken = take_embedded(&data, new, shown).await?;
            (taken.0, taken.1)
        }
    };
    new.keep()?;
    println!("{} holds {}", arguments.out.display(), progress::describe(&summary));
    Ok(())
}

/// From the control plane that runs, or from the file if none does.
async fn take_embedded(data: &DataDir, new: NewFile, mut shown: Shown) -> anyhow::Result<(Summary, NewFile)> {
    if let Some(answer) = control::ask(&data.control_socket(), Ask::Backup)? {
        let mut tee = Tee { from: answer, to: new };
        // What is written has been read as whoever restores it will read it.
        let summary = backup::verify(&mut tee, &mut |at| shown.show(at))
            .context("the control plane's answer broke off; its log says why")?;
        shown.end();
        return Ok((summary, tee.to));
    }
    let _owned = data.own()?;
    if !data.store().exists() {
        bail!(
            "there is no embedded store at {}; a cluster in etcd is backed up with --store etcd --etcd-endpoints",
            data.store().display()
        );
    }
    let store = Embedded::open(&data.store()).await?;
    let taken = store.backup(new, move |at| shown.show(at)).await;
    store.close().await;
    Ok(taken?)
}

/// Makes a store of a backup and says what it holds.
pub async fn restore(arguments: RestoreArguments) -> anyhow::Result<()> {
    let mut file =
        File::open(&arguments.from).with_context(|| format!("cannot open {}", arguments.from.display()))?;
    let mut shown = Shown::new("checked");
    let summary = backup::verify(BufReader::with_capacity(BUFFER_BYTES, &file), &mut |at| shown.show(at))?;
    shown.end();
    eprintln!("{} is whole: {}", arguments.from.display(), progress::describe(&summary));
    file.seek(SeekFrom::Start(0)).with_context(|| format!("cannot read {}", arguments.from.display()))?;
    let from = BufReader::with_capacity(BUFFER_BYTES, file);

    let (restored, place) = match arguments.to.store {
        StoreKind::Embedded => {
            let data = DataDir::ensure(arguments.to.data_dir()?)?;
            let restored = restore_embedded(&data, from, arguments.replace).await?;
            if !data.has_keys() {
                eprintln!(
                    "note: {} has no keys; they are not in a backup. Copy the former pki folder there before the first \
                     start, or every certificate and service-account token of the cluster must be made anew",
                    data.pki().display()
                );
            }
            (restored, data.store().display().to_string())
        }
        StoreKind::Etcd => {
            let endpoints = &arguments.to.etcd_endpoints;
            let mut shown = Shown::new("restored");
            let restored = etcd::restore(endpoints, from, arguments.replace, &mut |at| shown.show(at)).await;
            shown.end();
            (restored.map_err(explain)?, endpoints.join(","))
        }
    };
    println!(
        "{place} holds {} objects of revision {} and continues at revision {}",
        restored.backup.total.records, restored.backup.header.revision, restored.continues_at
    );
    Ok(())
}

async fn restore_embedded(
    data: &DataDir,
    from: impl Read + Send + 'static,
    replace: bool,
) -> anyhow::Result<Restored> {
    let _owned = data.own()?;
    let store = data.store();
    let mut aside = None;
    let mut newest_there = Revision(0);
    if embedded::is_there(&store) && replace {
        if store.exists() {
            newest_there = newest_of(&store).await;
        }
        let kept = aside_of(&store);
        embedded::rename(&store, &kept).with_context(|| format!("cannot put {} aside", store.display()))?;
        eprintln!("the store that was there is now {}", kept.display());
        aside = Some(kept);
    }
    let mut shown = Shown::new("restored");
    let restored = embedded::restore(from, &store, newest_there, move |at| shown.show(at)).await;
    if let (Err(_), Some(kept)) = (&restored, &aside) {
        embedded::rename(kept, &store).with_context(|| {
            format!("cannot put {} back; do so before starting the control plane", kept.display())
        })?;
    }
    restored.map_err(explain)
}

/// The newest revision a store gave out; one that cannot be read is no reason not to replace it.
async fn newest_of(store: &Path) -> Revision {
    let opened = async {
        let store = Embedded::open(store).await?;
        let newest = store.revision().await;
        store.close().await;
        newest
    };
    opened.await.unwrap_or_else(|error| {
        eprintln!("note: the store that is there cannot be read ({error})");
        Revision(0)
    })
}

fn explain(error: backup::BackupError) -> anyhow::Error {
    let not_empty = matches!(error, backup::BackupError::NotEmpty { .. });
    let error = anyhow::Error::from(error);
    if not_empty {
        let advice = "nothing was changed; give --replace to put the backup in its place";
        anyhow::anyhow!("{error:#}; {advice}")
    } else {
        error
    }
}

fn aside_of(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(format!(".replaced-{}", jiff::Timestamp::now().as_second()));
    name.into()
}

/// A file of mode 0600 that has its name only once it is whole.
struct NewFile {
    out: BufWriter<File>,
    path: PathBuf,
    partial: PathBuf,
    kept: bool,
}

/// Writes on what is read.
struct Tee<R, W> {
    from: R,
    to: W,
}

// === impl NewFile ===

impl NewFile {
    fn create(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            bail!("{} exists already; a backup overwrites nothing", path.display());
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", partial.display()));
            }
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        let file = file.with_context(|| format!("cannot write {}", partial.display()))?;
        let out = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { out, path: path.to_owned(), partial, kept: false })
    }

    /// Gives the file its name, after what was written has reached the disk.
    fn keep(mut self) -> anyhow::Result<()> {
        let kept = (|| {
            self.out.flush()?;
            self.out.get_ref().sync_all()?;
            fs::rename(&self.partial, &self.path)?;
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        })();
        kept.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            // It holds Secrets, and nobody can use it.
            drop(fs::remove_file(&self.partial));
        }
    }
}

// === impl Tee ===

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(into)?;
        self.to.write_all(&into[..read])?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
