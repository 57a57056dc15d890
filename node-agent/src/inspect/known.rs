//! Where an observer's names come from: this node's pods from the agent's own records, which are there without an agent;
//! pods of other nodes from the endpoints in the API, asked by the observer itself (docs/adr/0020-sight.md).
//!
//! Must not know what is observed.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use penstock_network::{Netns, observe_attachments};
use penstock_observe::Names;

use crate::options::Known;

/// How often this node's pods are looked at again.
const AGAIN_EVERY: Duration = Duration::from_secs(1);

/// Names, kept up to date by threads that end with the process.
pub fn follow(known: &Known) -> anyhow::Result<Arc<RwLock<Names>>> {
    let host = penstock_dataplane::netns_cookie().context("reading SO_NETNS_COOKIE")?;
    let names = Arc::new(RwLock::new(Names::new(host)));
    local(known, &names);
    let (mine, shared) = (known.clone(), names.clone());
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(AGAIN_EVERY);
            local(&mine, &shared);
        }
    });
    if let Some(path) = &known.kubeconfig {
        let file = path.display();
        let kubeconfig =
            Kubeconfig::read_from(path).with_context(|| format!("reading the kubeconfig {file}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let config = runtime
            .block_on(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()))
            .with_context(|| format!("the kubeconfig {file} cannot be used"))?;
        let shared = names.clone();
        std::thread::spawn(move || runtime.block_on(cluster(config, shared)));
    }
    Ok(names)
}

/// Names the pods of this node.
fn local(known: &Known, names: &RwLock<Names>) {
    let attachments = observe_attachments(&known.state_dir);
    let cookies: Vec<_> = attachments
        .iter()
        .map(|it| {
            let pod = format!("{}/{}", it.pod.namespace, it.pod.name);
            let cookie = Netns::At((&it.netns).into()).run(penstock_dataplane::netns_cookie);
            (pod, it.addresses().collect::<Vec<_>>(), cookie.ok().and_then(Result::ok))
        })
        .collect();
    let mut names = names.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (pod, addresses, cookie) in cookies {
        for address in addresses {
            names.insert_pod(address, pod.clone());
        }
        if let Some(cookie) = cookie {
            names.insert_namespace(cookie, pod);
        }
    }
}

/// Names the pods that are endpoints, wherever they run.
async fn cluster(config: kube::Config, names: Arc<RwLock<Names>>) {
    let Ok(client) = kube::Client::try_from(config) else { return };
    let slices = kube::Api::<EndpointSlice>::all(client);
    let mut stream = std::pin::pin!(watcher(slices, watcher::Config::default()).default_backoff());
    let mut away = false;
    while let Some(event) = stream.next().await {
        let slice = match event {
            Ok(watcher::Event::Apply(slice) | watcher::Event::InitApply(slice)) => slice,
            Ok(_) => continue,
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    eprintln!("pods of other nodes are shown by address: {error}");
                }
                continue;
            }
        };
        let mut names = names.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for endpoint in slice.endpoints.unwrap_or_default() {
            let Some(pod) = endpoint.target_ref.filter(|it| it.kind.as_deref() == Some("Pod")) else {
                continue;
            };
            let name = format!("{}/{}", pod.namespace.unwrap_or_default(), pod.name.unwrap_or_default());
            for address in endpoint.addresses.iter().filter_map(|text| text.parse().ok()) {
                names.insert_pod(address, name.clone());
            }
        }
    }
}
