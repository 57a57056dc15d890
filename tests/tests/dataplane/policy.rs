//! Network policy on real sockets: who is let in, by whatever way, and connections that live through changes of policies.
//!
//! ```text
//!   client outside, the node, a pod of the node ──> a pod with policies, straight or by the node's routing
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock_dataplane::PodLink;
use penstock_policy::{Planner, Pod, PodName, Policy};
use penstock_tests::netns::ip;

use super::local_pods::{TARGETS, World, in_world};
use crate::{PATIENCE, ask, wait_until};

/// Longer than any answer takes that comes.
const SILENCE: Duration = Duration::from_millis(400);

fn name(text: &str) -> PodName {
    PodName::new("demo", text)
}

fn policy(yaml: &str) -> Policy {
    serde_yaml::from_str(yaml).expect("the policy in the test")
}

/// The first pod is at its link; of the second only the address is known.
fn planner(world: &World) -> Planner {
    let mut planner = Planner::default();
    for (pod, link) in ["one", "two"].into_iter().zip(&world.links) {
        let labels = [("name".to_owned(), pod.to_owned())].into();
        planner
            .set_pod(name(pod), Some(Pod { labels, addresses: link.addresses.clone(), ports: Vec::new() }));
    }
    planner.set_link(world.links[0].ifindex, Some(name("one")));
    planner
}

fn write(world: &World, planner: &mut Planner) {
    world.dataplane.write_policies(&planner.plan()).expect("written");
}

fn is_reached(to: &str) -> bool {
    TcpStream::connect_timeout(&to.parse().expect("an address"), SILENCE).is_ok()
}

const FROM_TWO: &str =
    "ingress: [{ peers: [{ pods: { labels: { name: two } } }], ports: [{ ports: !range [80, 80] }] }]";

#[test]
fn a_pod_lets_in_whom_it_may_by_whatever_way_it_is_reached() {
    in_world(|world| {
        let mut planner = planner(world);
        // As an agent's routes have it: the node is known by its address.
        ip("route replace 10.244.1.2 dev pod2 src 10.240.0.11").expect("a route");
        for addresses in [world.links[0].addresses.clone(), vec![]] {
            // Without addresses packets take the node's routing, as to a pod whose bandwidth is limited.
            world.dataplane.attach_pod(&PodLink { addresses, ..world.links[0].clone() }).expect("attached");
            planner.set_policy(name("some"), Some(policy("ingress: []")));
            write(world, &mut planner);
            for target in TARGETS {
                assert!(!world.pods[1].run(|| is_reached(target)), "{target}");
                assert!(!world.outside.run(|| is_reached(target)), "{target}");
                assert_eq!(ask(target), format!("a pod as {target}"), "the node itself always may");
            }
            planner.set_policy(name("some"), Some(policy(FROM_TWO)));
            write(world, &mut planner);
            for target in TARGETS {
                assert_eq!(world.pods[1].run(|| ask(target)), format!("a pod as {target}"));
                assert!(!world.outside.run(|| is_reached(target)), "{target}");
            }
        }
        let drops = world.dataplane.counters().expect("counters").drops;
        assert!(drops["policy"] > 0, "{drops:?}");
    });
}

#[test]
fn what_a_pod_sends_is_stopped_and_answers_to_who_asked_it_are_not() {
    in_world(|world| {
        let mut planner = planner(world);
        planner.set_policy(name("some"), Some(policy("egress: []")));
        write(world, &mut planner);
        for (own, other) in TARGETS.into_iter().zip(["10.244.1.3:80", "[fd00:244:1::3]:80"]) {
            assert!(!world.pods[0].run(|| is_reached(other)), "{other}");
            assert_eq!(world.pods[1].run(|| ask(own)), format!("a pod as {own}"));
        }
    });
}

#[test]
fn a_connection_that_every_policy_allows_loses_nothing_while_they_change() {
    in_world(|world| {
        let mut planner = planner(world);
        planner.set_policy(name("some"), Some(policy(FROM_TWO)));
        write(world, &mut planner);
        world.pods[0].run(|| {
            let listener = TcpListener::bind("10.244.1.2:81").expect("a listener");
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let mut bytes = [0; 64];
                    while let Ok(length @ 1..) = stream.read(&mut bytes) {
                        let _ = stream.write_all(&bytes[..length]);
                    }
                }
            });
        });
        let everybody = policy("ingress: [{ ports: [{ ports: !range [80, 90] }] }]");
        planner.set_policy(name("more"), Some(everybody.clone()));
        write(world, &mut planner);
        let to: SocketAddr = "10.244.1.2:81".parse().expect("an address");
        let mut stream = world.pods[1].run(|| TcpStream::connect_timeout(&to, PATIENCE)).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let over = AtomicBool::new(false);
        let echoes = std::thread::scope(|scope| {
            let echoing = scope.spawn(|| {
                let mut echoes = 0_u32;
                let mut bytes = [0; 4];
                while !over.load(Ordering::Relaxed) {
                    stream.write_all(b"echo").expect("sent");
                    stream.read_exact(&mut bytes).expect("an answer");
                    echoes += 1;
                }
                echoes
            });
            // Rules that tell peers apart come and go, and who allows the connection changes.
            for round in 0..12 {
                let other = match round % 3 {
                    0 => policy(
                        "ingress: [{ peers: [{ pods: { labels: { name: two } } }], ports: [{ ports: !range [81, 81] }] }]",
                    ),
                    1 => policy(
                        "ingress: [{ peers: [{ block: { cidr: 10.244.1.0/24 } }], ports: [{ ports: !range [70, 81] }] }]",
                    ),
                    _ => everybody.clone(),
                };
                planner.set_policy(name(if round % 2 == 0 { "other" } else { "more" }), Some(other));
                write(world, &mut planner);
                planner.set_policy(name(if round % 2 == 0 { "more" } else { "other" }), None);
                write(world, &mut planner);
            }
            over.store(true, Ordering::Relaxed);
            echoing.join().expect("the client")
        });
        assert!(echoes > 0);
        assert_eq!(world.dataplane.counters().expect("counters").drops["policy"], 0);

        planner.set_policy(name("other"), None);
        planner.set_policy(name("more"), None);
        write(world, &mut planner);
        stream.set_write_timeout(Some(SILENCE)).expect("a limit");
        let _ = stream.write_all(b"echo");
        wait_until("what allows it no more ends it", || {
            world.dataplane.counters().is_ok_and(|counters| counters.drops["policy"] > 0)
        });
    });
}
