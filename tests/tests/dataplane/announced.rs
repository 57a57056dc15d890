//! Load-balancer addresses of both families on a real link: answered for by one of two nodes, and by the other after the
//! first is cut off.
//!
//! ```text
//!   client 10.240.0.1, fd00:240::1 ── br0 ┬ eth0 ── node a 10.240.0.11, fd00:240::11
//!                                         └ eth0 ── node b 10.240.0.12, fd00:240::12
//!   on no interface: 10.240.0.200, fd00:240::c8
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_announce::{Announcer, Answerer, Held, NodeName, Timing, Wanted, run};
use penstock_dataplane::{Announcements, Dataplane, DataplaneError, Station};
use penstock_tests::dataplane::{Stand, desired, object};
use penstock_tests::lateness::Lateness;
use penstock_tests::netns::{self, Netns, ifindex, ip};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, ask, serve, wait_until};

const VIPS: [&str; 2] = ["10.240.0.200", "fd00:240::c8"];
const NODES: [(&str, u8); 2] = [("a", 11), ("b", 12)];
/// What takes a second and a half on a quiet host may take longer on a busy one: by what that host is seen to be late.
const FAILOVER_MAX: Duration = Duration::from_secs(4);
/// One thread after the other is late: the node's that takes over, and the client's.
const LATE_ONES: u32 = 2;

/// One node; it leaves with the test.
struct Member {
    link: String,
    dataplane: Dataplane,
    held: watch::Receiver<Held>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    _stand: Stand,
    _netns: Netns,
}

struct Map(Announcements);

impl Answerer for Map {
    type Error = DataplaneError;

    fn put(&mut self, address: IpAddr, ifindex: u32, mac: [u8; 6]) -> Result<(), DataplaneError> {
        self.0.put(address, Station { ifindex, mac })
    }

    fn remove(&mut self, address: IpAddr) -> Result<(), DataplaneError> {
        self.0.remove(address)
    }

    fn renew(&mut self, lease: Duration) -> Result<(), DataplaneError> {
        self.0.renew(lease)
    }

    fn list(&self) -> Result<Vec<IpAddr>, DataplaneError> {
        Ok(self.0.list()?.into_iter().map(|(address, _)| address).collect())
    }
}

fn vip(text: &str) -> IpAddr {
    text.parse().expect("an address in the test")
}

fn wanted() -> Wanted {
    let name = |name: &str| NodeName::from(name);
    let all: Arc<BTreeSet<NodeName>> = Arc::new(NODES.iter().map(|(node, _)| name(node)).collect());
    Wanted {
        nodes: NODES.iter().map(|(node, last)| (name(node), IpAddr::from([10, 240, 0, *last]))).collect(),
        addresses: VIPS.iter().map(|address| (vip(address), all.clone())).collect::<BTreeMap<_, _>>(),
    }
}

impl Member {
    fn join((name, last): (&'static str, u8), object: &std::path::Path) -> Self {
        let netns = Netns::new().expect("a node");
        let link = format!("to-{name}");
        netns.plug(&link, "eth0").expect("its link");
        ip(&format!("link set {link} master br0")).expect("in the bridge");
        let addresses = [format!("10.240.0.{last}"), format!("fd00:240::{last}")];
        let (stand, dataplane, uplink) = netns.run(|| {
            ip(&format!("address add {}/24 dev eth0", addresses[0])).expect("an address");
            ip(&format!("address add {}/64 dev eth0 nodad", addresses[1])).expect("an address");
            serve(&format!("{}:8080", addresses[0]), name);
            serve(&format!("[{}]:8080", addresses[1]), name);
            let uplink = ifindex("eth0").expect("an uplink");
            let stand = Stand::new(object, &addresses.join(","), Some(uplink)).expect("a stand");
            let dataplane = stand.load();
            dataplane.apply(&desired(&service(&addresses))).expect("applied");
            (stand, dataplane, uplink)
        });
        let map = Map(dataplane.announcements().expect("the map"));
        let announcer = Announcer {
            node: name.into(),
            node_ip: vip(&addresses[0]),
            port: 10_299,
            ifindex: uplink,
            timing: Timing::default(),
        };
        let (sender, held) = watch::channel(Held::default());
        let stop = CancellationToken::new();
        let until = stop.clone();
        let thread = netns
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let (_wanted, wanted) = watch::channel(Some(Arc::new(wanted())));
                let mut wanted = wanted;
                wanted.mark_changed();
                let announcing = run(announcer, map, wanted, sender, until);
                runtime.expect("a runtime").block_on(announcing).expect("announced until the end");
            })
            .expect("a thread");
        Self { link, dataplane, held, stop, thread: Some(thread), _stand: stand, _netns: netns }
    }

    fn holds(&self, address: &str) -> bool {
        self.held.borrow().contains_key(&vip(address))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn service(own: &[String; 2]) -> String {
    format!(
        "
node_addresses: [{0}, '{1}']
services:
  demo/web:
    cluster_ips: [10.96.0.7, 'fd00:96::7']
    port: 80
    load_balancer_ips: [{2}, '{3}']
    backends: [{{ address: {0}, port: 8080, local: true }}, {{ address: '{1}', port: 8080, local: true }}]
",
        own[0], own[1], VIPS[0], VIPS[1]
    )
}

fn at(address: &str) -> String {
    SocketAddr::new(vip(address), 80).to_string()
}

#[test]
fn addresses_of_both_families_are_served_by_their_holder_and_by_another_when_it_is_cut_off() {
    let Some(object) = object() else { return };
    netns::isolated(|| {
        for words in [
            "link add br0 type bridge",
            "link set br0 up",
            "address add 10.240.0.1/24 dev br0",
            "address add fd00:240::1/64 dev br0 nodad",
        ] {
            ip(words).expect("a bridge");
        }
        let members = NODES.map(|node| Member::join(node, &object));
        let holders = |address: &str| members.iter().filter(|member| member.holds(address)).count();
        // A node that gets no processor for a second loses its addresses for a while, as it should.
        for address in VIPS {
            wait_until("an address has one holder, who serves it", || {
                let Some(holder) = members.iter().position(|member| member.holds(address)) else {
                    return false;
                };
                holders(address) == 1
                    && ask(&at(address)) == format!("{} as {}", NODES[holder].0, at(address))
                    && members[holder].dataplane.counters().expect("counters").events["neighbour_answered"]
                        > 0
            });
            assert!(ip(&format!("neigh show {address}")).expect("the neighbour").contains("lladdr"));
        }
        wait_until("each address has a holder", || VIPS.iter().all(|address| holders(address) == 1));

        let first = members.iter().position(|member| member.holds(VIPS[0])).expect("a holder");
        let other = NODES[1 - first].0;
        ip(&format!("link set {} down", members[first].link)).expect("cut off");
        let (since, lateness) = (Instant::now(), Lateness::watch());
        for address in VIPS {
            let to: SocketAddr = at(address).parse().expect("an address");
            let answered = || TcpStream::connect_timeout(&to, Duration::from_millis(100)).is_ok();
            while !answered() {
                assert!(since.elapsed() < PATIENCE, "{address} is served no more");
            }
            let (taken, late) = (since.elapsed(), lateness.so_far());
            println!("{address} was served by {other} after {taken:?}, on a machine {late:?} late");
            assert!(taken < FAILOVER_MAX + LATE_ONES * late, "{address} was not served for {taken:?}");
            assert_eq!(ask(&at(address)), format!("{other} as {}", at(address)));
        }
    });
}
