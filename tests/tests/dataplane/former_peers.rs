//! Peers of connected sockets that former programs had in a map of the kernel's own kind: carried over when those are replaced.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use aya::maps::{HashMap, Map, MapData};
use nix::libc;
use penstock_dataplane::PeerTable;
use penstock_ebpf_common::{Peer, map};
use penstock_tests::dataplane::desired;

use crate::{on_a_node, serve_udp, wait_until};

const TALK: &str = "
services:
  demo/talk:
    cluster_ips: [10.96.0.9]
    port: 53
    protocol: UDP
    backends: [{ address: 10.244.0.2, port: 5353, local: true }]
";
const SOCKETS: usize = 300;

/// The map that peers were in before.
fn map_of_the_kernel_s_own_kind(entries: u32) -> io::Result<OwnedFd> {
    const MAP_CREATE: libc::c_int = 0;
    const HASH: u32 = 1;
    // struct { map_type, key_size, value_size, max_entries: u32, .. }.
    let mut attr = [0_u32; 32];
    attr[..4].copy_from_slice(&[HASH, size_of::<u64>() as u32, size_of::<Peer>() as u32, entries]);
    // SAFETY: the attribute outlives the call, which reads as much of it as is said.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, attr.as_ptr(), size_of_val(&attr)) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(answer as libc::c_int) })
}

#[test]
fn sockets_that_former_programs_knew_still_see_the_service_and_are_forgotten_when_they_close() {
    on_a_node(
        || serve_udp("10.244.0.2:5353", "two"),
        |stand| {
            let dataplane = stand.load();
            dataplane.apply(&desired(TALK)).expect("applied");
            let folder = tempfile::tempdir().expect("a folder");
            let (ready, exchanged) = (folder.path().join("ready"), folder.path().join("exchanged"));
            let count = || {
                let peers = PeerTable::open(stand.bpffs()).and_then(|table| table.memory());
                peers.expect("the peers").count()
            };
            std::thread::scope(|scope| {
                let client = scope.spawn(|| {
                    stand.in_cgroup(|| {
                        let sockets: Vec<_> = (0..SOCKETS)
                            .map(|_| {
                                let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                                socket.connect("10.96.0.9:53").expect("connected");
                                socket
                            })
                            .collect();
                        std::fs::write(&ready, "").expect("a file");
                        wait_until("programs were exchanged", || exchanged.exists());
                        let seen = sockets.iter().filter(|socket| {
                            socket.peer_addr().is_ok_and(|peer| peer.to_string() == "10.96.0.9:53")
                        });
                        seen.count().to_string()
                    })
                });
                wait_until("all are connected", || ready.exists());
                assert_eq!(count(), SOCKETS);

                // As former programs would have left it.
                let maps = stand.bpffs().join("maps");
                let fd = map_of_the_kernel_s_own_kind(1024).expect("a map");
                let info = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
                let info = std::fs::read_to_string(info).expect("what the kernel says of it");
                let id = info.lines().find_map(|line| line.strip_prefix("map_id:")).expect("a number").trim();
                let data = MapData::from_id(id.parse().expect("a number")).expect("the map");
                let mut former =
                    HashMap::<_, u64, Peer>::try_from(Map::HashMap(data)).expect("a map of peers");
                let table =
                    PeerTable::open(stand.bpffs()).and_then(|table| table.memory()).expect("the peers");
                table.each(|cookie, peer| former.insert(cookie, peer, 0).expect("noted"));
                std::fs::remove_file(maps.join(map::PEERS)).expect("the table's pin");
                former.pin(maps.join(map::PEERS_BY_COOKIE)).expect("pinned");

                let again = stand.load();
                assert_eq!(count(), SOCKETS, "all were brought");
                std::fs::write(&exchanged, "").expect("a file");
                assert_eq!(client.join().expect("a client"), SOCKETS.to_string());
                wait_until("all are forgotten", || count() == 0);
                assert!(!maps.join(map::PEERS_BY_COOKIE).exists(), "nobody needs it any more");
                assert_eq!(again.apply(&desired(TALK)).expect("applied").operations, 0);
            });
        },
    );
}
