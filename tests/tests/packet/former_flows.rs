//! Flows of programs that had them in a map of the kernel's own kind: carried over when those are replaced.
//!
//! ```text
//!   client ── 192.0.2.1:40000 > 10.240.0.11:30080 ──> eth0 ── 10.240.0.11:P > 10.244.2.2:8080 ──> eth0
//! ```

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use aya::maps::{HashMap, Map, MapData};
use nix::libc;
use penstock_dataplane::FlowTable;
use penstock_ebpf_common::{FlowKey, FlowValue, map};
use penstock_tests::dataplane::{REDIRECT, run};
use penstock_tests::packet::{ACK, Packet, SYN, Transport};

use crate::{At, on_node_that_meets};

const HELLO: &str = "
  demo/there:
    port: 80
    node_port: 30080
    backends: [{ address: 10.244.2.2, port: 8080 }, { address: 10.244.2.3, port: 8080 }]
";
const CLIENTS: u16 = 300;
const OWN: &str = "10.240.0.11:30080";

/// The map that flows were in before.
fn map_of_the_kernel_s_own_kind(entries: u32) -> io::Result<OwnedFd> {
    const MAP_CREATE: libc::c_int = 0;
    const LRU_HASH: u32 = 9;
    // struct { map_type, key_size, value_size, max_entries: u32, .. }.
    let mut attr = [0_u32; 32];
    attr[..4].copy_from_slice(&[
        LRU_HASH,
        size_of::<FlowKey>() as u32,
        size_of::<FlowValue>() as u32,
        entries,
    ]);
    // SAFETY: the attribute outlives the call, which reads as much of it as is said.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, attr.as_ptr(), size_of_val(&attr)) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(answer as libc::c_int) })
}

#[test]
fn flows_of_former_programs_go_on_with_their_backends_and_ports() {
    on_node_that_meets(HELLO, false, |node| {
        let packet = |flags, client: u16| {
            Packet::new(Transport::Tcp(flags), &format!("192.0.2.1:{}", 10_000 + client), OWN)
        };
        let sent: Vec<_> = (0..CLIENTS).map(|client| node.run(At::Uplink, &packet(SYN, client))).collect();

        // As former programs would have left it.
        let maps = node.stand().bpffs().join("maps");
        let fd = map_of_the_kernel_s_own_kind(4096).expect("a map");
        let info = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        let info = std::fs::read_to_string(info).expect("what the kernel says of it");
        let id = info.lines().find_map(|line| line.strip_prefix("map_id:")).expect("a number").trim();
        let data = MapData::from_id(id.parse().expect("a number")).expect("the map");
        let mut former =
            HashMap::<_, FlowKey, FlowValue>::try_from(Map::LruHashMap(data)).expect("a map of flows");
        let table =
            FlowTable::open(node.stand().bpffs()).and_then(|table| table.memory()).expect("the flows");
        let mut halves = 0;
        table.each(|key, value| {
            halves += 1;
            former.insert(key, value, 0).expect("noted");
        });
        assert_eq!(halves, 2 * u32::from(CLIENTS));
        std::fs::remove_file(maps.join(map::FLOWS)).expect("the table's pin");
        former.pin(maps.join(map::FLOWS_BY_KEY)).expect("pinned");

        let again = node.stand().load();
        let carried =
            FlowTable::open(node.stand().bpffs()).and_then(|table| table.memory()).expect("the flows");
        assert_eq!(carried.count(), usize::from(CLIENTS) * 2);
        for (client, (verdict, first)) in (0..CLIENTS).zip(&sent) {
            let outcome = run(&again, "uplink_ingress", node.uplink, &packet(ACK, client).bytes());
            let now = Packet::read(&outcome.frame);
            assert_eq!((outcome.verdict, *verdict), (REDIRECT, REDIRECT));
            assert_eq!(
                (now.source, now.destination),
                (first.source, first.destination),
                "of client {client}"
            );
            let answer = first.reply();
            let outcome = run(&again, "uplink_ingress", node.uplink, &answer.bytes());
            assert_eq!(Packet::read(&outcome.frame).destination, packet(ACK, client).source);
        }
        assert!(!maps.join(map::FLOWS_BY_KEY).exists(), "nobody needs it any more");
    });
}
