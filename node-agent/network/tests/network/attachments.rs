//! The real plugin against a real agent, in namespaces: what a container runtime lives through.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::lab::{Call, Namespace, Node, PATIENCE, address_of, is_root, reaches};
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
    assert!(reaches(&a, &node.namespace, node.config.node_ips.first::<IpAddr>()), "pod to node");
    assert!(reaches(&a, &a, at_a), "a pod to itself");
    assert!(reaches(&a, &a, std::net::Ipv4Addr::LOCALHOST), "loopback is up");
    assert_eq!(hooks.attached.load(Ordering::SeqCst), 2);
    assert!(a.ip("neigh show").contains("PERMANENT"), "the gateway needs no ARP");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_a_node_with_two_families_has_an_address_of_each_and_both_work_at_once() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone().with_v6(1, "fd00:240::11/64");
    node.start(Arc::new(NoHooks)).await;
    let (a, b) = (Namespace::new(), Namespace::new());
    a.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")).unwrap();
    let at_a = node.cni("ADD", "a", Some(a.path()), json!({})).await.output;
    node.add("b", &b).await;
    let [first, second] = at_a["ips"].as_array().unwrap().as_slice() else { panic!("{at_a}") };
    assert_eq!(first["address"], "10.244.1.2/32");
    assert_eq!(second, &json!({"interface": 1, "address": "fd00:244:0:1::2/128", "gateway": "fe80::1"}));
    assert_eq!(at_a["routes"][3], json!({"dst": "::/0", "gw": "fe80::1"}));
    let at_a_v6: std::net::Ipv6Addr = "fd00:244:0:1::2".parse().unwrap();
    assert!(reaches(&b, &a, at_a_v6), "pod to pod");
    assert!(reaches(&node.namespace, &a, at_a_v6), "node to pod");
    assert!(reaches(&a, &node.namespace, node.config.node_ips.v6().unwrap()), "pod to node");
    assert!(!a.ip("-6 addr show dev eth0").contains("tentative"), "nothing is waited for");
    let old = node.cni("ADD", "a", Some(a.path()), json!({"cniVersion": "0.4.0"})).await.output;
    assert_eq!((&old["ips"][0]["version"], &old["ips"][1]["version"]), (&json!("4"), &json!("6")));
    assert_eq!(node.cni("CHECK", "a", Some(a.path()), json!({"prevResult": at_a})).await.code, 0);
    a.ip("-6 addr del fd00:244:0:1::2/128 dev eth0");
    assert_eq!(node.cni("CHECK", "a", Some(a.path()), json!({"prevResult": at_a})).await.output["code"], 102);
    for container in ["a", "b"] {
        assert_eq!(node.cni("DEL", container, None, json!({})).await.code, 0);
    }
    assert_eq!((node.records().len(), node.pod_links()), (0, 0));
    let left = node.namespace.ip("-6 route show");
    assert!(!left.contains("fd00:244:0:1::2"), "{left}");
}

