//! Backups of the embedded store: one revision under writing load, whole or refused, and a store made of them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use penstock_store::backup::{BackupError, Summary, verify};
use penstock_store::embedded::{self, Embedded, restore};
use penstock_store::{Expect, ListRequest, Mutation, Record, Revision, Store, StoreError, Write};

fn put(key: &str, value: impl Into<Bytes>, lease_ttl_seconds: Option<u64>) -> Write {
    let mutation = Mutation::Put { value: value.into(), lease_ttl_seconds };
    Write { key: key.to_owned(), expect: Expect::Any, mutation }
}

async fn records(store: &dyn Store, at: Option<Revision>) -> Vec<Record> {
    store.list(ListRequest { at, ..ListRequest::default() }).await.unwrap().records
}

async fn backup(store: &Embedded) -> (Summary, Vec<u8>) {
    store.backup(Vec::new(), |_| {}).await.unwrap()
}

async fn restored(backup: Vec<u8>, to: &Path) -> Arc<Embedded> {
    restore(std::io::Cursor::new(backup), to, Revision(0), |_| {}).await.unwrap();
    Embedded::open(to).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_writing_load_holds_exactly_the_records_of_its_revision() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("store.redb")).await.unwrap();
    for n in 0..200 {
        store.commit(put(&format!("/registry/a/{n:03}"), vec![b'a'; 2_000], None)).await.unwrap();
    }
    let ended = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, ended) = (store.clone(), ended.clone());
            tokio::spawn(async move {
                let mut written = 0;
                while !ended.load(Ordering::Relaxed) {
                    let key = format!("/registry/a/{:03}", (written * 7 + writer) % 300);
                    let write = match written % 5 {
                        4 => Write { key, expect: Expect::Any, mutation: Mutation::Delete },
                        _ => put(&key, format!("{writer} {written}"), None),
                    };
                    match store.commit(write).await {
                        Ok(_) | Err(StoreError::Conflict { .. }) => written += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                written
            })
        })
        .collect();
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(backup(&store).await);
    }
    ended.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 0, "writes went on");
    }
    for (number, (summary, bytes)) in taken.into_iter().enumerate() {
        let expected = records(&*store, Some(summary.header.revision)).await;
        assert_eq!(summary.total.records, expected.len() as u64);
        assert_eq!(verify(&bytes[..], &mut |_| {}).unwrap(), summary);
        let copy = restored(bytes, &directory.path().join(format!("copy-{number}.redb"))).await;
        assert_eq!(records(&*copy, None).await, expected, "keys, values and revisions");
        copy.close().await;
    }
}

#[tokio::test]
async fn a_restored_store_continues_beyond_every_revision_ever_seen() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("store.redb")).await.unwrap();
    store.commit(put("/a", "one", None)).await.unwrap();
    let (summary, bytes) = backup(&store).await;
    let later = store.commit(put("/a", "lost", None)).await.unwrap().revision;

    let copy = restored(bytes.clone(), &directory.path().join("copy.redb")).await;
    for seen in [summary.header.revision, later] {
        let watch = copy.watch("/", seen).await.map(|_| ());
        assert!(matches!(watch, Err(StoreError::Compacted { .. })), "{watch:?}");
        let list = copy.list(ListRequest { at: Some(seen), ..ListRequest::default() }).await;
        assert!(matches!(list, Err(StoreError::Compacted { .. })), "{list:?}");
    }
    let stale = Write { expect: Expect::Revision(later), ..put("/a", "stale", None) };
    assert!(matches!(copy.commit(stale).await, Err(StoreError::Conflict { .. })));
    let mut watch = copy.watch("/", copy.revision().await.unwrap()).await.unwrap();
    let committed = copy.commit(put("/a", "two", None)).await.unwrap();
    assert!(committed.revision.0 > later.0 + 1_000_000);
    assert_eq!(committed.previous.unwrap().value, "one");
    assert_eq!(watch.next().await.unwrap().unwrap().revision, committed.revision);

    let there = directory.path().join("there.redb");
    let seen = Revision(5_000_000_000);
    let made = restore(std::io::Cursor::new(bytes), &there, seen, |_| {}).await.unwrap();
    assert!(made.continues_at > seen, "also beyond what the store in its place gave out");
}

