//! Backups of a control plane that runs and of one that does not, and what is refused.

use std::os::unix::fs::PermissionsExt;

use penstock_store::{Expect, Mutation, Write as StoreWrite};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cli::StoreArguments;

fn of(folder: &Path) -> StoreArguments {
    StoreArguments {
        data_dir: Some(folder.to_owned()),
        store: StoreKind::Embedded,
        etcd_endpoints: Vec::new(),
    }
}

async fn put(store: &Embedded, key: &str, value: &str) {
    let mutation = Mutation::Put { value: value.to_owned().into(), lease_ttl_seconds: None };
    store.commit(StoreWrite { key: key.to_owned(), expect: Expect::Any, mutation }).await.unwrap();
}

async fn value(data: &DataDir, key: &str) -> Option<String> {
    let store = Embedded::open(&data.store()).await.unwrap();
    let record = store.get(key).await.unwrap();
    store.close().await;
    record.map(|record| String::from_utf8(record.value.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_runs_is_backed_up_checked_and_restored() {
    let directory = tempfile::tempdir().unwrap();
    let data = DataDir::ensure(&directory.path().join("data")).unwrap();
    let owned = data.own().unwrap();
    let store = Embedded::open(&data.store()).await.unwrap();
    put(&store, "/registry/a", "before").await;
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (socket, store, stop) = (data.control_socket(), store.clone(), stop.clone());
        async move { control::serve(&socket, store, stop).await }
    });
    while !data.control_socket().exists() {
        tokio::task::yield_now().await;
    }
    let out = directory.path().join("a.backup");
    let arguments = || BackupArguments { of: of(&directory.path().join("data")), out: out.clone() };
    backup(arguments()).await.unwrap();
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let again = backup(arguments()).await.unwrap_err().to_string();
    assert!(again.contains("exists already"), "{again}");
    let check = |data_dir, backup| crate::store_check::run(crate::cli::CheckArguments { data_dir, backup });
    check(Some(directory.path().join("data")), None).await.unwrap();
    check(None, Some(out.clone())).await.unwrap();

    put(&store, "/registry/a", "after").await;
    let restoring =
        |replace| RestoreArguments { from: out.clone(), to: of(&directory.path().join("data")), replace };
    let in_use = restore(restoring(true)).await.unwrap_err().to_string();
    assert!(in_use.contains("in use by another orchestrator"), "{in_use}");
    stop.cancel();
    serving.await.unwrap().unwrap();
    store.close().await;
    drop((store, owned));

    let refused = restore(restoring(false)).await.unwrap_err().to_string();
    assert!(refused.contains("--replace"), "{refused}");
    assert_eq!(value(&data, "/registry/a").await.as_deref(), Some("after"), "nothing was changed");
    restore(restoring(true)).await.unwrap();
    assert_eq!(value(&data, "/registry/a").await.as_deref(), Some("before"));
    let files = fs::read_dir(data.store().parent().unwrap()).unwrap().flatten();
    let mut aside: Vec<String> = files.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
    aside.retain(|name| name.contains(".replaced-"));
    let journals = aside.iter().filter(|name| name.contains("journal")).count();
    assert_eq!((aside.len(), journals), (2, 1), "the store and its journal: {aside:?}");
    check(Some(directory.path().join("data")), None).await.unwrap();
}

#[tokio::test]
async fn a_damaged_backup_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = DataDir::ensure(&directory.path().join("data")).unwrap();
    let store = Embedded::open(&data.store()).await.unwrap();
    put(&store, "/registry/a", "kept").await;
    store.close().await;
    drop(store);
    let out = directory.path().join("a.backup");
    backup(BackupArguments { of: of(&directory.path().join("data")), out: out.clone() }).await.unwrap();
    let mut bytes = fs::read(&out).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&out, bytes).unwrap();
    let to = of(&directory.path().join("data"));
    let refused = restore(RestoreArguments { from: out, to, replace: true }).await.unwrap_err().to_string();
    assert!(refused.contains("damaged"), "{refused}");
    assert_eq!(value(&data, "/registry/a").await.as_deref(), Some("kept"));
}

#[tokio::test]
async fn a_folder_without_a_store_is_told_apart_from_one_that_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("a.backup");
    let missing = directory.path().join("missing");
    let error = backup(BackupArguments { of: of(&missing), out: out.clone() }).await.unwrap_err().to_string();
    assert!(error.contains("no data directory"), "{error}");
    let error = backup(BackupArguments { of: of(directory.path()), out: out.clone() }).await.unwrap_err();
    assert!(error.to_string().contains("--store etcd"), "{error}");
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().flatten().filter(|it| it.path() != out).count(),
        1,
        "the lock alone"
    );
}