/// How long it takes `from` to send `to` a mebibyte.
fn send_a_mebibyte(from: &Namespace, to: &Namespace, address: IpAddr) -> std::time::Duration {
    use std::io::{Read, Write};
    const BYTES: usize = 1 << 20;
    let listener = to.run(|| std::net::TcpListener::bind((address, 0))).unwrap();
    let target = listener.local_addr().unwrap();
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        let received = scope.spawn(move || {
            let mut bytes = Vec::new();
            listener.accept().unwrap().0.take(BYTES as u64).read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        let mut stream = from.run(|| std::net::TcpStream::connect(target)).unwrap();
        stream.write_all(&vec![0; BYTES]).unwrap();
        assert_eq!(received.join().unwrap(), BYTES);
    });
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_as_fast_as_its_bandwidth_in_each_direction() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone();
    node.start(Arc::new(NoHooks)).await;
    let (limited, free) = (Namespace::new(), Namespace::new());
    // 16 Mbit/s in, 8 Mbit/s out: a mebibyte takes half a second and a whole one, less what passes at once.
    let bandwidth = json!({"ingressRate": 16_000_000, "ingressBurst": u32::MAX,
        "egressRate": 8_000_000, "egressBurst": u32::MAX});
    let limits = json!({"runtimeConfig": {"bandwidth": bandwidth}});
    for _ in 0..2 {
        let answer = node.cni("ADD", "limited", Some(limited.path()), limits.clone()).await;
        assert_eq!(answer.code, 0, "{}", answer.output);
    }
    let at_limited: IpAddr = "10.244.1.2".parse().unwrap();
    let at_free = node.add("free", &free).await;
    // The link is never faster than asked. How much slower it is depends on who else uses the machine, so it is tried until
    // it was fast enough once.
    let check = |what: &str, seconds: std::ops::Range<f64>, send: &dyn Fn() -> std::time::Duration| {
        let mut tries = Vec::new();
        loop {
            let taken = send().as_secs_f64();
            tries.push(taken);
            assert!(taken >= seconds.start, "{what}: a mebibyte took {tries:?} s");
            if taken < seconds.end {
                println!("{what}: a mebibyte took {tries:.2?} s");
                return;
            }
            assert!(tries.len() < 20, "{what}: a mebibyte took {tries:?} s");
        }
    };
    check("16 Mbit/s", 0.44..2.0, &|| send_a_mebibyte(&free, &limited, at_limited));
    check("8 Mbit/s", 0.88..4.0, &|| send_a_mebibyte(&limited, &free, at_free));
    check("no limit", 0.0..0.4, &|| send_a_mebibyte(&node.namespace, &free, at_free));
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
    // What only an ADD reads keeps no sandbox from going.
    let odd = json!({"runtimeConfig": {"portMappings": 7}, "prevResult": {"ips": [{}]}});
    assert_eq!(node.cni("ADD", "a", Some(pod.path()), odd.clone()).await.output["code"], 7);
    for config in [odd, json!({})] {
        let answer = node.cni("DEL", "a", None, config).await;
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
    node.kill().await;

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
    network.set_pod_ranges(node.ranges()).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn check_compares_routes_mtu_and_queues_of_both_ends_with_what_add_made() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone().with_v6(1, "fd00:240::11/64");
    node.start(Arc::new(NoHooks)).await;
    let pod = Namespace::new();
    let bandwidth = json!({"ingressRate": 16_000_000, "egressRate": 8_000_000});
    let limits = json!({"runtimeConfig": {"bandwidth": bandwidth}});
    let added = node.cni("ADD", "a", Some(pod.path()), limits).await.output;
    let link = added["interfaces"][0]["name"].as_str().unwrap().to_string();
    let check = async || {
        let answer = node.cni("CHECK", "a", Some(pod.path()), json!({"prevResult": added})).await;
        (answer.code, answer.output["msg"].as_str().unwrap_or_default().to_string())
    };
    assert_eq!(check().await, (0, String::new()));
    // What others added is theirs.
    pod.ip("route add 192.0.2.0/24 dev eth0");
    assert_eq!(check().await.0, 0);
    let (inside, outside) = (&pod, &node.namespace);
    for (where_, breaks, mends, says) in [
        (
            inside,
            "route del default",
            "route add default via 169.254.1.1 dev eth0",
            "no route to 0.0.0.0/0 by 169.254.1.1",
        ),
        (
            inside,
            "-6 route del default",
            "-6 route add default via fe80::1 dev eth0",
            "no route to ::/0 by fe80::1",
        ),
        (outside, "route del 10.244.1.2", "", "no route to 10.244.1.2/32"),
        (inside, "link set eth0 mtu 1400", "link set eth0 mtu 1500", "eth0 has an MTU of 1400, not 1500"),
        (outside, "link set LINK mtu 1400", "link set LINK mtu 1500", "has an MTU of 1400, not 1500"),
        (outside, "link set LINK down", "", "is down"),
    ] {
        where_.ip(&breaks.replace("LINK", &link));
        let (code, message) = check().await;
        assert!(code == 1 && message.contains(says), "after {breaks}: {message}");
        if mends.is_empty() {
            // An ADD again makes it whole.
            let again = node
                .cni("ADD", "a", Some(pod.path()), json!({"runtimeConfig": {"bandwidth": bandwidth}}))
                .await;
            assert_eq!(again.code, 0, "{}", again.output);
        } else {
            where_.ip(&mends.replace("LINK", &link));
        }
        assert_eq!(check().await, (0, String::new()), "after {mends}");
    }
    for (where_, device, rate) in [(inside, "eth0", 8_000_000), (outside, link.as_str(), 16_000_000)] {
        where_.tc(&format!("qdisc replace dev {device} root tbf rate 1mbit burst 64kb limit 128kb"));
        let (_, message) = check().await;
        assert!(message.contains(&format!("is limited to 1000000 bit/s, not to {rate}")), "{message}");
        where_.tc(&format!("qdisc del dev {device} root"));
        let (_, message) = check().await;
        assert!(message.contains(&format!("{device} is not limited to {rate} bit/s")), "{message}");
        let again =
            node.cni("ADD", "a", Some(pod.path()), json!({"runtimeConfig": {"bandwidth": bandwidth}})).await;
        assert_eq!((again.code, check().await.0), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_uplink_is_down_is_limited_and_says_so() {
    if !is_root() {
        return;
    }
    let mut node = Node::alone();
    node.start(Arc::new(NoHooks)).await;
    assert_eq!(node.cni("STATUS", "", None, json!({})).await.code, 0);
    node.namespace.ip("link set fabric down");
    let cut = node.cni("STATUS", "", None, json!({})).await.output;
    assert!(cut["code"] == 51 && cut["msg"].as_str().unwrap().contains("eth0"), "{cut}");
    node.namespace.ip("link set fabric up");
    wait_for(|| node.namespace.ip("link show eth0").contains("LOWER_UP"));
    assert_eq!(node.cni("STATUS", "", None, json!({})).await.code, 0);
    node.namespace.ip("link del eth0");
    let gone = node.cni("STATUS", "", None, json!({})).await.output;
    assert!(gone["code"] == 51 && gone["msg"].as_str().unwrap().contains("no uplink"), "{gone}");
}

/// Namespaces are taken apart by the kernel after their last user is gone.
pub fn wait_for(condition: impl Fn() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < until, "waited in vain");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