#[tokio::test]
async fn records_that_run_out_still_do_after_a_restore() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("store.redb")).await.unwrap();
    store.commit(put("/brief", "x", Some(1))).await.unwrap();
    store.commit(put("/long", "x", Some(3_600))).await.unwrap();
    store.commit(put("/kept", "x", None)).await.unwrap();
    let (_, bytes) = backup(&store).await;
    let copy = restored(bytes, &directory.path().join("copy.redb")).await;
    let gone = async {
        while copy.get("/brief").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the brief one runs out");
    let keys: Vec<_> = records(&*copy, None).await.into_iter().map(|record| record.key).collect();
    assert_eq!(keys, ["/kept", "/long"]);
}

#[tokio::test]
async fn nothing_is_left_of_a_restore_that_failed_and_nothing_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("store.redb")).await.unwrap();
    store.commit(put("/a", vec![b'x'; 100_000], None)).await.unwrap();
    let (_, bytes) = backup(&store).await;
    let to = directory.path().join("copy.redb");
    for at in [20, bytes.len() / 2, bytes.len() - 2] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let error = restore(std::io::Cursor::new(damaged), &to, Revision(0), |_| {}).await.unwrap_err();
        assert!(matches!(error, BackupError::Damaged { .. }), "{error}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "the store and its journal alone");
    let there = directory.path().join("store.redb");
    let over = restore(std::io::Cursor::new(bytes), &there, Revision(0), |_| {});
    assert!(matches!(over.await, Err(BackupError::NotEmpty { .. })));
}

#[tokio::test]
async fn a_whole_store_checks_as_whole_closed_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = Embedded::open(&path).await.unwrap();
    for n in 0..50 {
        store
            .commit(put(&format!("/{}", n % 20), format!("{n}"), (n % 2 == 0).then_some(3_600)))
            .await
            .unwrap();
    }
    store
        .commit(Write { key: "/3".to_owned(), expect: Expect::Any, mutation: Mutation::Delete })
        .await
        .unwrap();
    let running = store.check_rows().await.unwrap();
    assert!(running.is_whole() && !running.pages, "{running:?}");
    assert_eq!((running.records, running.versions, running.log_rows), (19, 51, 51));
    let busy = embedded::check(&path).await;
    assert!(matches!(busy, Err(StoreError::Locked { .. })), "{busy:?}");
    // As a crash would leave it.
    let crashed = directory.path().join("crashed.redb");
    std::fs::copy(&path, &crashed).unwrap();
    let journal = |path: &Path| path.with_added_extension("journal");
    std::fs::copy(journal(&path), journal(&crashed)).unwrap();
    store.close().await;
    for path in [path, crashed] {
        let before = std::fs::read(&path).unwrap();
        let checked = embedded::check(&path).await.unwrap();
        assert!(checked.is_whole() && checked.pages, "{checked:?}");
        assert_eq!(checked.records, 19);
        assert_eq!(std::fs::read(&path).unwrap(), before, "a check changes nothing");
    }
}

#[tokio::test]
async fn damage_anywhere_is_found_named_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = Embedded::open(&path).await.unwrap();
    let mut values = BTreeMap::new();
    for n in 0..40u8 {
        let value = vec![b'a' + n % 26; 3_000 + usize::from(n)];
        store.commit(put(&format!("/registry/{n:02}"), value.clone(), None)).await.unwrap();
        values.insert(n, value);
    }
    store.close().await;
    drop(store);
    let mut whole = Vec::new();
    std::fs::File::open(&path).unwrap().read_to_end(&mut whole).unwrap();
    let value = &values[&17];
    let places = (0..whole.len() - value.len()).filter(|at| whole[*at..].starts_with(value));
    let mut found = 0;
    for at in places {
        let mut damaged = whole.clone();
        damaged[at + 100] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let checked = embedded::check(&path).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "nothing is repaired");
        if !checked.is_whole() {
            found += 1;
            let finding = &checked.findings[0];
            assert!(finding.advice.contains("orchestrator restore"), "{finding:?}");
        }
    }
    assert!(found > 0, "at least the page in use counts");
}
