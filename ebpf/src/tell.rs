//! Telling those who watch what was done: once for each thing that begins, is refused or is dropped, and for every packet
//! where a watcher wants them all.
//!
//! It never changes what is done. With nobody watching it costs a look at one entry of an array.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{Address, Event, TOLD_PASSED, Told, WANTS_PACKETS, WATCHERS_MAX, Watch};

use crate::clock;
use crate::count;
use crate::maps::{RINGS, WATCH};
use crate::socket;
use crate::work;

/// In the place of an address that there is none of.
pub const NOBODY: Address = Address { words: [0; 4] };

/// The watchers, if there are any.
#[inline(always)]
fn watched() -> Option<&'static Watch> {
    let watch = WATCH.get(0)?;
    let [first, second, third, fourth] = watch.until_ns;
    (first | second | third | fourth != 0).then_some(watch)
}

/// Tells of the packet in work what was done with it.
#[inline(always)]
pub fn packet(what: u32) {
    if watched().is_some() {
        penstock_tell_packet(what, 0);
    }
}

/// The same, to those only who want every packet.
#[inline(always)]
pub fn each_packet(what: u32) {
    if watched().is_some() {
        penstock_tell_packet(what, WANTS_PACKETS);
    }
}

/// Tells of a socket call: to whom it wanted to talk, and to whom it does.
#[inline(always)]
pub fn call(ctx: &SockAddrContext, what: Event, service: u32, asked: (&Address, u16), got: (&Address, u16)) {
    if watched().is_some() {
        tell_call(ctx, what.index(), service, asked, got);
    }
}

/// Tells of a socket call to no service.
#[inline(always)]
pub fn passed(ctx: &SockAddrContext, asked: (&Address, u16)) {
    if watched().is_some() {
        tell_call(ctx, TOLD_PASSED, 0, asked, (&NOBODY, 0));
    }
}

#[inline(always)]
fn tell_call(ctx: &SockAddrContext, what: u32, service: u32, asked: (&Address, u16), got: (&Address, u16)) {
    send(
        &Told {
            time_ns: now(),
            netns: socket::netns_cookie(ctx),
            source: NOBODY,
            destination: *asked.0,
            to_source: NOBODY,
            to_destination: *got.0,
            source_port: 0,
            destination_port: asked.1,
            to_source_port: 0,
            to_destination_port: got.1,
            what,
            service,
            ifindex: 0,
            protocol: u32::from(socket::protocol(ctx)),
        },
        0,
    );
}

/// Verified once for all that call it, see `tc`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tell_packet(what: u32, wanted: u32) -> u32 {
    let Some(work) = work::get() else { return 0 };
    let (key, to) = (&work.packet.key, &work.to);
    // What is dropped, refused or left alone became nothing; `to` is then a former packet's.
    let became = what < Event::ALL.len() as u32 && what != Event::UplinkRefused.index();
    let told = Told {
        time_ns: now(),
        netns: 0,
        source: key.source,
        destination: key.destination,
        to_source: if became { to.source } else { NOBODY },
        to_destination: if became { to.destination } else { NOBODY },
        source_port: key.source_port,
        destination_port: key.destination_port,
        to_source_port: if became { to.source_port } else { 0 },
        to_destination_port: if became { to.destination_port } else { 0 },
        what,
        service: work.service,
        ifindex: work.ifindex,
        protocol: u32::from(key.protocol),
    };
    send(&told, wanted);
    0
}

/// Hands a record to each watcher that still watches and wants it.
#[inline(never)]
fn send(told: &Told, wanted: u32) {
    let Some(watch) = watched() else { return };
    let now = clock::now_ns();
    let mut watcher = 0;
    while watcher < WATCHERS_MAX {
        let wants = watch.until_ns[watcher] > now && watch.wants[watcher] & wanted == wanted;
        if wants
            && let Some(ring) = RINGS.get(watcher as u32)
            && ring.output(told, 0).is_err()
        {
            count::event(Event::NotTold);
        }
        watcher += 1;
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}
