//! sendmsg() and sendto() with an IPv4 address, on UDP sockets that are not connected.
//!
//! A socket keeps the backend it got for a service while the backend lives: user space deletes the flows of backends
//! that leave. The way back is recorded with it, for [`crate::recvmsg4`].

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{Address, Event, HALF_FORWARD, HALF_REPLY, SocketFlowKey, SocketFlowValue};

use crate::count;
use crate::hash;
use crate::maps::SOCKET_FLOWS;
use crate::service::{self, Choice};
use crate::socket;

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let (address, port) = socket::peer(&ctx);
    let Some(vip) = socket::service(&ctx, address, port) else {
        return socket::ALLOW;
    };

    let cookie = socket::cookie(&ctx);
    let forward = SocketFlowKey { cookie, address, port, half: HALF_FORWARD as u16, zero: 0 };
    // SAFETY: the value is copied at once.
    let known = unsafe { SOCKET_FLOWS.get(&forward) }.copied();
    let to = match known {
        Some(known) => known,
        None => {
            // By hash of the socket: should the flow be evicted, the socket gets the same backend again.
            let number = hash::mix(cookie ^ (address.v4() as u64) << 32 ^ port as u64) as u32;
            let client = || Address::from_netns_cookie(socket::netns_cookie(&ctx));
            let Choice::Backend(backend) = service::choose(vip.inside, number, client) else {
                count::event(Event::SendRefused);
                count::service_count(vip.service, |count| count.refused += 1);
                socket::fail_with(socket::CONNECTION_REFUSED);
                return socket::REFUSE;
            };
            let value = SocketFlowValue {
                address: backend.address,
                port: backend.port,
                zero: 0,
                service: vip.service,
            };
            // Not recorded, the datagram still goes out; the next one is chosen again, by the same hash.
            let _ = SOCKET_FLOWS.insert(&forward, &value, 0);
            value
        }
    };
    let reply =
        SocketFlowKey { cookie, address: to.address, port: to.port, half: HALF_REPLY as u16, zero: 0 };
    let back = SocketFlowValue { address, port, zero: 0, service: vip.service };
    // SAFETY: only fields are compared, at once.
    let recorded = unsafe { SOCKET_FLOWS.get(&reply) }
        .is_some_and(|known| known.address == address && known.port == port);
    if !recorded {
        let _ = SOCKET_FLOWS.insert(&reply, &back, 0);
    }
    socket::set_peer(&ctx, to.address, to.port);
    count::event(Event::SendTranslated);
    count::service_count(vip.service, |count| count.datagrams += 1);
    socket::ALLOW
}
