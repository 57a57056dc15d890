//! What goes on while the data plane is replaced under it: an agent killed at any moment, maps that become larger, maps of
//! another version, an agent that was away.
//!
//! Everything runs under load, in the world of [`super::nodeport`]: connections, datagrams and long-lived streams from
//! outside, from a pod that the socket hooks do not see, and from processes in the node's cgroup. None may fail.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use penstock_dataplane::{Conversion, Dataplane, Limits, Tc, Xdp};
use penstock_ebpf_common::map;
use penstock_tests::dataplane::{Stand, desired};

use super::nodeport::{SERVICES, World, in_world, in_world_with};
use crate::{PATIENCE, ask_udp, wait_until};

/// Long-lived streams of each client.
const STREAMS: usize = 67;

/// The services of the world, and one whose backends send back what they get.
pub(super) fn services() -> String {
    format!(
        "{SERVICES}
  demo/echo:
    cluster_ips: [10.96.0.7]
    port: 90
    node_port: 30090
    backends:
    - {{ address: 10.244.1.2, port: 8090, local: true }}
    - {{ address: 10.244.2.2, port: 8090 }}
"
    )
}

/// Sends back what it gets, on every connection, until the test's process ends.
fn echo(address: &str) {
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut stream, mut byte) = (stream, [0]);
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
}

/// Where a client finds the services: by which address, and under which ports.
#[derive(Clone, Copy)]
struct Way {
    http: &'static str,
    talk: &'static str,
    echo: &'static str,
}

const NODE_PORT: Way =
    Way { http: "10.240.0.11:30080", talk: "10.240.0.11:30053", echo: "10.240.0.11:30090" };
const CLUSTER_IP: Way = Way { http: "10.96.0.7:80", talk: "10.96.0.7:53", echo: "10.96.0.7:90" };

/// A client of everything until told to stop. Says how much it got done, and its first failure.
fn client(way: Way, goes_on: impl Fn() -> bool) -> String {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let stream = TcpStream::connect(way.echo).unwrap_or_else(|error| panic!("{}: {error}", way.echo));
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.set_nodelay(true).expect("no delay");
        streams.push(stream);
    }
    let kept = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let (mut rounds, mut failed, mut first) = (0_u64, 0_u64, String::new());
    while goes_on() {
        let stream = &mut streams[rounds as usize % STREAMS];
        let fresh = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let mut outcomes = vec![
            ("connection", fetch(way.http)),
            ("stream", ping(stream)),
            ("datagram of one socket", asked(&kept, way.talk)),
            ("datagram of a new socket", asked(&fresh, way.talk)),
        ];
        // Four more connections a round: most of what a node sees is new.
        outcomes.extend((0..4).map(|_| ("connection", fetch(way.http))));
        for (what, outcome) in outcomes {
            if let Err(error) = outcome {
                failed += 1;
                if first.is_empty() {
                    first = format!("{what} in round {rounds}: {error}");
                }
            }
        }
        rounds += 1;
    }
    format!("{rounds} rounds {failed} failed {first}")
}

fn fetch(address: &str) -> Result<(), String> {
    let attempt = || -> std::io::Result<String> {
        let address = address.parse().map_err(std::io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut name = String::new();
        stream.read_to_string(&mut name)?;
        Ok(name)
    };
    match attempt() {
        Ok(name) if name == "here" || name == "there" => Ok(()),
        Ok(name) => Err(format!("{name:?} answers")),
        Err(error) => Err(error.to_string()),
    }
}

fn ping(stream: &mut TcpStream) -> Result<(), String> {
    let mut byte = [0];
    stream.write_all(&[7]).and_then(|()| stream.read_exact(&mut byte)).map_err(|error| error.to_string())
}

fn asked(socket: &UdpSocket, to: &str) -> Result<(), String> {
    let said = ask_udp(socket, to);
    if said.ends_with(&format!(" from {to}")) { Ok(()) } else { Err(said) }
}

/// Runs something while clients of all three kinds go on, and checks that none lost anything. `change` is given how
/// many rounds the clients did so far.
pub(super) fn under_load(world: &World, change: impl FnOnce(&dyn Fn() -> u64)) {
    let done = [AtomicU64::new(0), AtomicU64::new(0)];
    let stop = AtomicBool::new(false);
    let told = tempfile::tempdir().expect("a folder");
    let (begun, ended) = (told.path().join("begun"), told.path().join("ended"));
    let counted = |count: &AtomicU64| {
        count.fetch_add(1, Ordering::Relaxed);
        !stop.load(Ordering::Relaxed)
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let outside = scope.spawn(|| world.outside.run(|| client(NODE_PORT, || counted(&done[0]))));
        let pod = scope.spawn(|| world.pod.run(|| client(CLUSTER_IP, || counted(&done[1]))));
        // A process of its own: it says by a file that it has begun, and ends by another.
        let process = scope.spawn(|| {
            world.stand.in_cgroup(|| {
                client(CLUSTER_IP, || {
                    if !begun.exists() {
                        let _ = std::fs::write(&begun, "");
                    }
                    !ended.exists()
                })
            })
        });
        let rounds = || done.iter().map(|it| it.load(Ordering::Relaxed)).min().unwrap_or_default();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("the clients have begun", || begun.exists() && rounds() > 10);
            change(&rounds);
            let after = rounds() + 20;
            wait_until("the clients went on", || rounds() > after);
        }));
        stop.store(true, Ordering::Relaxed);
        std::fs::write(&ended, "").expect("a file");
        let said = [outside, pod, process].map(|client| client.join().expect("a client"));
        println!("in {:?}: {said:?}", began.elapsed());
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        for said in said {
            assert!(said.contains(" 0 failed"), "{said}");
        }
    });
    world.assert_no_drops();
}

