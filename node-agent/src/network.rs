//! The network half: what is watched, who is told, and in which order it starts.
//!
//! The order: the CNI socket (so that the runtime hears "not yet" instead of nothing), the programs, the node's
//! range, the links that are there, and only then the runtime's configuration, with which the node becomes ready. Watches begin
//! with the programs, which take half a second to load; what they tell waits for those.
//! It must not know how any part works.

mod addresses;
mod announce;
mod condition;
mod fallback;
mod health_checks;
mod health_server;
mod ingress;
mod kernel_news;
mod metrics;
mod names;
mod policies;
mod problems;
mod programmed;
mod programs;
mod proxy;
mod proxy_health;
mod restoring;
mod routes;
mod services;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Api;
use penstock_network::{Netns, Network, NetworkConfig};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Seen, ServiceView, SliceView, class_view, ingress_view, watch, watch_some};
use crate::options::{Overlay, Run, ServiceProxy};
use crate::rotation::Rotation;

use condition::Condition;
use fallback::{Because, StandIn};
use health_checks::HealthChecks;
use problems::Problems;
use proxy_health::ProxyHealth;
use services::Change;

pub use programmed::Programmed;
pub use programs::Programs;

/// Where kube-proxy's are.
const HEALTHZ_PORT: u16 = 10_256;
const METRICS_PORT: u16 = 10_249;

/// Events waiting to be taken note of; a watch that is further ahead waits.
const EVENTS_MAX: usize = 1024;

