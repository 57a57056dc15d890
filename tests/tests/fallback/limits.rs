//! What is in the way, and what is too much: it concerns one service, or one client, and is told.

use penstock_fallback::Why;
use penstock_tests::eventually::until;

use crate::*;

const TWO: &str = r#"
  demo/web:http:
    cluster_ips: [10.96.0.5]
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
  demo/other:http:
    cluster_ips: [10.96.0.7]
    port: 80
    node_port: 30081
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
"#;

#[test]
fn a_port_that_somebody_else_has_concerns_its_service_alone_and_is_taken_when_it_is_free() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080"]);
        let holder = TcpListener::bind("0.0.0.0:30080").expect("a process of the node");
        let proxy = node.serving(TWO);
        let troubles = proxy.troubles().borrow().clone();
        let told: Vec<_> =
            troubles.iter().map(|it| (it.service.to_string(), it.address.to_string())).collect();
        let whose = || "demo/web:http".to_string();
        assert_eq!(
            told,
            [(whose(), "10.240.0.11:30080".to_string()), (whose(), "127.0.0.1:30080".to_string())]
        );
        assert!(troubles.iter().all(|it| it.why == Why::InUse));
        assert!(troubles[0].to_string().contains("another process"), "{}", troubles[0]);
        assert_eq!(node.pods.run(|| ask("10.96.0.5:80")), "10.244.1.2:8080 sees 10.244.1.1");
        assert_eq!(node.outside.run(|| ask("10.240.0.11:30081")), "10.244.1.2:8080 sees 10.244.1.1");

        let retrying = proxy.clone();
        node.runtime.spawn(async move { retrying.retry().await });
        drop(holder);
        until(PATIENCE, "the port is served", || proxy.troubles().borrow().is_empty()).unwrap();
        assert_eq!(node.outside.run(|| ask("10.240.0.11:30080")), "10.244.1.2:8080 sees 10.244.1.1");
    });
}

#[test]
fn sctp_is_refused_by_name() {
    on_a_node(|node| {
        let proxy = node.serving(
            r#"
  demo/web:signals:
    cluster_ips: [10.96.0.5]
    port: 80
    protocol: SCTP
    backends: [{ address: 10.244.1.2, port: 8080, local: true }]
"#,
        );
        let troubles = proxy.troubles().borrow().clone();
        assert_eq!(troubles.iter().map(|it| &it.why).collect::<Vec<_>>(), [&Why::Protocol]);
        assert!(troubles[0].to_string().contains("SCTP"), "{}", troubles[0]);
    });
}

#[test]
fn listeners_beyond_the_bound_are_told_and_the_others_serve() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080"]);
        let proxy = node.start(Limits { listeners_max: 5, ..FEW });
        node.apply(&proxy, TWO);
        let troubles = proxy.troubles().borrow().clone();
        // Each has three: the cluster's, the node's and the loopback's.
        assert_eq!(troubles.iter().filter(|it| it.why == Why::Limit).count(), 1, "{troubles:?}");
        assert_eq!(node.pods.run(|| ask("10.96.0.5:80")), "10.244.1.2:8080 sees 10.244.1.1");
    });
}

#[test]
fn connections_beyond_the_bound_wait_for_one_to_end() {
    on_a_node(|node| {
        node.serve_tcp(&["10.244.1.2:8080"]);
        let proxy = node.start(Limits { connections_max: 4, ..FEW });
        let one = "demo/web:http:\n    cluster_ips: [10.96.0.5]\n    port: 80\n    backends: [{ address: 10.244.1.2, port: 8080, local: true }]\n";
        node.apply(&proxy, &format!("\n  {one}"));
        let connect = || node.pods.run(|| TcpStream::connect("10.96.0.5:80")).expect("connected");
        let mut held: Vec<_> = (0..4).map(|_| connect()).collect();
        for stream in &mut held {
            assert_eq!(said(stream), "10.244.1.2:8080 sees 10.244.1.1");
        }
        let mut waiting = connect();
        waiting.set_read_timeout(Some(SILENCE)).expect("a timeout");
        assert!(waiting.read(&mut [0]).is_err(), "there was no room for it");
        drop(held.pop());
        assert_eq!(said(&mut waiting), "10.244.1.2:8080 sees 10.244.1.1");
    });
}

#[test]
fn clients_beyond_the_bound_of_sessions_are_not_answered_and_the_others_are() {
    on_a_node(|node| {
        node.serve_udp(&["10.244.1.2:5353"]);
        let proxy = node.start(Limits { sessions_max: 2, ..FEW });
        node.apply(
            &proxy,
            r#"
  demo/dns:dns:
    cluster_ips: [10.96.0.6]
    port: 53
    protocol: UDP
    backends: [{ address: 10.244.1.2, port: 5353, local: true }]
"#,
        );
        let clients: Vec<_> = (0..3).map(|_| node.pods.run(|| udp_client("10.96.0.6:53"))).collect();
        for client in &clients[..2] {
            assert_eq!(ask_udp(client), "10.244.1.2:5353");
        }
        assert_eq!(ask_udp_briefly(&clients[2]), "silence");
        assert_eq!(ask_udp(&clients[0]), "10.244.1.2:5353");
    });
}