/// Room for flows: a connection whose packet was lost must still be there when it is sent again.
const FLOWS_MAX: u32 = 65_536;

fn with_echo(test: impl FnMut(&World) + Send) {
    with_room_for(FLOWS_MAX, test);
}

fn with_room_for(flows_max: u32, mut test: impl FnMut(&World) + Send) {
    in_world(|world| {
        prepare(world, flows_max);
        test(world);
    });
}

/// Has a world serve all of the services, with room for so many flows.
fn prepare(world: &World, flows_max: u32) {
    world.dataplane.grow(&Limits { flows_max, ..world.stand.limits() }).expect("grown");
    world.pod.run(|| echo("10.244.1.2:8090"));
    world.other_pod.run(|| echo("10.244.2.2:8090"));
    world.dataplane.apply(&desired(&services())).expect("applied");
}

/// A world of [`in_world_with`] that is ready for [`under_load`].
pub(super) fn with_echo_by(xdp: Xdp, tc: Tc, test: impl FnOnce(&World) + Send) {
    in_world_with(xdp, tc, |world| {
        prepare(world, FLOWS_MAX);
        test(world);
    });
}

/// How many entries maps hold, and how many they may.
fn fills(stand: &Stand) -> BTreeMap<&'static str, (Option<u64>, Option<u64>)> {
    let maps = penstock_dataplane::observe_maps(stand.bpffs()).expect("maps");
    maps.into_iter().map(|map| (map.name, (map.entries, map.entries_max))).collect()
}

pub(super) fn larger(limits: Limits, times: u32) -> Limits {
    Limits {
        services_max: limits.services_max * times,
        vips_max: limits.vips_max * times,
        source_ranges_max: limits.source_ranges_max * times,
        flows_max: limits.flows_max * times,
        socket_flows_max: limits.socket_flows_max * times,
        peers_max: limits.peers_max * times,
        affinity_max: limits.affinity_max * times,
        policy_peers_max: limits.policy_peers_max * times,
        policy_flows_max: limits.policy_flows_max * times,
    }
}