/// Runs until `shutdown`. Pods keep their network when it returns. What is known of endpoints goes to `rotation` too.
pub async fn run(
    options: &Run,
    client: kube::Client,
    rotation: Rotation,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    // Agents speak to each other by the first family.
    let node_ip = options.node_ips_by_family()?.first();
    let ingress_listen = ingress::listen_address("--ingress-listen", &options.ingress_listen)?;
    let serves = options.service_proxy != ServiceProxy::None;
    let healthz = match &options.healthz_bind_address {
        Some(address) => ingress::listen_address("--healthz-bind-address", address)?,
        None => serves.then(|| SocketAddr::new(options.every_address(), HEALTHZ_PORT)),
    };
    let programs = rotation.programs.clone();
    let metrics = match &options.metrics_bind_address {
        Some(address) => ingress::listen_address("--metrics-bind-address", address)?,
        None => serves.then(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), METRICS_PORT)),
    };
    let (gate, arrivals) = policies::gate();
    programs.guard(gate);
    let network = Network::open(network_config(options)?, programs.clone()).await?;
    let listener = network.bind()?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(network.clone().serve(listener, shutdown.clone()));

    let condition = Condition::new(client.clone(), &options.node_name, serves);
    let uplink = network.observe_uplink_index().await?;
    let enforcing = policies::Enforcing {
        client: client.clone(),
        node: options.node_name.clone(),
        dns_ips: options.cluster_dns.clone(),
        programs: programs.clone(),
        ranges: network.pod_ranges(),
    };
    let runtime = tokio::runtime::Handle::current();
    tasks.spawn_blocking(move || runtime.block_on(enforcing.run(arrivals)));
    let (events, changes) = mpsc::channel(EVENTS_MAX);
    let (node_events, nodes) = mpsc::channel(EVENTS_MAX);
    let services = Api::<Seen<Service, ServiceView>>::all(client.clone());
    tasks.spawn(watch(services, "Services", Seen::into_view, Change::Service, events.clone()));
    let slices = Api::<Seen<EndpointSlice, SliceView>>::all(client.clone());
    let node = options.node_name.clone();
    let view = move |slice: Seen<_, SliceView>| slice.into_view().with_pods_of(&node);
    tasks.spawn(watch(slices, "EndpointSlices", view, Change::Slice, events.clone()));
    let own =
        kube::runtime::watcher::Config::default().fields(&format!("metadata.name={}", options.node_name));
    let nodes_api = Api::<Node>::all(client.clone());
    tasks.spawn(watch_some(nodes_api, own, "this Node", Into::into, Change::Own, events));
    let (both_events, both) = mpsc::channel(EVENTS_MAX);
    let nodes_api = Api::<Node>::all(client.clone());
    tasks.spawn(watch(nodes_api, "Nodes", announce::views, |event| event, both_events));

    let because = match options.service_proxy {
        ServiceProxy::Userspace => Some(Because::Chosen),
        // What goes wrong is in the condition, and tried again.
        ServiceProxy::Ebpf | ServiceProxy::None => {
            programs.load(options, uplink, &condition).await.ok().and(None)
        }
        ServiceProxy::Auto => programs.load(options, uplink, &condition).await.err().map(Because::NotLoaded),
    };
    let mut troubles = tokio::sync::watch::channel(Arc::default());
    if let Some(because) = because {
        let fallback = fallback::start(options.services_max, uplink)?;
        troubles.1 = fallback.troubles();
        let relieved = programs.stand_in(fallback.clone());
        let stand_in = StandIn {
            fallback,
            because,
            network: network.clone(),
            client: client.clone(),
            node: options.node_name.clone(),
            condition: condition.clone(),
        };
        tasks.spawn(stand_in.look_after(relieved));
    }

    let mut draining = tokio::task::JoinSet::new();
    let announcing = announce::Announcing::default();
    tasks.spawn(announcing.clone().follow_nodes(both, node_events));
    let announcer = (options.announce_port != 0)
        .then(|| announce::announcer(&options.node_name, node_ip, options.announce_port, uplink));
    if let Some(announcer) = announcer {
        let announcing = announcing.clone();
        draining.spawn(announcing.run(programs.clone(), announcer, client.clone(), shutdown.clone()));
    }
    let upstreams = ingress_listen.map(|address| {
        use ingress::Change;
        let (events, changes) = mpsc::channel(EVENTS_MAX);
        let ingresses = Api::<Ingress>::all(client.clone());
        tasks.spawn(watch(ingresses, "Ingresses", ingress_view, Change::Ingress, events.clone()));
        let classes = Api::<IngressClass>::all(client.clone());
        tasks.spawn(watch(classes, "IngressClasses", class_view, Change::Class, events));
        let upstreams = ingress::Upstreams::default();
        draining.spawn(ingress::run(address, upstreams.clone(), changes, shutdown.clone()));
        upstreams
    });

    tasks.spawn(routes::run(
        network.clone(),
        options.node_name.clone(),
        programs.clone(),
        nodes,
        rotation.nodes,
        condition.clone(),
    ));
    tasks.spawn(programs::retry(
        programs.clone(),
        network.clone(),
        options.clone(),
        uplink,
        condition.clone(),
    ));
    let (zone, serving) = names::start(options, network.clone(), shutdown.clone());
    tasks.spawn(serving);
    let (problems, telling) = Problems::new(client.clone(), options.node_name.clone());
    tasks.spawn(telling);
    let primary = options.node_ip.clone();
    let (node_addresses, following) = addresses::follow(options.nodeport_addresses.clone(), primary);
    tasks.spawn(following);
    let proxy_health = ProxyHealth::default();
    if let Some(address) = healthz {
        tasks.spawn(health_checks::serve_proxy_health(address, proxy_health.clone()));
    }
    let programming = metrics::Programming::default();
    tasks.spawn(restoring::run(programs.clone(), programming.clone()));
    if let Some(address) = metrics {
        let sources = metrics::Sources {
            pins: options.bpffs.join(crate::kernel::PIN_DIR),
            attachments: network.attachments(),
            programming: programming.clone(),
        };
        tasks.spawn(metrics::run(address, sources));
    }
    let health_checks = HealthChecks::new(proxy_health.clone());
    let checking =
        health_checks.clone().run(options.node_name.clone(), node_addresses.clone(), problems.clone());
    tasks.spawn(checking);
    let plane = services::Plane {
        serves,
        node: options.node_name.clone(),
        node_ips: options.node_ip.clone(),
        node_addresses,
        dns_ips: options.cluster_dns.clone(),
        choice: options.load_balancing,
        forwarding: options.forwarding,
        programs,
        bpffs: options.bpffs.clone(),
        programmed: rotation.programmed,
        endpoints: rotation.endpoints,
        condition: condition.clone(),
        problems,
        troubles: troubles.1,
        health_checks,
        proxy_health,
        programming,
        zone,
        upstreams,
        announcing,
        attachments: network.attachments(),
    };
    let runtime = tokio::runtime::Handle::current();
    tasks.spawn_blocking(move || runtime.block_on(services::run(plane, changes)));
    tasks.spawn(condition.run());

    shutdown.cancelled().await;
    // Requests of the plugin and of ingress's clients that are under way end by themselves; nothing else holds
    // anything half done.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(6), async {
        let _ = tasks.join_next().await;
        while draining.join_next().await.is_some() {}
    })
    .await;
    tasks.shutdown().await;
    Ok(())
}

fn network_config(options: &Run) -> anyhow::Result<NetworkConfig> {
    let plugin = options.cni_plugin.clone().unwrap_or_else(|| Run::beside("cni"));
    std::fs::metadata(&plugin).with_context(|| {
        format!("the CNI plugin {} is not there; name it with --cni-plugin", plugin.display())
    })?;
    Ok(NetworkConfig {
        node: options.node_name.clone(),
        node_ips: options.node_ips_by_family()?,
        uplink: options.uplink.clone(),
        state_dir: options.state_dir.clone(),
        conf_dir: Some(options.cni_conf_dir.clone()),
        bin_dir: Some(options.cni_bin_dir.clone()),
        plugin,
        overlay: match options.overlay {
            Overlay::Auto => penstock_network::Overlay::Auto,
            Overlay::Never => penstock_network::Overlay::Never,
            Overlay::Always => penstock_network::Overlay::Always,
        },
        fenced: options.cluster_cidr.iter().chain(&options.service_cidr).copied().collect(),
        netns: Netns::Own,
    })
}
