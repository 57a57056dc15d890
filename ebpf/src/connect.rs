//! connect(): TCP, UDP and SCTP of both families. Translated here, a connection costs nothing per packet.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{Address, Event, PEER_COUNTED, Peer, Point, TOLD_FIRST, Verdict};

use crate::clock;
use crate::count;
use crate::hash;
use crate::open;
use crate::peers::{self, NoPlace};
use crate::service::{self, Choice};
use crate::socket::{self, Family, V4, V6};
use crate::tell;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect::<V4>(&ctx)
}

/// Also for IPv4 peers of dual-stack sockets: the kernel asks no hook again for the mapped address.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect::<V6>(&ctx)
}

#[inline(always)]
fn connect<F: Family>(ctx: &SockAddrContext) -> i32 {
    let (address, port) = socket::peer::<F>(ctx);
    let Some(vip) = socket::service(ctx, &address, port) else {
        return socket::ALLOW;
    };

    let netns = socket::netns_cookie(ctx);
    let cookie = socket::cookie(ctx);
    // Sockets have numbers in a row: mixed they are as good as chance, and cost no call for it. A socket that tries again
    // later tries another.
    let number = hash::mix(cookie ^ clock::ticks().rotate_left(32)) as u32;
    let client = || Address::from_netns_cookie(netns);
    let (choice, counted) = service::choose_counted(vip.inside, number, client);
    let backend = match choice {
        Choice::Backend(backend) if F::carries(&backend.address) => backend,
        _ => {
            count::event(Event::ConnectRefused);
            count::service_count(vip.service, |count| count.refused += 1);
            tell::call(ctx, Point::Connect, Verdict::Refused, TOLD_FIRST, vip.service, &address, port, None);
            socket::fail_with(socket::CONNECTION_REFUSED);
            return socket::REFUSE;
        }
    };

    let peer = Peer {
        vip: address,
        backend: backend.address,
        netns,
        vip_port: port,
        backend_port: backend.port,
        service: vip.service,
        backend_id: backend.id,
        protocol: socket::protocol(ctx),
        family: socket::family(ctx),
        flags: if counted { PEER_COUNTED } else { 0 },
        zero: 0,
        place: socket::place(ctx),
    };
    match peers::note(cookie, &peer) {
        Ok(before) => {
            // A socket that connects again, after a failure or as UDP sockets do: its former connection is over.
            if let Some((service, backend)) = before {
                open::add(service, backend, -1);
            }
            // Counted only when noted, or nothing would take it off again.
            if counted {
                open::add(vip.service, backend.id, 1);
            }
        }
        Err(NoPlace) => count::event(Event::PeerNotRecorded),
    }
    socket::set_peer::<F>(ctx, &backend.address, backend.port);
    count::event(Event::ConnectTranslated);
    count::service_count(vip.service, |count| count.connects += 1);
    let to = Some((&backend.address, backend.port));
    tell::call(ctx, Point::Connect, Verdict::Translated, TOLD_FIRST, vip.service, &address, port, to);
    socket::ALLOW
}
