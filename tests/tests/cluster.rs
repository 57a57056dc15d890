//! Whole clusters, driven from outside: the stock kubectl, real containers, real packets.
//!
//! One cluster of three nodes serves all scenarios, one after another; each leaves it as it found it. What that one cannot
//! be, of IPv6 alone, with another service proxy or of certificates that live for a minute, a second one beside it is.

#[path = "cluster/applies.rs"]
mod applies;
#[path = "cluster/capabilities.rs"]
mod capabilities;
#[path = "cluster/certificates.rs"]
mod certificates;
#[path = "cluster/extensions.rs"]
mod extensions;
#[path = "cluster/fallback.rs"]
mod fallback;
#[path = "cluster/families.rs"]
mod families;
#[path = "cluster/faults.rs"]
mod faults;
#[path = "cluster/ipv6_alone.rs"]
mod ipv6_alone;
#[path = "cluster/joining.rs"]
mod joining;
#[path = "cluster/kube_proxy.rs"]
mod kube_proxy;
#[path = "cluster/kube_rs.rs"]
mod kube_rs;
#[path = "cluster/lifetime.rs"]
mod lifetime;
#[path = "cluster/load_balancers.rs"]
mod load_balancers;
#[path = "cluster/objects.rs"]
mod objects;
#[path = "cluster/policies.rs"]
mod policies;
#[path = "cluster/resizes.rs"]
mod resizes;
#[path = "cluster/rollouts.rs"]
mod rollouts;
#[path = "cluster/services.rs"]
mod services;
#[path = "cluster/sessions.rs"]
mod sessions;
#[path = "cluster/sight.rs"]
mod sight;
#[path = "cluster/traffic.rs"]
mod traffic;
#[path = "cluster/volumes.rs"]
mod volumes;

use std::sync::{Arc, RwLock};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use penstock_tests::cluster::Cluster;

type Scenario = (&'static str, fn(&Cluster) -> Result<()>);

const NODES: u16 = 3;

fn main() {
    let mut arguments = Arguments::from_args();
    // Scenarios share the cluster and break parts of it.
    arguments.test_threads = Some(1);
    if let Some(why) = Cluster::missing() {
        println!("SKIPPED: {why}");
        libtest_mimic::run(&arguments, Vec::new()).exit();
    }
    if arguments.list {
        libtest_mimic::run(&arguments, trials(&Arc::default())).exit();
    }
    let shared = Arc::new(RwLock::new(None));
    match Cluster::up("e2e", NODES) {
        Ok(cluster) => *shared.write().expect("nothing ran yet") = Some(cluster),
        Err(error) => {
            println!("no cluster came up: {error:#}");
            std::process::exit(1);
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials(&shared));
    drop(shared.write().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    conclusion.exit();
}

fn trials(shared: &Arc<RwLock<Option<Cluster>>>) -> Vec<Trial> {
    let scenarios = [
        objects::SCENARIOS,
        applies::SCENARIOS,
        certificates::SCENARIOS,
        extensions::SCENARIOS,
        sessions::SCENARIOS,
        kube_rs::SCENARIOS,
        volumes::SCENARIOS,
        traffic::SCENARIOS,
        capabilities::SCENARIOS,
        services::SCENARIOS,
        load_balancers::SCENARIOS,
        policies::SCENARIOS,
        resizes::SCENARIOS,
        rollouts::SCENARIOS,
        families::SCENARIOS,
        ipv6_alone::SCENARIOS,
        joining::SCENARIOS,
        kube_proxy::SCENARIOS,
        faults::SCENARIOS,
        sight::SCENARIOS,
        fallback::SCENARIOS,
    ]
    .concat();
    let mut trials: Vec<Trial> = scenarios
        .into_iter()
        .map(|(name, scenario): Scenario| {
            let shared = Arc::clone(shared);
            Trial::test(name, move || {
                let cluster = shared.read().map_err(|_| Failed::from("an earlier scenario panicked"))?;
                let cluster = cluster.as_ref().ok_or("the cluster is gone")?;
                let mark = cluster.mark();
                scenario(cluster).map_err(|error| {
                    format!("{error:#}\nwhat its programs said meanwhile:\n{}", mark.complaints()).into()
                })
            })
        })
        .collect();
    let shared = Arc::clone(shared);
    trials.push(Trial::test("a_kept_store_gives_every_object_back", move || {
        let mut cluster = shared.write().map_err(|_| Failed::from("an earlier scenario panicked"))?;
        lifetime::kept_store(cluster.as_mut().ok_or("the cluster is gone")?)
            .map_err(|error| format!("{error:#}").into())
    }));
    trials
}
