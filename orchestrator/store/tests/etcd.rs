//! etcd keeps the same contract. The server is Debian's, on loopback, in a temporary directory.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use penstock_store::backup::{BackupError, Reader};
use penstock_store::cache::{CacheOptions, Feed, WatchCache};
use penstock_store::contract::{Scene, cases};
use penstock_store::embedded::Embedded;
use penstock_store::etcd::{self, Etcd};
use penstock_store::{Expect, ListRequest, Mutation, Record, Store, StoreError, Write};
use tempfile::TempDir;

/// A server that ends with the test, whatever happens in it.
struct Server {
    child: Child,
    client_port: u16,
    peer_port: u16,
    directory: TempDir,
}

impl Server {
    /// None, said loudly, where etcd is not installed.
    fn start() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        {
            println!(
                "SKIPPED: etcd is not on the PATH (Debian: apt install etcd-server); its contract was not checked"
            );
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let (client_port, peer_port) = (free_port(), free_port());
        let child = launch(&directory, client_port, peer_port);
        Some(Self { child, client_port, peer_port, directory })
    }

    fn endpoints(&self) -> Vec<String> {
        vec![format!("http://127.0.0.1:{}", self.client_port)]
    }

    /// Connects as soon as the server has elected itself.
    async fn connect(&self) -> Arc<Etcd> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match Etcd::connect(&self.endpoints()).await {
                Ok(store) => return Arc::new(store),
                Err(error) if Instant::now() > until => panic!("etcd did not come up: {error}"),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    fn restart(&mut self) {
        self.stop();
        self.child = launch(&self.directory, self.client_port, self.peer_port);
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn launch(directory: &TempDir, client_port: u16, peer_port: u16) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
    Command::new("etcd")
        .args([
            "--name",
            "test",
            "--log-level",
            "error",
            "--heartbeat-interval",
            "20",
            "--election-timeout",
            "100",
        ])
        .arg("--data-dir")
        .arg(directory.path())
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("test={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A port that nobody has now, and that the kernel gives nobody who asks for any: a client that tries to connect to a server
/// that is not there could be given the server's own port.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other runs of this program begin elsewhere.
    let begin = u16::try_from(std::process::id() % 1_000).unwrap() * 20;
    let port = || 11_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
    std::iter::repeat_with(port).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

fn put(key: &str, value: &str) -> Write {
    let mutation = Mutation::Put { value: value.to_owned().into(), lease_ttl_seconds: None };
    Write { key: key.to_owned(), expect: Expect::Any, mutation }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_contract() {
    let Some(server) = Server::start() else { return };
    let store = server.connect().await;
    for (number, case) in cases().into_iter().enumerate() {
        println!("{}", case.name);
        (case.run)(Scene { store: store.clone(), prefix: format!("/contract/{number}/") }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_survives_the_restart_of_etcd_without_its_watchers_noticing() {
    let Some(mut server) = Server::start() else { return };
    let store = server.connect().await;
    let decode = |record: &Record| Ok(String::from_utf8(record.value.to_vec())?);
    let cache = WatchCache::new(Feed::new(store.clone()), "/registry/a/", decode, CacheOptions::default());
    store.commit(put("/registry/a/x", "one")).await.unwrap();
    let mut watcher = cache.watch("/registry/a/", None).await.unwrap();
    assert_eq!(watcher.take_initial().len(), 1);

    server.restart();
    let until = Instant::now() + Duration::from_secs(60);
    let written = loop {
        match store.commit(put("/registry/a/x", "two")).await {
            Ok(committed) => break committed.revision,
            Err(error) if Instant::now() > until => panic!("{error}"),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let event =
        tokio::time::timeout(Duration::from_secs(60), watcher.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.current.as_ref().unwrap().value, "two");
    assert!(event.revision <= written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_goes_from_the_embedded_store_into_etcd_and_from_there_into_another() {
    let (Some(server), Some(other)) = (Server::start(), Server::start()) else { return };
    let etcd = server.connect().await;
    drop(other.connect().await);
    let directory = tempfile::tempdir().unwrap();
    let embedded = Embedded::open(&directory.path().join("store.redb")).await.unwrap();
    for n in 0..730 {
        embedded.commit(put(&format!("/registry/a/{n:04}"), &format!("value {n}"))).await.unwrap();
    }
    let brief = Mutation::Put { value: "brief".into(), lease_ttl_seconds: Some(3_600) };
    let brief = Write { key: "/registry/b/brief".to_owned(), expect: Expect::Any, mutation: brief };
    embedded.commit(brief).await.unwrap();
    let (summary, bytes) = embedded.backup(Vec::new(), |_| {}).await.unwrap();
    let newest = embedded.revision().await.unwrap();

    etcd.commit(put("/registry/a/old", "x")).await.unwrap();
    let refused = etcd::restore(&server.endpoints(), &bytes[..], false, &mut |_| {}).await.unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty { .. }), "{refused}");
    let made = etcd::restore(&server.endpoints(), &bytes[..], true, &mut |_| {}).await.unwrap();
    assert_eq!(made.backup, summary);
    assert!(made.continues_at > newest);

    let store = server.connect().await;
    let contents =
        |records: Vec<Record>| -> Vec<_> { records.into_iter().map(|it| (it.key, it.value)).collect() };
    let all = ListRequest { prefix: "/registry/".to_owned(), ..ListRequest::default() };
    let expected = contents(embedded.list(all.clone()).await.unwrap().records);
    let page = store.list(all.clone()).await.unwrap();
    assert!(page.revision > newest);
    assert_eq!(contents(page.records), expected);
    let seen = store.watch("/", newest).await.map(|_| ());
    assert!(matches!(seen, Err(StoreError::Compacted { .. })), "{seen:?}");
    let stale = Write { expect: Expect::Revision(newest), ..put("/registry/absent", "x") };
    assert!(matches!(store.commit(stale).await, Err(StoreError::Conflict { .. })));
    let mut watch = store.watch("/registry/", store.revision().await.unwrap()).await.unwrap();
    let committed = store.commit(put("/registry/a/0001", "new")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, committed.revision);
    assert_eq!(store.get("/registry/a/0001").await.unwrap().unwrap().modified, committed.revision);

    let (second, bytes) = store.backup(Vec::new(), &mut |_| {}).await.unwrap();
    assert_eq!(second.total.records, 731);
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let mut running_out = 0;
    while let Some(entry) = reader.next().unwrap() {
        running_out += usize::from(entry.expires_unix_seconds.is_some());
    }
    assert_eq!(running_out, 1);
    let made = etcd::restore(&other.endpoints(), &bytes[..], false, &mut |_| {}).await.unwrap();
    assert!(made.continues_at > committed.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_whose_restore_was_cut_off_is_not_served_from() {
    let Some(server) = Server::start() else { return };
    drop(server.connect().await);
    let directory = tempfile::tempdir().unwrap();
    let embedded = Embedded::open(&directory.path().join("store.redb")).await.unwrap();
    for n in 0..300 {
        embedded.commit(put(&format!("/registry/a/{n:04}"), &"x".repeat(2_000))).await.unwrap();
    }
    let (_, bytes) = embedded.backup(Vec::new(), |_| {}).await.unwrap();
    let cut = &bytes[..bytes.len() - 10];
    etcd::restore(&server.endpoints(), cut, false, &mut |_| {}).await.unwrap_err();
    let refused = Etcd::connect(&server.endpoints()).await.map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("--replace"), "{refused}");
    etcd::restore(&server.endpoints(), &bytes[..], true, &mut |_| {}).await.unwrap();
    assert_eq!(server.connect().await.list(ListRequest::default()).await.unwrap().records.len(), 301);
}

#[tokio::test]
async fn an_unreachable_cluster_is_one_clear_error() {
    let refused =
        Etcd::connect(&[format!("http://127.0.0.1:{}", free_port())]).await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
    let refused = Etcd::connect(&["https://127.0.0.1:2379".to_owned()]).await.map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("http://HOST:PORT"), "{refused}");
}
