//! What the journal promises: no acknowledged write is lost wherever a crash comes, and damage is told, not passed over.
//!
//! A crash is a copy of the files of a store that is open: what a process that ended at this moment leaves behind.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use penstock_store::embedded::{self, Embedded, EmbeddedOptions};
use penstock_store::{Expect, ListRequest, Mutation, Record, Revision, Store, StoreError, Write};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const PATIENCE: Duration = Duration::from_secs(60);

/// Checkpoints are made only when the journal is full and at the end.
fn options(journal_bytes_max: u64) -> EmbeddedOptions {
    let never = Duration::from_secs(100_000);
    EmbeddedOptions {
        journal_bytes_max,
        checkpoint_idle: never,
        checkpoint_age_max: never,
        ..EmbeddedOptions::default()
    }
}

async fn open(path: &Path, journal_bytes_max: u64) -> Arc<Embedded> {
    Embedded::open_with(path, options(journal_bytes_max)).await.unwrap()
}

async fn put(store: &Embedded, key: &str, value: impl Into<Bytes>) -> Revision {
    let mutation = Mutation::Put { value: value.into(), lease_ttl_seconds: None };
    store.commit(Write { key: key.to_owned(), expect: Expect::Any, mutation }).await.unwrap().revision
}

async fn delete(store: &Embedded, key: &str) {
    let write = Write { key: key.to_owned(), expect: Expect::Any, mutation: Mutation::Delete };
    store.commit(write).await.unwrap();
}

async fn records(store: &Embedded) -> Vec<Record> {
    store.list(ListRequest::default()).await.unwrap().records
}

fn journal_of(path: &Path) -> PathBuf {
    path.with_added_extension("journal")
}

/// The files as a crash leaves them.
fn crash(path: &Path, to: &Path) {
    fs::copy(path, to).unwrap();
    fs::copy(journal_of(path), journal_of(to)).unwrap();
}

/// Where a value lies in a file.
fn places(file: &Path, value: &[u8]) -> Vec<u64> {
    let bytes = fs::read(file).unwrap();
    let places = (0..bytes.len() - value.len()).filter(|at| bytes[*at..].starts_with(value));
    places.map(|at| at as u64).collect()
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    fs::File::options().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

#[tokio::test]
async fn a_crash_after_any_write_loses_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    // Room for some ten writes, so that crashes come before, right after and long after checkpoints.
    let store = open(&path, 16 << 10).await;
    for n in 0..60_usize {
        put(&store, &format!("/{:02}", n * 7 % 20), vec![b'a' + (n % 26) as u8; n * 40]).await;
        if n % 5 == 4 {
            delete(&store, &format!("/{:02}", n * 7 % 20)).await;
        }
        if n == 30 {
            store.compact(Revision(20)).await.unwrap();
        }
        let crashed = directory.path().join(format!("crashed-{n}.redb"));
        crash(&path, &crashed);
        let before = (fs::read(&crashed).unwrap(), fs::read(journal_of(&crashed)).unwrap());
        let checked = embedded::check(&crashed).await.unwrap();
        assert!(checked.is_whole(), "{checked:?}");
        let after = (fs::read(&crashed).unwrap(), fs::read(journal_of(&crashed)).unwrap());
        assert!(before == after, "a check changes nothing");

        let copy = open(&crashed, 16 << 10).await;
        assert_eq!(copy.revision().await.unwrap(), store.revision().await.unwrap());
        assert_eq!(records(&copy).await, records(&store).await, "after write {n}");
        let resumed = copy.watch("/", Revision(19)).await.map(|_| ());
        assert_eq!(resumed.is_err(), n >= 30, "what was compacted stays so: {resumed:?}");
        if n >= 25 {
            let mut watch = copy.watch("/", Revision(24)).await.unwrap();
            assert_eq!(watch.next().await.unwrap().unwrap().revision, Revision(25), "history is there");
        }
        let later = put(&copy, "/later", "x").await;
        assert_eq!(later.0, store.revision().await.unwrap().0 + 1);
        copy.close().await;
    }
}

