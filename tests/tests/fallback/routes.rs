//! The routes that make addresses the node's own: what is needed and no more, and none when the proxy is not.

use penstock_fallback::{LOCAL_ROUTE_PROTOCOL, remove_routes};
use penstock_tests::netns::without_forks;

use crate::*;

const TWO: &str = r#"
  demo/web:http:
    cluster_ips: [10.96.0.5, "fd00:96::5"]
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
  demo/other:http:
    cluster_ips: [10.96.0.7]
    external_ips: [10.96.0.5, 10.240.0.11]
    port: 81
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
"#;
const ONE: &str = r#"
  demo/other:http:
    cluster_ips: [10.96.0.7]
    external_ips: [10.96.0.5, 10.240.0.11]
    port: 81
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
"#;

/// The addresses that have a route of the proxy's.
fn routes() -> Vec<String> {
    let mut found = Vec::new();
    for family in ["-4", "-6"] {
        let listed = ip(&format!("{family} route show table local proto {LOCAL_ROUTE_PROTOCOL}"));
        let listed = listed.expect("a list of routes");
        found.extend(listed.lines().filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)));
    }
    found
}

#[test]
fn every_address_has_a_route_for_as_long_as_a_service_has_it() {
    on_a_node(|node| {
        let proxy = node.serving(TWO);
        assert_eq!(routes(), ["10.96.0.5", "10.96.0.7", "fd00:96::5"], "the node's own address needs none");
        node.apply(&proxy, ONE);
        assert_eq!(routes(), ["10.96.0.5", "10.96.0.7"], "an address of two services stays with one");
        let closed_is_closed = without_forks();
        node.runtime.block_on(proxy.stop()).expect("stopped");
        assert_eq!(ask("10.240.0.11:81"), "ConnectionRefused");
        drop(closed_is_closed);
        assert_eq!(routes(), [""; 0]);
    });
}

#[test]
fn what_a_proxy_that_died_left_is_removed_by_the_next_and_by_the_programs() {
    on_a_node(|node| {
        drop(node.serving(TWO));
        assert_eq!(routes().len(), 3);
        let next = node.serving(ONE);
        assert_eq!(routes(), ["10.96.0.5", "10.96.0.7"]);
        drop(next);
        let removed = node.runtime.block_on(remove_routes()).expect("removed");
        assert_eq!((removed, routes().len()), (2, 0));
        assert_eq!(node.runtime.block_on(remove_routes()).expect("nothing to do"), 0);
    });
}
