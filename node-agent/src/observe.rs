//! `observe`: live flows, from the programs to the terminal.
//!
//! It exists to keep a place among the watchers, to find names, and to print. It reads pins and files, so that it works
//! while the agent does not. It must not know what a flow looks like.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use penstock_dataplane::{Detail, RENEW_EVERY, Watcher, netns_cookie_at};
use penstock_network::observe_attachments;
use penstock_observe::{Caller, Filter, Names, flow, flow_line};

use crate::inspect::pins;
use crate::options::Observe;

/// How often names are looked up again for what has none.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Prints flows until it is interrupted, or as many as were asked for.
pub fn observe(options: &Observe) -> anyhow::Result<()> {
    let detail = if options.packets { Detail::Packets } else { Detail::Flows };
    let mut watcher = Watcher::open(&pins(&options.inspect)?, detail)?;
    let filter = filter(options);
    let directory = Directory::open(options)?;
    let (mut shown, mut missed, mut renewed) = (0_u64, 0, Instant::now());
    let mut out = std::io::stdout().lock();
    loop {
        watcher.wait();
        if renewed.elapsed() >= RENEW_EVERY {
            watcher.renew()?;
            renewed = Instant::now();
            let now = watcher.missed()?;
            if now > missed {
                eprintln!(
                    "node-agent: {} things could not be told: this terminal reads too slowly",
                    now - missed
                );
                missed = now;
            }
        }
        while let Some(seen) = watcher.take() {
            let found = Found { directory: &directory, watcher: &watcher };
            let flow = flow(&seen, &found);
            if !filter.takes(&flow) {
                continue;
            }
            let line = match options.inspect.json {
                // Strings, addresses and numbers: nothing that JSON cannot hold.
                true => serde_json::to_string(&flow).unwrap_or_default(),
                false => flow_line(&flow),
            };
            // A reader that stops reading, like `head`, has seen enough.
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
            shown += 1;
            if options.last.is_some_and(|last| shown >= last) {
                return Ok(());
            }
            // A flood is no reason to lose one's place.
            if renewed.elapsed() >= RENEW_EVERY {
                break;
            }
        }
    }
}

fn filter(options: &Observe) -> Filter {
    Filter {
        namespace: options.namespace.clone(),
        pod: options.pod.clone(),
        service: options.service.clone(),
        ip: options.ip,
        port: options.port,
        protocol: options.protocol.clone(),
        verdicts: options.verdict.iter().map(|verdict| (*verdict).into()).collect(),
        reason: options.reason.clone(),
    }
}

// === Names ===

/// What the directory and the maps know.
struct Found<'a> {
    directory: &'a Directory,
    watcher: &'a Watcher,
}

impl Names for Found<'_> {
    fn pod_at(&self, address: IpAddr) -> Option<String> {
        self.directory.find(|known| known.by_address.get(&address).cloned())
    }

    fn caller(&self, netns: u64) -> Caller {
        if netns == self.directory.own_netns {
            return Caller::Host;
        }
        self.directory.find(|known| known.by_netns.get(&netns).cloned()).map_or(Caller::Unknown, Caller::Pod)
    }

    fn service(&self, number: u32) -> Option<String> {
        self.watcher.service(number)
    }
}

/// The pods of this node from the network's own records; those of others from the API server, when there is a way to it.
struct Directory {
    records: PathBuf,
    cluster: Option<Cluster>,
    own_netns: u64,
    known: RefCell<Known>,
}

#[derive(Default)]
struct Known {
    by_address: BTreeMap<IpAddr, String>,
    by_netns: BTreeMap<u64, String>,
    read_at: Option<Instant>,
}

struct Cluster {
    client: kube::Client,
    runtime: tokio::runtime::Runtime,
}

impl Directory {
    fn open(options: &Observe) -> anyhow::Result<Self> {
        Ok(Self {
            records: options.state_dir.join("ipam"),
            cluster: options.kubeconfig.as_deref().map(Cluster::open).transpose()?,
            own_netns: netns_cookie_at(Path::new("/proc/self/ns/net"))
                .context("asking for this network namespace")?,
            known: RefCell::default(),
        })
    }

    /// Looks something up; what is not there is looked for once more in newer records, but not all the time.
    fn find(&self, look: impl Fn(&Known) -> Option<String>) -> Option<String> {
        let found = look(&self.known.borrow());
        let is_old = self.known.borrow().read_at.is_none_or(|at| at.elapsed() >= LOOK_AGAIN);
        if found.is_some() || !is_old {
            return found;
        }
        self.read();
        look(&self.known.borrow())
    }

    fn read(&self) {
        let mut known = Known { read_at: Some(Instant::now()), ..Known::default() };
        if let Some(cluster) = &self.cluster {
            match cluster.pods() {
                Ok(pods) => known.by_address = pods,
                Err(error) => eprintln!("node-agent: pods of other nodes have no names: {error:#}"),
            }
        }
        for attachment in observe_attachments(&self.records) {
            let pod = format!("{}/{}", attachment.pod.namespace, attachment.pod.name);
            for address in attachment.addresses() {
                known.by_address.insert(address, pod.clone());
            }
            if let Ok(netns) = netns_cookie_at(Path::new(&attachment.netns)) {
                known.by_netns.insert(netns, pod);
            }
        }
        *self.known.borrow_mut() = known;
    }
}

impl Cluster {
    fn open(kubeconfig: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(crate::run::client(kubeconfig))?;
        Ok(Self { client, runtime })
    }

    fn pods(&self) -> anyhow::Result<BTreeMap<IpAddr, String>> {
        let pods = Api::<Pod>::all(self.client.clone());
        let listed = self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(5), pods.list(&kube::api::ListParams::default())).await
        });
        let mut found = BTreeMap::new();
        for pod in listed.context("the API server does not answer")?? {
            let (name, namespace) =
                (pod.metadata.name.unwrap_or_default(), pod.metadata.namespace.unwrap_or_default());
            let in_host = pod.spec.is_some_and(|spec| spec.host_network == Some(true));
            let ips = pod.status.and_then(|status| status.pod_ips).unwrap_or_default();
            for ip in ips.iter().filter(|_| !in_host).filter_map(|ip| ip.ip.parse().ok()) {
                found.insert(ip, format!("{namespace}/{name}"));
            }
        }
        Ok(found)
    }
}
