//! The real plugin against a real agent, in namespaces: what a container runtime lives through.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::lab::{Call, Namespace, Node, address_of, is_root, reaches};
use penstock_network::{HookError, NoHooks, PodHooks, PodLink};
use serde_json::{Value, json};

/// Counts, and fails when told to.
#[derive(Default)]
struct Hooks {
    attached: AtomicUsize,
    detached: AtomicUsize,
    refuse: bool,
}

impl PodHooks for Hooks {
    fn attach(&self, _: &PodLink) -> Result<(), HookError> {
        self.attached.fetch_add(1, Ordering::SeqCst);
        match self.refuse {
            true => Err(HookError { message: "the verifier said no".into() }),
            false => Ok(()),
        }
    }

    fn detach(&self, _: &PodLink) -> Result<(), HookError> {
        self.detached.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_and_their_node_reach_each_other() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone();
    let hooks = Arc::new(Hooks::default());
    node.start(hooks.clone()).await;
    let (a, b) = (Namespace::new(), Namespace::new());
    let (at_a, at_b) = (node.add("a", &a).await, node.add("b", &b).await);
    assert_ne!(at_a, at_b);
    assert!(reaches(&a, &b, at_b), "pod to pod");
    assert!(reaches(&b, &a, at_a), "and back");
    assert!(reaches(&node.namespace, &a, at_a), "node to pod");
    assert!(reaches(&a, &node.namespace, node.config.node_ip), "pod to node");
    assert!(reaches(&a, &a, at_a), "a pod to itself");
    assert!(reaches(&a, &a, std::net::Ipv4Addr::LOCALHOST), "loopback is up");
    assert_eq!(hooks.attached.load(Ordering::SeqCst), 2);
    assert!(a.ip("neigh show").contains("PERMANENT"), "the gateway needs no ARP");
}

#[tokio::test(flavor = "multi_thread")]
async fn add_and_del_may_be_repeated() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone();
    node.start(Arc::new(NoHooks)).await;
    let pod = Namespace::new();
    let address = node.add("a", &pod).await;
    assert_eq!(node.add("a", &pod).await, address);
    for _ in 0..2 {
        let answer = node.cni("DEL", "a", None, json!({})).await;
        assert_eq!((answer.code, answer.output), (0, Value::Null));
        assert_eq!((node.records().len(), node.pod_links()), (0, 0));
    }
    assert_eq!(node.cni("DEL", "never-seen", None, json!({})).await.code, 0);
    assert_ne!(node.add("a", &pod).await, address, "a released address rests");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_gets_its_own_result() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone();
    node.start(Arc::new(NoHooks)).await;
    let pod = Namespace::new();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let answer = node.cni("ADD", "a", Some(pod.path()), json!({"cniVersion": version})).await;
        assert_eq!(answer.output["cniVersion"], version);
        assert_eq!(answer.output["ips"][0].get("version").is_some(), version < "1.0.0", "{version}");
        assert_eq!(answer.output["interfaces"][1]["sandbox"], pod.path().to_str().unwrap());
    }
    let answer = node.cni("ADD", "a", Some(pod.path()), json!({"cniVersion": "2.0.0"})).await;
    assert_eq!((answer.code, &answer.output["code"]), (1, &json!(1)));
    assert_eq!(node.cni("VERSION", "", None, json!({})).await.output["supportedVersions"][4], "1.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_adds_at_once_get_a_hundred_addresses() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone();
    node.start(Arc::new(NoHooks)).await;
    let pods: Vec<Namespace> = (0..100).map(|_| Namespace::new()).collect();
    let calls = pods.iter().enumerate().map(|(i, pod)| {
        let call = Call::new(&node, "ADD", &format!("c{i}"), Some(pod.path()), json!({}));
        tokio::task::spawn_blocking(move || call.run())
    });
    let mut addresses = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.unwrap();
        assert_eq!(answer.code, 0, "{}", answer.output);
        addresses.push(address_of(&answer.output));
    }
    assert_eq!(BTreeSet::from_iter(&addresses).len(), 100);
    assert_eq!((node.records().len(), node.pod_links()), (100, 100));
    assert!(reaches(&pods[0], &pods[99], addresses[99]));

    let gone = json!({"cni.dev/valid-attachments": [{"containerID": "c7", "ifname": "eth0"}]});
    assert_eq!(node.cni("GC", "", None, gone).await.code, 0);
    assert_eq!((node.records().len(), node.pod_links()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_killed_finds_its_pods_and_drops_what_is_left_of_others() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone();
    node.start(Arc::new(NoHooks)).await;
    let (lives, dies, halfway) = (Namespace::new(), Namespace::new(), Namespace::new());
    let address = node.add("lives", &lives).await;
    node.add("dies", &dies).await;
    let lost = node.add("halfway", &halfway).await;
    node.kill();

    let away = node.cni("DEL", "dies", None, json!({})).await;
    assert_eq!(away.output["code"], 11, "the runtime is told to call again: {}", away.output);
    drop(dies);
    // A crash between link and file, and one between file and link.
    let record = node.state.path().join(format!("ipam/{lost}.json"));
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::remove_file(&record).unwrap();
    let ghost = text.replace("halfway", "ghost").replace(&lost.to_string(), "10.244.1.200");
    std::fs::write(node.state.path().join("ipam/10.244.1.200.json"), ghost).unwrap();
    wait_for(|| node.pod_links() == 2);

    let hooks = Arc::new(Hooks::default());
    node.start(hooks.clone()).await;
    assert_eq!(node.records(), [format!("{address}.json")]);
    assert_eq!(node.pod_links(), 1);
    assert_eq!(hooks.attached.load(Ordering::SeqCst), 1, "the living link gets the new agent's programs");
    assert_eq!(node.add("lives", &lives).await, address);
    assert!(reaches(&node.namespace, &lives, address));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_fails_leaves_nothing() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone();
    node.start(Arc::new(Hooks { refuse: true, ..Hooks::default() })).await;
    let pod = Namespace::new();
    let answer = node.cni("ADD", "a", Some(pod.path()), json!({})).await;
    assert_eq!(answer.code, 1);
    assert!(answer.output["msg"].as_str().unwrap().contains("verifier"), "{}", answer.output);
    let nowhere = node.cni("ADD", "b", Some(Path::new("/none")), json!({})).await;
    assert_eq!(nowhere.output["code"], 7, "{}", nowhere.output);
    assert_eq!((node.records().len(), node.pod_links()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_not_ready_before_its_range_is_known() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone();
    assert_eq!(node.cni("STATUS", "", None, json!({})).await.output["code"], 50);
    let network = node.start_without_range(Arc::new(NoHooks)).await;
    let pod = Namespace::new();
    assert_eq!(node.cni("STATUS", "", None, json!({})).await.output["code"], 50);
    assert_eq!(node.cni("ADD", "a", Some(pod.path()), json!({})).await.output["code"], 11);
    assert!(!node.state.path().join("net.d").exists(), "the runtime must not think the network is there");
    network.set_pod_cidr(node.range.parse().unwrap()).await.unwrap();
    assert_eq!(node.cni("STATUS", "", None, json!({})).await.code, 0);
    assert!(node.state.path().join("net.d/10-penstock.conflist").exists());
    assert!(node.state.path().join("bin/penstock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_what_others_broke() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone();
    node.start(Arc::new(NoHooks)).await;
    let pod = Namespace::new();
    let added = node.cni("ADD", "a", Some(pod.path()), json!({})).await.output;
    let check = || node.cni("CHECK", "a", Some(pod.path()), json!({"prevResult": added}));
    assert_eq!(check().await.code, 0);
    pod.ip("addr flush dev eth0");
    assert_eq!(check().await.output["code"], 102);
    let unknown = node.cni("CHECK", "b", Some(pod.path()), json!({"prevResult": added})).await;
    assert_eq!(unknown.output["code"], 3);
}

/// Namespaces are taken apart by the kernel after their last user is gone.
fn wait_for(condition: impl Fn() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < until, "waited in vain");
        std::thread::yield_now();
    }
}