#[tokio::test]
async fn a_crash_between_a_checkpoint_and_the_next_write_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (path, crashed) = (directory.path().join("store.redb"), directory.path().join("crashed.redb"));
    let store = open(&path, 1 << 20).await;
    for n in 0..20 {
        put(&store, "/counter", n.to_string()).await;
    }
    store.close().await;
    drop(store);
    // The database has everything, and the journal still holds what was in it.
    let store = open(&path, 1 << 20).await;
    crash(&path, &crashed);
    let copy = open(&crashed, 1 << 20).await;
    assert_eq!(embedded_revision(&copy).await, 21);
    assert_eq!(copy.get("/counter").await.unwrap().unwrap().value, "19");
    // A shorter round over a longer one.
    put(&copy, "/counter", "over").await;
    let twice = directory.path().join("twice.redb");
    crash(&crashed, &twice);
    let copy = open(&twice, 1 << 20).await;
    assert_eq!(embedded_revision(&copy).await, 22);
    assert_eq!(copy.get("/counter").await.unwrap().unwrap().value, "over");
    assert_eq!(embedded_revision(&store).await, 21);
}

async fn embedded_revision(store: &Embedded) -> u64 {
    store.revision().await.unwrap().0
}

#[tokio::test]
async fn leases_run_from_when_they_were_given_also_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let (path, crashed) = (directory.path().join("store.redb"), directory.path().join("crashed.redb"));
    let store = open(&path, 1 << 20).await;
    for (key, seconds) in [("/brief", 0), ("/long", 10_000)] {
        let mutation = Mutation::Put { value: Bytes::from("x"), lease_ttl_seconds: Some(seconds) };
        store.commit(Write { key: key.to_owned(), expect: Expect::Any, mutation }).await.unwrap();
        crash(&path, &crashed);
    }
    let copy = open(&crashed, 1 << 20).await;
    let gone = async {
        while copy.get("/brief").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the brief one runs out");
    assert_eq!(records(&copy).await.len(), 1);
    // That it ran out is in the journal like any other write.
    let twice = directory.path().join("twice.redb");
    crash(&crashed, &twice);
    assert_eq!(records(&*open(&twice, 1 << 20).await).await, records(&copy).await);
}

#[tokio::test]
async fn a_write_that_was_cut_off_is_none_and_the_next_takes_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let (path, crashed) = (directory.path().join("store.redb"), directory.path().join("crashed.redb"));
    let store = open(&path, 1 << 20).await;
    for n in 0..5 {
        put(&store, &format!("/{n}"), format!("the-value-of-{n}").repeat(30)).await;
    }
    crash(&path, &crashed);
    let last = places(&journal_of(&crashed), b"the-value-of-4")[0];
    overwrite(&journal_of(&crashed), last + 100, &[0; 50]);
    let copy = open(&crashed, 1 << 20).await;
    assert_eq!(records(&copy).await.len(), 4);
    let again = put(&copy, "/again", "x").await;
    assert_eq!(again, Revision(6));
    let twice = directory.path().join("twice.redb");
    crash(&crashed, &twice);
    assert_eq!(records(&*open(&twice, 1 << 20).await).await, records(&copy).await);
}

#[tokio::test]
async fn damage_to_a_write_that_others_follow_is_told_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (path, crashed) = (directory.path().join("store.redb"), directory.path().join("crashed.redb"));
    let store = open(&path, 1 << 20).await;
    for n in 0..5 {
        put(&store, &format!("/{n}"), format!("the-value-of-{n}").repeat(30)).await;
    }
    crash(&path, &crashed);
    let second = places(&journal_of(&crashed), b"the-value-of-1")[0];
    overwrite(&journal_of(&crashed), second + 3, b"!");
    let before = (fs::read(&crashed).unwrap(), fs::read(journal_of(&crashed)).unwrap());
    let checked = embedded::check(&crashed).await.unwrap();
    assert!(checked.findings[0].what.contains("the journal is damaged at byte"), "{checked:?}");
    assert!(checked.findings[0].advice.contains("orchestrator restore"), "{checked:?}");
    let after = (fs::read(&crashed).unwrap(), fs::read(journal_of(&crashed)).unwrap());
    assert!(before == after, "a check changes nothing");
    let refused = Embedded::open_with(&crashed, options(1 << 20)).await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    assert!(refused.to_string().contains("batch of writes 2 is not whole"), "{refused}");
    assert_eq!(fs::read(journal_of(&crashed)).unwrap(), before.1);
}

