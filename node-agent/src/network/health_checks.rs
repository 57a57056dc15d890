//! Health check ports of Services, opened and closed as they come and go, and the proxy's own health.
//!
//! It exists to hold the listeners: one for each port and address on which NodePorts are served. It must not know how
//! endpoints are counted.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::addresses::NodeAddresses;
use super::health_server::{Reply, serve};
use super::problems::{About, Problems, Source};
use super::proxy_health::ProxyHealth;
use crate::cluster::ObjectName;
use crate::desired::{HealthCheck, Problem};

/// Pause between attempts to listen.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// What is asked about, and the answers; clones share it.
#[derive(Clone)]
pub struct HealthChecks {
    wanted: Arc<Mutex<BTreeMap<ObjectName, Wanted>>>,
    changed: Arc<Notify>,
    proxy: ProxyHealth,
}

#[derive(Debug, Clone)]
struct Wanted {
    uid: String,
    check: HealthCheck,
}

impl HealthChecks {
    /// Nothing is asked about yet.
    pub fn new(proxy: ProxyHealth) -> Self {
        Self { wanted: Arc::default(), changed: Arc::default(), proxy }
    }

    /// Says what a Service wants checked; none when it is gone or wants nothing.
    pub fn set(&self, name: &ObjectName, uid: &str, check: Option<HealthCheck>) {
        let mut wanted = self.wanted.lock();
        let port = |wanted: Option<&Wanted>| wanted.map(|it| it.check.port);
        let before = port(wanted.get(name));
        match check {
            Some(check) => drop(wanted.insert(name.clone(), Wanted { uid: uid.to_owned(), check })),
            None => drop(wanted.remove(name)),
        }
        if before != port(wanted.get(name)) {
            self.changed.notify_one();
        }
    }

    /// Keeps the listeners as they are wanted, until it is dropped.
    pub async fn run(self, node: String, mut addresses: NodeAddresses, problems: Problems) {
        let mut open: BTreeMap<SocketAddr, Listening> = BTreeMap::new();
        loop {
            let at = addresses.borrow_and_update().clone();
            let wanted = self.wanted.lock().clone();
            let (owners, taken) = plan_ports(&wanted);
            let is_wanted =
                |address: &SocketAddr| at.contains(&address.ip()) && owners.contains_key(&address.port());
            for (_, unwanted) in open.extract_if(.., |address, _| !is_wanted(address)) {
                unwanted.close().await;
            }
            let mut wrong: BTreeMap<&ObjectName, Vec<Problem>> =
                wanted.keys().map(|it| (it, vec![])).collect();
            for (name, problem) in taken {
                wrong.entry(name).or_default().push(problem);
            }
            let mut refused = false;
            for (port, name) in &owners {
                for address in at.iter() {
                    match self.ensure_listening(&mut open, *address, *port).await {
                        Ok(()) => {}
                        Err(error) => {
                            refused = true;
                            let problem = Problem::health_port(*port, *address, &node, &error);
                            wrong.entry(name).or_default().push(problem);
                        }
                    }
                }
            }
            for (name, wrong) in wrong {
                let about = About { name: name.clone(), uid: wanted[name].uid.clone() };
                problems.set(about, Source::Health, wrong);
            }
            tokio::select! {
                () = self.changed.notified() => {}
                Ok(()) = addresses.changed() => {}
                () = tokio::time::sleep(RETRY_EVERY), if refused => {}
            }
        }
    }

    async fn ensure_listening(
        &self,
        open: &mut BTreeMap<SocketAddr, Listening>,
        address: IpAddr,
        port: u16,
    ) -> std::io::Result<()> {
        let at = SocketAddr::new(address, port);
        if let Entry::Vacant(free) = open.entry(at) {
            let listener = TcpListener::bind(at).await?;
            let checks = self.clone();
            free.insert(Listening(tokio::spawn(serve(listener, move |_| checks.answer(port)))));
        }
        Ok(())
    }

    /// As kube-proxy answers, on every path: 200 with local endpoints, 503 without.
    fn answer(&self, port: u16) -> Reply {
        let wanted = self.wanted.lock();
        let owner = plan_ports(&wanted).0.get(&port).and_then(|name| Some((*name, wanted.get(*name)?)));
        let Some((name, wanted)) = owner else {
            return Reply { status: StatusCode::NOT_FOUND, body: json!({}), weight: None };
        };
        let (local, healthy) = (wanted.check.local_endpoints, self.proxy.is_healthy());
        let is_good = local > 0 && healthy;
        Reply {
            status: if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
            body: json!({
                "service": { "namespace": name.namespace, "name": name.name },
                "localEndpoints": local,
                "serviceProxyHealthy": healthy,
            }),
            weight: Some(local),
        }
    }
}

/// Who is answered for on each port, and who is not because another Service has the port: the first by name does.
fn plan_ports(
    wanted: &BTreeMap<ObjectName, Wanted>,
) -> (BTreeMap<u16, &ObjectName>, Vec<(&ObjectName, Problem)>) {
    let (mut owners, mut taken) = (BTreeMap::new(), Vec::new());
    for (name, wanted) in wanted {
        let port = wanted.check.port;
        let owner = *owners.entry(port).or_insert(name);
        if owner != name {
            taken.push((name, Problem::health_port_taken(port, owner)));
        }
    }
    (owners, taken)
}

/// Answers about the proxy itself, and tries again while something else holds the address.
pub async fn serve_proxy_health(address: SocketAddr, proxy: ProxyHealth) {
    let mut said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "the proxy's health is served");
                return serve(listener, move |path| proxy_reply(&proxy, path)).await;
            }
            Err(error) if !std::mem::replace(&mut said, true) => {
                tracing::error!(
                    "--healthz-bind-address {address}: {error}; it is tried again until it works"
                );
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

fn proxy_reply(proxy: &ProxyHealth, path: &str) -> Reply {
    let answer = match path {
        "/healthz" => proxy.healthz(Timestamp::now()),
        "/livez" => proxy.livez(Timestamp::now()),
        _ => return Reply { status: StatusCode::NOT_FOUND, body: json!({}), weight: None },
    };
    let status = if answer.is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Reply { status, body: answer.body, weight: None }
}

/// A listener; closed when dropped, as soon as its task has a turn.
struct Listening(JoinHandle<()>);

impl Listening {
    /// Returns when the port is free: it may be wanted again at once.
    async fn close(mut self) {
        self.0.abort();
        // It was ended on purpose.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
