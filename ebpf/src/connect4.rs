//! connect() of IPv4 sockets: TCP, UDP and SCTP. Translated here, a connection costs nothing per packet.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{Address, Event, Peer};

use crate::count;
use crate::maps::PEERS;
use crate::service::{self, Choice};
use crate::socket;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let (address, port) = socket::peer(&ctx);
    let Some(vip) = socket::service(&ctx, address, port) else {
        return socket::ALLOW;
    };

    // SAFETY: the helper takes nothing and cannot fail.
    let number = unsafe { bpf_get_prandom_u32() };
    let client = || Address::from_netns_cookie(socket::netns_cookie(&ctx));
    let Choice::Backend(backend) = service::choose(vip.inside, number, client) else {
        count::event(Event::ConnectRefused);
        count::service_count(vip.service, |count| count.refused += 1);
        socket::fail_with(socket::CONNECTION_REFUSED);
        return socket::REFUSE;
    };

    let mut peer = Peer {
        vip: address,
        backend: backend.address,
        vip_port: port,
        backend_port: backend.port,
        service: vip.service,
    };
    // SAFETY: the context holds the socket; the value is on this program's stack while the helper copies it.
    let kept = unsafe { PEERS.get_or_insert_ptr_mut(&ctx, Some(&mut peer)) };
    if !kept.is_null() {
        // A UDP socket connects again and again: the storage is there with its former peer.
        // SAFETY: not null, so it is the socket's own storage, valid while the program runs.
        unsafe { *kept = peer };
    }
    socket::set_peer(&ctx, backend.address, backend.port);
    count::event(Event::ConnectTranslated);
    count::service_count(vip.service, |count| count.connects += 1);
    socket::ALLOW
}