#[tokio::test]
async fn a_database_older_than_its_journal_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("store.redb"), directory.path().join("old.redb"));
    let store = open(&path, 1 << 20).await;
    put(&store, "/a", "1").await;
    crash(&path, &old);
    store.close().await;
    let store = open(&path, 1 << 20).await;
    put(&store, "/a", "2").await;
    put(&store, "/a", "3").await;
    fs::copy(journal_of(&path), journal_of(&old)).unwrap();
    let refused = Embedded::open_with(&old, options(1 << 20)).await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
}

#[tokio::test]
async fn a_restored_store_does_not_take_the_journal_of_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path, 1 << 20).await;
    put(&store, "/a", "saved").await;
    let (_, backup) = store.backup(Vec::new(), |_| {}).await.unwrap();
    put(&store, "/a", "lost").await;
    let left = directory.path().join("left.redb");
    crash(&path, &left);
    fs::remove_file(&left).unwrap();

    let restore = |to| embedded::restore(std::io::Cursor::new(backup.clone()), to, Revision(0), |_| {});
    assert!(embedded::is_there(&left), "a journal alone is the rest of a store");
    restore(&left).await.unwrap_err();
    let copy = directory.path().join("copy.redb");
    restore(&copy).await.unwrap();
    fs::copy(journal_of(&left), journal_of(&copy)).unwrap();
    let store = open(&copy, 1 << 20).await;
    assert_eq!(store.get("/a").await.unwrap().unwrap().value, "saved");
    put(&store, "/b", "new").await;
    let crashed = directory.path().join("crashed.redb");
    crash(&copy, &crashed);
    assert_eq!(records(&*open(&crashed, 1 << 20).await).await, records(&store).await);
}

#[tokio::test]
async fn a_store_that_is_put_aside_keeps_its_journal() {
    let directory = tempfile::tempdir().unwrap();
    let (path, crashed) = (directory.path().join("store.redb"), directory.path().join("crashed.redb"));
    let store = open(&path, 1 << 20).await;
    put(&store, "/a", "in the journal").await;
    crash(&path, &crashed);
    let aside = directory.path().join("aside");
    embedded::rename(&crashed, &aside).unwrap();
    assert!(!embedded::is_there(&crashed));
    assert_eq!(open(&aside, 1 << 20).await.get("/a").await.unwrap().unwrap().value, "in the journal");
}

#[tokio::test]
async fn the_journal_has_a_bound_and_takes_any_write() {
    let directory = tempfile::tempdir().unwrap();
    let (path, crashed) = (directory.path().join("store.redb"), directory.path().join("crashed.redb"));
    let store = open(&path, 64 << 10).await;
    for n in 0..40_usize {
        put(&store, &format!("/{n}"), vec![b'x'; n * 9_000]).await;
    }
    let journal = fs::metadata(journal_of(&path)).unwrap();
    assert!(journal.len() <= 64 << 10, "{}", journal.len());
    assert_eq!(journal.permissions().mode() & 0o777, 0o600);
    crash(&path, &crashed);
    assert_eq!(records(&*open(&crashed, 64 << 10).await).await, records(&store).await);
}

