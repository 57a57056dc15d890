//! From Ingresses and IngressClasses to the routing table, and the listener that serves by it.
//!
//! It exists to say when: the listener opens once everything was listed, because "no such host" about a host that
//! exists would be a lie; the table is compiled again a moment after a change. It must not know the API's rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use penstock_ingress::{Class, Ingress, Limits, Name, Routing, ServicePort, compile};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Event, ObjectName};

/// How long to wait for more after a first change.
const GATHER: Duration = Duration::from_millis(3);
/// Pause between attempts to bind.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// One thing learnt.
#[derive(Debug)]
pub enum Change {
    /// About an Ingress.
    Ingress(Event<Ingress>),
    /// About an IngressClass.
    Class(Event<Class>),
}

/// The endpoints, for whoever knows them.
#[derive(Clone, Default)]
pub struct Upstreams {
    routing: Arc<Routing>,
    listed: CancellationToken,
}

/// What an option such as `--ingress-listen` says; `None` when it is empty, which means off.
pub fn listen_address(name: &str, option: &str) -> anyhow::Result<Option<SocketAddr>> {
    if option.is_empty() {
        return Ok(None);
    }
    let address = option.parse().with_context(|| {
        format!("{name} {option}: write an address and a port, such as 0.0.0.0:80 or [::]:80")
    })?;
    Ok(Some(address))
}

/// Keeps the table and serves by it, until `shutdown`.
pub async fn run(
    address: SocketAddr,
    upstreams: Upstreams,
    changes: mpsc::Receiver<Change>,
    shutdown: CancellationToken,
) {
    let Upstreams { routing, listed } = upstreams;
    let compiled = CancellationToken::new();
    let serving = async {
        let ready = async { tokio::join!(compiled.cancelled(), listed.cancelled()) };
        if shutdown.run_until_cancelled(ready).await.is_some() {
            listen(address, &routing, &shutdown).await;
        }
    };
    tokio::select! {
        () = keep_table(&routing, changes, &compiled) => {}
        () = serving => {}
    }
}

async fn listen(address: SocketAddr, routing: &Arc<Routing>, shutdown: &CancellationToken) {
    let mut said = false;
    while !shutdown.is_cancelled() {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "Ingress is served");
                return penstock_ingress::serve(
                    listener,
                    routing.clone(),
                    Limits::default(),
                    shutdown.clone(),
                )
                .await;
            }
            Err(error) if !std::mem::replace(&mut said, true) => {
                tracing::error!("Ingress is not served on this node: {address}: {error}");
            }
            Err(_) => {}
        }
        shutdown.run_until_cancelled(tokio::time::sleep(RETRY_EVERY)).await;
    }
}

/// Compiles after every change, until the watches end.
async fn keep_table(routing: &Routing, mut changes: mpsc::Receiver<Change>, compiled: &CancellationToken) {
    let mut known = Known::default();
    let mut told = BTreeSet::new();
    while let Some(change) = changes.recv().await {
        known.see(change);
        let until = Instant::now() + GATHER;
        while let Ok(Some(change)) = tokio::time::timeout_at(until, changes.recv()).await {
            known.see(change);
        }
        if !known.ingresses.is_listed || !known.classes.is_listed || !std::mem::take(&mut known.is_dirty) {
            continue;
        }
        let outcome = compile(&known.ingresses.objects, &known.classes.objects);
        tracing::info!(routes = outcome.table.len(), "ingress");
        routing.table.store(Arc::new(outcome.table));
        compiled.cancel();
        let problems: BTreeSet<String> = outcome.problems.into_iter().collect();
        problems.difference(&told).for_each(|problem| tracing::warn!("{problem}"));
        told = problems;
    }
}

/// What was learnt so far.
#[derive(Default)]
struct Known {
    ingresses: Kind<Name, Ingress>,
    classes: Kind<String, Class>,
    is_dirty: bool,
}

struct Kind<K, V> {
    objects: BTreeMap<K, V>,
    is_listed: bool,
}

// === impl Upstreams ===

impl Upstreams {
    /// Says what a Service is now; `None` when it is gone.
    pub fn set(&self, service: &ObjectName, ports: Option<Vec<ServicePort>>) {
        self.routing.upstreams.set(ingress_name(service.clone()), ports);
    }

    /// Says that every Service was set once.
    pub fn all_listed(&self) {
        self.listed.cancel();
    }
}

// === impl Known ===