fn names(stand: &Stand, folder: &str) -> Vec<String> {
    let listed = std::fs::read_dir(stand.bpffs().join(folder)).expect("a folder");
    listed.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn no_leftovers(stand: &Stand) {
    let (former, maps) = (names(stand, "former"), names(stand, "maps"));
    assert!(former.is_empty(), "{former:?}");
    assert!(maps.iter().all(|name| map::ALL.contains(&name.as_str())), "{maps:?}");
}

#[test]
fn every_map_grows_at_a_restart_and_in_use_and_nothing_is_lost() {
    with_echo(|world| {
        let before = fills(&world.stand);
        under_load(world, |_| {
            let limits = larger(world.dataplane.limits(), 4);
            let again = world.stand.load_with(limits);
            assert_eq!(again.apply(&desired(&services())).expect("applied").operations, 0, "all was kept");
            again.grow(&larger(limits, 2)).expect("grown");
            assert_eq!(again.limits().flows_max, 8 * FLOWS_MAX);
            assert_eq!(again.apply(&desired(&services())).expect("applied").operations, 0, "all was kept");
        });
        let after = fills(&world.stand);
        for name in [map::VIPS, map::SOURCE_RANGES, map::SETS, map::NAMES] {
            let of = |fills: &BTreeMap<_, _>| fills[name];
            let ((entries, max), (entries_now, max_now)) = (of(&before), of(&after));
            assert_eq!((entries_now, max_now), (entries, max.map(|max: u64| 8 * max)), "{name}");
        }
        for name in [map::FLOWS, map::SOCKET_FLOWS, map::PEERS, map::AFFINITY] {
            assert_eq!(after[name].1, before[name].1.map(|max| 8 * max), "{name}");
        }
        no_leftovers(&world.stand);
        // Asked for less, they keep what they have.
        let again = world.stand.load();
        assert_eq!(again.limits().flows_max, 8 * FLOWS_MAX);
        assert_eq!(fills(&world.stand)[map::FLOWS].1, after[map::FLOWS].1);
    });
}

#[test]
fn an_agent_killed_at_any_moment_of_an_exchange_loses_nothing_and_the_next_ends_it() {
    const KILLS: u32 = 12;
    with_echo(|world| {
        let (mut times, mut cut_short) = (1, 0);
        under_load(world, |_| {
            let started = Instant::now();
            let first = world.dataplane.limits();
            drop(world.stand.load_with(larger(first, 2)));
            // As long as a whole exchange takes here, so that kills fall into all of it.
            let whole = started.elapsed();
            for kill in 0..KILLS {
                times += kill % 2;
                world.stand.load_and_kill(
                    larger(first, 2 * times),
                    whole.mul_f64(f64::from(kill + 1) / f64::from(KILLS)),
                );
                cut_short += usize::from(!names(&world.stand, "former").is_empty());
            }
            let last = world.stand.load_with(larger(first, 2 * times));
            assert_eq!(last.apply(&desired(&services())).expect("applied").operations, 0, "all was kept");
        });
        println!("{cut_short} of {KILLS} kills cut an exchange short");
        assert!(cut_short > 0, "no kill fell into an exchange");
        // Tables have sizes that are powers of two.
        let flows_max = (2 * times * FLOWS_MAX).next_power_of_two();
        assert_eq!(fills(&world.stand)[map::FLOWS].1, Some(u64::from(flows_max)));
        no_leftovers(&world.stand);
    });
}

/// Every map as an earlier version would have called it.
const EARLIER: &[Conversion] = &[
    Conversion { from: "config_v0", to: map::CONFIG, convert: None },
    Conversion { from: "inside_v0", to: map::INSIDE, convert: None },
    Conversion { from: "vips_v0", to: map::VIPS, convert: None },
    Conversion { from: "source_ranges_v0", to: map::SOURCE_RANGES, convert: None },
    Conversion { from: "sets_v0", to: map::SETS, convert: None },
    Conversion { from: "names_v0", to: map::NAMES, convert: None },
    Conversion { from: "changes_v0", to: map::CHANGES, convert: None },
    Conversion { from: "flows_v0", to: map::FLOWS, convert: None },
    Conversion { from: "fragments_v0", to: map::FRAGMENTS, convert: None },
    Conversion { from: "socket_flows_v0", to: map::SOCKET_FLOWS, convert: None },
    Conversion { from: "peers_v0", to: map::PEERS, convert: None },
    Conversion { from: "open_v0", to: map::OPEN, convert: None },
    Conversion { from: "affinity_v0", to: map::AFFINITY, convert: None },
    Conversion { from: "tallies_v0", to: map::TALLIES, convert: None },
    Conversion { from: "service_counts_v0", to: map::SERVICE_COUNTS, convert: None },
];

/// Has the pins look as if an earlier version had made them.
fn make_earlier(maps: &Path) {
    for Conversion { from, to, .. } in EARLIER {
        std::fs::rename(maps.join(to), maps.join(from)).unwrap_or_else(|error| panic!("{to}: {error}"));
    }
}

#[test]
fn an_upgrade_to_other_versions_of_all_maps_carries_everything_over() {
    with_echo(|world| {
        under_load(world, |rounds| {
            let connects = |dataplane: &Dataplane| {
                let counters = dataplane.counters().expect("counters");
                counters.services.iter().map(|it| it.connects).sum::<u64>()
            };
            let before = connects(&world.dataplane);
            make_earlier(&world.stand.bpffs().join("maps"));
            let again = world.stand.load_from(EARLIER);
            assert_eq!(again.apply(&desired(&services())).expect("applied").operations, 0, "all was kept");
            assert!(before > 0 && connects(&again) >= before, "counts go on");
            let then = rounds();
            wait_until("there is more traffic", || rounds() > then + 10);
        });
        no_leftovers(&world.stand);
    });
}

#[test]
fn what_changed_while_the_agent_was_away_is_made_up_for_without_touching_what_is_right() {
    with_echo(|world| {
        under_load(world, |rounds| {
            // Gone, for as long as one likes: nothing in the maps expires by itself.
            let then = rounds();
            wait_until("traffic went on without an agent", || rounds() > then + 50);
            let changed = services().replacen("    - { address: 10.244.2.2, port: 8081 }\n", "", 1);
            let again = world.stand.load();
            let applied = again.apply(&desired(&changed)).expect("applied");
            assert_eq!(applied.operations, 1, "one set of one service");
        });
    });
}

#[test]
fn streams_live_on_while_thousands_of_other_flows_push_through_a_map_they_fill() {
    const FEW: u32 = 4_096;
    with_room_for(FEW, |world| {
        under_load(world, |_| {
            let flows_max = u64::from(FEW);
            let created = || world.event("flow_created");
            // Each is two entries.
            let enough = created() + flows_max;
            wait_until("more flows were made than fit", || created() > enough);
        });
    });
}
