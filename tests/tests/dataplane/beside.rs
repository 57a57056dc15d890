//! Services are left to somebody else beside this agent (`--service-proxy none`): in the world of [`super::nodeport`], whose
//! agent served them until one came that does not.

use std::io::Write;
use std::net::TcpListener;

use penstock_dataplane::{Dataplane, PodLink, Tc, Xdp};
use penstock_tests::dataplane::desired;
use penstock_tests::netns::{ifindex, ip, run};

use super::nodeport::{World, in_world_with};
use crate::ask;

/// The next agent, which leaves Services alone.
fn leave_services(world: &World) -> Dataplane {
    let mut options = world.stand.options().clone();
    options.services = false;
    let next = Dataplane::load(options).expect("loaded");
    next.apply(&desired("node_addresses: [10.240.0.11]\nservices: {}")).expect("applied");
    let ifindex = ifindex("pod0").expect("a pod's link");
    let link = PodLink { ifindex, addresses: vec![[10, 244, 1, 2].into()], pod_mac: [0; 6] };
    next.attach_pod(&link).expect("attached");
    next
}

fn in_world(test: impl FnOnce(&World, &Dataplane) + Send) {
    in_world_with(Xdp::Generic, Tc::Auto, |world| test(world, &leave_services(world)));
}

/// Rules of another proxy in this thread's namespace; without the program for it the test is skipped.
fn translate(rules: &str) -> bool {
    if let Err(why) = run("nft", &["--version"]) {
        println!("SKIPPED: the rules of another proxy need nft: {why:#}");
        return false;
    }
    let table =
        format!("table ip other {{ chain first {{ type nat hook prerouting priority -100; {rules} }}; }}");
    run("nft", &[&table]).expect("rules");
    true
}

#[test]
fn nothing_of_services_is_translated_any_more_and_pods_reach_pods() {
    in_world(|world, next| {
        let links = std::fs::read_dir(world.stand.bpffs().join("links")).expect("links").flatten();
        let mut links: Vec<_> = links.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
        links.retain(|name| {
            !name.starts_with("uplink_") && !name.starts_with("pod_") && !name.starts_with("podout_")
        });
        assert!(links.is_empty(), "{links:?}");
        assert_eq!(next.xdp().expect("seen"), None);

        let unanswered = |said: String| assert!(!said.contains(" as "), "{said}");
        unanswered(world.outside.run(|| ask("10.240.0.11:30080")));
        unanswered(world.pod.run(|| ask("10.96.0.7:80")));
        unanswered(world.stand.in_cgroup(|| ask("10.96.0.7:80")));
        let (sent_on, reached) = (world.event("pod_sent_on"), world.event("pod_reached"));
        assert_eq!(world.pod.run(|| ask("10.244.2.2:8080")), "there as 10.244.2.2:8080");
        assert_eq!(world.other_pod.run(|| ask("10.244.1.2:8080")), "here as 10.244.1.2:8080");
        assert_eq!(
            (world.event("pod_sent_on"), world.event("pod_reached")),
            (sent_on, reached),
            "packets took the kernel's way"
        );
        world.assert_no_drops();
    });
}

#[test]
fn another_proxy_s_translation_sees_all_packets_of_a_connection() {
    in_world(|world, _| {
        let rules = "ip daddr 10.96.0.7 tcp dport 80 dnat to 10.244.2.2:8080; \
                     ip daddr 10.240.0.11 tcp dport 30080 dnat to 10.244.1.2:8080;";
        if !translate(rules) {
            return;
        }
        assert_eq!(world.pod.run(|| ask("10.96.0.7:80")), "there as 10.96.0.7:80");
        assert_eq!(world.outside.run(|| ask("10.240.0.11:30080")), "here as 10.240.0.11:30080");
        world.assert_no_drops();
    });
}

#[test]
fn what_pods_send_out_of_the_cluster_still_leaves_with_the_node_s_address() {
    in_world(|world, _| {
        ip("route add 192.0.2.0/24 via 10.240.0.1").expect("a route");
        world.outside.run(|| {
            ip("address add 192.0.2.1/32 dev br0").expect("an address");
            let listener = TcpListener::bind("192.0.2.1:9000").expect("a listener");
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let peer = stream.peer_addr().map(|peer| peer.ip().to_string());
                    let _ = stream.write_all(peer.unwrap_or_default().as_bytes());
                }
            });
        });
        assert_eq!(world.pod.run(|| ask("192.0.2.1:9000")), "10.240.0.11 as 192.0.2.1:9000");
        world.assert_no_drops();
    });
}