impl Known {
    fn see(&mut self, change: Change) {
        self.is_dirty |= match change {
            Change::Ingress(event) => self.ingresses.see(event, ingress_name),
            Change::Class(event) => self.classes.see(event, |name| name.name),
        };
    }
}

// === impl Kind ===

impl<K: Ord, V: PartialEq> Kind<K, V> {
    /// Takes note of an object. Whether anything is different now: status changes more often than routes do.
    fn see(&mut self, event: Event<V>, key: fn(ObjectName) -> K) -> bool {
        match event {
            Event::Is(name, view) => {
                let name = key(name);
                let differs = self.objects.get(&name) != Some(&view);
                self.objects.insert(name, view);
                differs
            }
            Event::Gone(name) => self.objects.remove(&key(name)).is_some(),
            Event::Listing => false,
            Event::All(all) => {
                let all: BTreeSet<K> = all.into_iter().map(key).collect();
                let before = self.objects.len();
                self.objects.retain(|name, _| all.contains(name));
                !std::mem::replace(&mut self.is_listed, true) || self.objects.len() != before
            }
        }
    }
}

impl<K, V> Default for Kind<K, V> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), is_listed: false }
    }
}

fn ingress_name(name: ObjectName) -> Name {
    Name { namespace: name.namespace, name: name.name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "a".into(), name: name.into() }
    }

    #[test]
    fn the_address_is_off_right_or_explained() {
        assert_eq!(listen_address("--ingress-listen", "").unwrap(), None);
        assert_eq!(
            listen_address("--ingress-listen", "0.0.0.0:80").unwrap(),
            Some(([0, 0, 0, 0], 80).into())
        );
        let error = format!("{:#}", listen_address("--ingress-listen", "80").unwrap_err());
        assert!(error.contains("--ingress-listen 80: write an address and a port"), "{error}");
    }

    #[test]
    fn only_what_differs_makes_a_new_table() {
        let mut known = Known::default();
        let mut changed = |change| {
            known.is_dirty = false;
            known.see(change);
            known.is_dirty
        };
        let all = |names: &[&str]| Event::All(names.iter().map(|n| name(n)).collect());
        assert!(changed(Change::Ingress(Event::Is(name("x"), Ingress::default()))));
        assert!(!changed(Change::Ingress(Event::Is(name("x"), Ingress::default()))), "the same again");
        assert!(changed(Change::Ingress(all(&["x"]))), "the first list is complete");
        assert!(!changed(Change::Ingress(all(&["x"]))), "listed again");
        assert!(changed(Change::Ingress(all(&[]))), "gone while the server was away");
        assert!(!changed(Change::Ingress(Event::Gone(name("x")))));
        assert!(changed(Change::Class(Event::Is(name("c"), Class::default()))));
    }

    async fn get(address: SocketAddr) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        // It may not listen yet: that it does is what is waited for.
        let mut stream = loop {
            match tokio::net::TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn nothing_listens_until_all_is_listed_and_then_changes_arrive() {
        use penstock_ingress::{Backend, CONTROLLER, Port};
        // Nobody else on this machine uses it.
        let address = SocketAddr::from(([127, 10, 2, 58], 8080));
        let (events, changes) = mpsc::channel(8);
        let (upstreams, shutdown) = (Upstreams::default(), CancellationToken::new());
        let running = tokio::spawn(run(address, upstreams.clone(), changes, shutdown.clone()));

        let class = Class { controller: CONTROLLER.into(), is_default: true };
        events.send(Change::Class(Event::Is(name("c"), class))).await.unwrap();
        events.send(Change::Class(Event::All([name("c")].into()))).await.unwrap();
        events.send(Change::Ingress(Event::All(BTreeSet::new()))).await.unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "endpoints are not listed yet");
        upstreams.all_listed();
        let within = Duration::from_secs(60);
        let first = tokio::time::timeout(within, get(address)).await.unwrap();
        assert!(first.starts_with("HTTP/1.1 404 "), "{first}");

        let backend = Backend::Service { name: "web".into(), port: Port::Number(80) };
        let whole = Ingress { default_backend: Some(backend), ..Ingress::default() };
        events.send(Change::Ingress(Event::Is(name("i"), whole))).await.unwrap();
        let sentence = "Service a/web, which Ingress a/i names, is not there";
        let routed = async { while !get(address).await.contains(sentence) {} };
        tokio::time::timeout(within, routed).await.unwrap();

        shutdown.cancel();
        tokio::time::timeout(within, running).await.unwrap().unwrap();
    }
}
