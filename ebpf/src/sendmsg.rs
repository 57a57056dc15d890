//! sendmsg() and sendto() with an address, on UDP sockets that are not connected.
//!
//! A socket keeps the backend it got for a service while the backend lives: user space deletes the flows of backends
//! that leave. The way back is recorded with it, for [`crate::recvmsg`].

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{
    Address, Event, HALF_FORWARD, HALF_REPLY, Point, SocketFlowKey, SocketFlowValue, TOLD_FIRST, Verdict,
};

use crate::count;
use crate::hash;
use crate::kept::SOCKET_FLOWS;
use crate::service::{self, Choice};
use crate::socket::{self, Family, V4, V6};
use crate::tell;

/// Also for mapped addresses: the kernel hands those on as IPv4 before it asks.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg::<V4>(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg::<V6>(&ctx)
}

#[inline(always)]
fn sendmsg<F: Family>(ctx: &SockAddrContext) -> i32 {
    let (address, port) = socket::peer::<F>(ctx);
    let Some(vip) = socket::service(ctx, &address, port) else {
        return socket::ALLOW;
    };

    let cookie = socket::cookie(ctx);
    let forward = SocketFlowKey { cookie, address, port, half: HALF_FORWARD as u16, zero: 0 };
    // SAFETY: the value is copied at once.
    let known = unsafe { SOCKET_FLOWS.get(&forward) }.copied();
    let to = match known {
        Some(known) => known,
        None => {
            let client = || Address::from_netns_cookie(socket::netns_cookie(ctx));
            let backend = match service::choose(vip.inside, number(cookie, &address, port), client) {
                Choice::Backend(backend) if F::carries(&backend.address) => backend,
                _ => {
                    count::event(Event::SendRefused);
                    count::service_count(vip.service, |count| count.refused += 1);
                    tell::call(
                        ctx,
                        Point::Send,
                        Verdict::Refused,
                        TOLD_FIRST,
                        vip.service,
                        &address,
                        port,
                        None,
                    );
                    socket::fail_with(socket::CONNECTION_REFUSED);
                    return socket::REFUSE;
                }
            };
            let value = SocketFlowValue {
                address: backend.address,
                port: backend.port,
                zero: 0,
                service: vip.service,
            };
            // Not recorded, the datagram still goes out; the next one is chosen again, by the same hash.
            record(&forward, &value);
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
        record(&reply, &back);
    }
    socket::set_peer::<F>(ctx, &to.address, to.port);
    count::event(Event::SendTranslated);
    count::service_count(vip.service, |count| count.datagrams += 1);
    let (first, to) = (if known.is_none() { TOLD_FIRST } else { 0 }, Some((&to.address, to.port)));
    tell::call(ctx, Point::Send, Verdict::Translated, first, vip.service, &address, port, to);
    socket::ALLOW
}

/// Records one half. Counted, for this map is always full of what nobody needs any more: how fast it fills tells whether it
/// is large enough.
#[inline(always)]
fn record(key: &SocketFlowKey, value: &SocketFlowValue) {
    if SOCKET_FLOWS.insert(key, value, 0).is_ok() {
        count::event(Event::SendRecorded);
    }
}

/// A number by which this socket chooses for this service: should the flow be evicted, the same backend again.
#[inline(always)]
fn number(cookie: u64, address: &Address, port: u16) -> u32 {
    let [a, b, c, d] = address.words;
    let high = hash::mix((a as u64) << 32 | b as u64) ^ (c as u64) << 32 ^ d as u64;
    hash::mix(cookie ^ hash::mix(high) ^ (port as u64) << 48) as u32
}
