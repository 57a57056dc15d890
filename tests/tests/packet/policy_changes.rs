//! Policies that change while packets flow: what was allowed before is judged anew by its next packet.
//!
//! ```text
//!   friend ── 10.244.2.2:40000 > 10.244.1.2:80 ──> pod   allowed, and noted
//!             the policy changes
//!   friend ── the same flow ──> pod                      as the policy has it now
//! ```

use penstock_tests::dataplane::{DROP, NEXT, REDIRECT};
use penstock_tests::packet::{ACK, Packet, SYN, Transport};

use super::policy::{name, packet, planner, pod, policy, write};
use crate::{At, on_node};

const FRIENDS: &str = "ingress: [{ peers: [{ pods: { labels: { name: friend } } }] }]";

fn from_friend(flags: u8) -> Packet {
    packet(Transport::Tcp(flags), "10.244.2.2:40000", "10.244.1.2:80")
}

#[test]
fn a_connection_ends_with_what_allowed_it_and_goes_on_with_what_allows_it_again() {
    on_node("", |node| {
        let mut planner = planner(node);
        planner.set_policy(name("some"), Some(policy(FRIENDS)));
        write(node, &mut planner);
        assert_eq!(node.run(At::Uplink, &from_friend(SYN)).0, REDIRECT);
        assert_eq!(node.run(At::Uplink, &from_friend(ACK)).0, REDIRECT);

        planner.set_policy(name("some"), Some(policy("ingress: []")));
        write(node, &mut planner);
        assert_eq!(node.run(At::Uplink, &from_friend(ACK)).0, DROP);

        planner.set_policy(name("other"), Some(policy(FRIENDS)));
        write(node, &mut planner);
        assert_eq!(node.run(At::Uplink, &from_friend(ACK)).0, REDIRECT);

        // Whose labels change is another.
        planner.set_pod(name("friend"), Some(pod("foe", ["10.244.2.2", "fd00:244:2::2"])));
        write(node, &mut planner);
        assert_eq!(node.run(At::Uplink, &from_friend(ACK)).0, DROP);

        planner.set_policy(name("some"), None);
        planner.set_policy(name("other"), None);
        write(node, &mut planner);
        assert_eq!(node.run(At::Uplink, &from_friend(SYN)).0, REDIRECT);
        assert!(planner.image().tables.is_empty());
    });
}

#[test]
fn a_connection_that_is_older_than_the_first_policy_lives_on_in_the_direction_that_is_allowed() {
    on_node("", |node| {
        let mut planner = planner(node);
        planner.set_policy(name("some"), Some(policy("ingress: []")));
        write(node, &mut planner);
        let answer = packet(Transport::Tcp(ACK), "10.244.2.2:80", "10.244.1.2:40000");
        assert_eq!(node.run(At::Uplink, &answer).0, REDIRECT, "what the pod asked before may come");
        let opens = packet(Transport::Tcp(SYN), "10.244.2.2:80", "10.244.1.2:40000");
        assert_eq!(node.run(At::Uplink, &opens).0, DROP);

        planner.set_policy(name("other"), Some(policy("egress: []")));
        write(node, &mut planner);
        assert_eq!(node.run(At::Uplink, &answer).0, DROP, "neither direction is");
    });
}

#[test]
fn another_agent_goes_on_from_what_is_in_force() {
    on_node("", |node| {
        let mut planner = planner(node);
        planner.set_policy(name("some"), Some(policy(FRIENDS)));
        write(node, &mut planner);
        assert_eq!(node.run(At::Uplink, &from_friend(SYN)).0, REDIRECT);

        let again = node.stand().load();
        let is = again.observe_policies().expect("read");
        assert_eq!(&is, planner.image());
        let run = |packet: &Packet| {
            penstock_tests::dataplane::run(&again, "pod_egress", node.pod, &packet.bytes()).verdict
        };
        assert_eq!(run(&from_friend(ACK)), NEXT);
        assert_eq!(run(&packet(Transport::Tcp(SYN), "10.244.2.3:40000", "10.244.1.2:80")), DROP);
    });
}