#[tokio::test]
async fn an_idle_store_and_one_that_never_is_become_one_file_again() {
    let brief = Duration::from_millis(5);
    let directory = tempfile::tempdir().unwrap();
    let never = Duration::from_secs(100_000);
    for (name, idle, age) in [("idle", brief, never), ("busy", never, brief)] {
        let path = directory.path().join(name);
        let options =
            EmbeddedOptions { checkpoint_idle: idle, checkpoint_age_max: age, ..EmbeddedOptions::default() };
        let store = Embedded::open_with(&path, options).await.unwrap();
        put(&store, "/a", "x").await;
        let alone = directory.path().join("alone");
        let checkpointed = async {
            loop {
                fs::copy(&path, &alone).unwrap();
                // A copy may be of a moment in the middle of a checkpoint.
                if embedded::check(&alone).await.is_ok_and(|checked| checked.records == 1) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, checkpointed).await.expect("a checkpoint is made");
    }
}

#[tokio::test]
async fn a_file_of_the_format_without_journals_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path, 1 << 20).await;
    let written = put(&store, "/a", "old").await;
    store.close().await;
    drop(store);
    fs::remove_file(journal_of(&path)).unwrap();
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("format", 1).unwrap();
        meta.remove("store").unwrap();
        meta.remove("sequence").unwrap();
    }
    transaction.commit().unwrap();
    drop(database);

    assert!(embedded::check(&path).await.unwrap().is_whole());
    let store = open(&path, 1 << 20).await;
    assert_eq!(store.get("/a").await.unwrap().unwrap().modified, written);
    put(&store, "/b", "new").await;
    store.close().await;
    drop(store);
    let database = Database::open(&path).unwrap();
    let meta = database.begin_read().unwrap().open_table(META).unwrap();
    assert_eq!(meta.get("format").unwrap().unwrap().value(), 2, "programs that know no journal refuse it");
    assert!(meta.iter().unwrap().count() >= 6);
}

/// Runs itself in a mount namespace of its own, where a small file system is soon full.
#[test]
fn on_a_full_disk_writes_fail_clearly_and_nothing_is_lost() {
    const INSIDE: &str = "PENSTOCK_TEST_SMALL_DISK";
    if let Some(disk) = std::env::var_os(INSIDE) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(fill_and_free(Path::new(&disk)));
    }
    let directory = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=12m small \"$1\" && exec \"$2\" --exact --nocapture \"$3\"";
    let outcome = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([directory.path(), &std::env::current_exe().unwrap()])
        .arg("on_a_full_disk_writes_fail_clearly_and_nothing_is_lost")
        .env(INSIDE, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&outcome.stdout);
    assert!(outcome.status.success(), "{said}{}", String::from_utf8_lossy(&outcome.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

async fn fill_and_free(disk: &Path) {
    let (path, ballast) = (disk.join("store.redb"), disk.join("ballast"));
    fs::write(&ballast, vec![1; 3 << 20]).unwrap();
    // Little enough that the disk is full in the journal at times and in the database at others.
    for journal_bytes_max in [1 << 20, 8 << 20] {
        let store = open(&path, journal_bytes_max).await;
        let mut written = records(&store).await.len();
        let full = loop {
            let mutation = Mutation::Put { value: vec![b'x'; 50_000].into(), lease_ttl_seconds: None };
            let write = Write { key: format!("/{written:04}"), expect: Expect::Absent, mutation };
            match store.commit(write).await {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 400, "twelve MiB are not endless");
        };
        assert!(full.to_string().contains("the disk is full"), "{full}");
        fs::remove_file(&ballast).unwrap();
        // What was refused may have been written all the same; what was acknowledged is there.
        let held = async {
            loop {
                match store.list(ListRequest::default()).await {
                    Ok(page) => break page.records.len(),
                    Err(StoreError::Unavailable { .. }) => {
                        drop(store.compact(Revision(1)).await);
                        tokio::task::yield_now().await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let held = tokio::time::timeout(PATIENCE, held).await.expect("the store opens again");
        assert!((written..=written + 1).contains(&held), "{held} of {written}");
        put(&store, "/more", "there is room again").await;
        store.close().await;
        drop(store);
        let store = open(&path, journal_bytes_max).await;
        assert_eq!(records(&store).await.len(), held + 1);
        for n in 0..written {
            delete(&store, &format!("/{n:04}")).await;
        }
        delete(&store, "/more").await;
        store.close().await;
        drop(store);
        fs::remove_file(&path).unwrap();
        fs::remove_file(journal_of(&path)).unwrap();
        fs::write(&ballast, vec![1; 3 << 20]).unwrap();
    }
}
