//! The embedded store keeps the contract, and what only it promises.

use std::io::{Read, Seek, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use penstock_store::contract::{Scene, cases};
use penstock_store::embedded::{Embedded, EmbeddedOptions};
use penstock_store::{Expect, ListRequest, Mutation, Revision, Store, StoreError, Write};

fn write(key: &str, expect: Expect, value: impl Into<Bytes>) -> Write {
    let mutation = Mutation::Put { value: value.into(), lease_ttl_seconds: None };
    Write { key: key.to_owned(), expect, mutation }
}

async fn keys(store: &Embedded) -> Vec<String> {
    let page = store.list(ListRequest { prefix: "/".to_owned(), ..ListRequest::default() }).await.unwrap();
    page.records.into_iter().map(|record| record.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_keeps_the_contract() {
    for case in cases() {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(&directory.path().join("penstock.redb")).await.unwrap();
        println!("{}", case.name);
        (case.run)(Scene { store: store.clone(), prefix: "/contract/".to_owned() }).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_reopened_store_holds_everything_and_counts_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nested/store.redb");
    let store = Embedded::open(&path).await.unwrap();
    let first = store.commit(write("/a", Expect::Absent, "one")).await.unwrap().revision;
    let second = store.commit(write("/b", Expect::Absent, "two")).await.unwrap().revision;
    store.close().await;
    drop(store);

    let store = Embedded::open(&path).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), second);
    assert_eq!(store.get("/a").await.unwrap().unwrap().modified, first);
    let mut watch = store.watch("/", Revision(first.0 - 1)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().key, "/a", "history survives too");
    assert!(store.commit(write("/c", Expect::Absent, "three")).await.unwrap().revision > second);
}

#[tokio::test]
async fn a_second_process_is_told_the_database_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let _store = Embedded::open(&path).await.unwrap();
    let second = Embedded::open(&path).await.map(|_| ());
    assert!(matches!(second, Err(StoreError::Locked { .. })), "{second:?}");
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("store.redb")).await.unwrap();
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    store.close().await;
    assert!(matches!(store.get("/a").await, Err(StoreError::Unavailable { .. })));
    let refused = store.commit(write("/a", Expect::Any, "x")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert!(watch.next().await.unwrap().is_err(), "watches end");
}

#[tokio::test]
async fn history_stays_bounded_under_writes() {
    let directory = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        history_revisions_max: 500,
        history_revisions_min: 10,
        ..EmbeddedOptions::default()
    };
    let store = Embedded::open_with(&directory.path().join("store.redb"), options).await.unwrap();
    let early = store.commit(write("/a", Expect::Any, "0")).await.unwrap().revision;
    let rounds = (0..1500).map(|n| {
        let store = store.clone();
        async move { store.commit(write(&format!("/{}", n % 7), Expect::Any, n.to_string())).await.unwrap() }
    });
    futures::future::join_all(rounds).await;
    let answer = store.watch("/", early).await.map(|_| ());
    assert!(matches!(answer, Err(StoreError::Compacted { oldest }) if oldest > early), "{answer:?}");
    let newest = store.revision().await.unwrap();
    assert!(store.watch("/", Revision(newest.0 - 10)).await.is_ok(), "the recent past is kept");
    assert_eq!(keys(&store).await.len(), 8);
}

#[tokio::test]
async fn a_watch_that_is_not_read_is_closed_and_holds_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { watch_batches_max: 2, ..EmbeddedOptions::default() };
    let store = Embedded::open_with(&directory.path().join("store.redb"), options).await.unwrap();
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    for n in 0..5 {
        store.commit(write("/a", Expect::Any, n.to_string())).await.unwrap();
    }
    let mut last = None;
    while let Some(item) = watch.next().await {
        last = Some(item.map(|event| event.revision));
    }
    assert!(matches!(last, Some(Err(StoreError::WatchTooSlow { .. }))), "{last:?}");
}

#[tokio::test]
async fn a_record_that_ran_out_while_nobody_ran_is_deleted_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = Embedded::open(&path).await.unwrap();
    let mutation = Mutation::Put { value: Bytes::from("x"), lease_ttl_seconds: Some(0) };
    let put = store.commit(Write { key: "/brief".to_owned(), expect: Expect::Any, mutation }).await.unwrap();
    store.close().await;
    drop(store);
    let store = Embedded::open(&path).await.unwrap();
    let mut watch = store.watch("/", put.revision).await.unwrap();
    let gone = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap().unwrap();
    assert!(gone.current.is_none());
    assert_eq!(keys(&store).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_damaged_file_is_reported_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = Embedded::open(&path).await.unwrap();
    let value = b"a-value-that-is-easy-to-find-in-the-file".repeat(20);
    store.commit(write("/a", Expect::Any, value.clone())).await.unwrap();
    store.close().await;
    drop(store);

    damage(&path, &value);
    let before = std::fs::read(&path).unwrap();
    let refused = match Embedded::open(&path).await {
        Err(error) => error,
        Ok(store) => store.get("/a").await.unwrap_err(),
    };
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap().len(), before.len());
}

/// Flips a byte in every place the value is stored.
fn damage(path: &Path, value: &[u8]) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - value.len()).filter(|at| bytes[*at..].starts_with(value)).collect();
    assert!(!places.is_empty(), "the value is in the file");
    for at in places {
        file.seek(SeekFrom::Start(at as u64 + 7)).unwrap();
        file.write_all(b"!").unwrap();
    }
    file.sync_all().unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    std::fs::write(&path, b"something else entirely, and longer than a header could be".repeat(200)).unwrap();
    let refused = Embedded::open(&path).await.map(|_| ());
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_full_store_takes_deletions_only_until_there_is_room_again() {
    let directory = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        file_bytes_max: 8 << 20,
        history_revisions_max: 4,
        history_revisions_min: 1,
        ..EmbeddedOptions::default()
    };
    let store = Embedded::open_with(&directory.path().join("store.redb"), options).await.unwrap();
    let value = vec![b'x'; 256 << 10];
    let mut written = 0;
    let full = loop {
        match store.commit(write(&format!("/{written:03}"), Expect::Absent, value.clone())).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 200, "the quota holds");
    };
    assert!(full.to_string().contains("--store-quota"), "{full}");
    assert!(matches!(full, StoreError::Full { .. }));
    assert!(written > 8, "{written} values of a quarter of a MiB went into 8");
    assert_eq!(keys(&store).await.len(), written, "what was taken is there");
    for n in 0..written {
        let key = format!("/{n:03}");
        store.commit(Write { key, expect: Expect::Any, mutation: Mutation::Delete }).await.unwrap();
    }
    // History is forgotten in steps, while writes come in; small ones are refused until then.
    let room = async {
        loop {
            match store.commit(write("/small", Expect::Any, "x")).await {
                Ok(_) => break,
                Err(StoreError::Full { .. }) => {
                    store.compact(store.revision().await.unwrap()).await.map_or((), drop)
                }
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), room).await.expect("room is made");
}
