//! The time, as cheap as it comes.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};

/// One second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds since boot with the resolution of a tick: a load, where the exact clock reads a device.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The kernel's count of ticks, of which there are 100 to 1,000 a second (CONFIG_HZ): a load without a call.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_jiffies64() }
}

/// When a packet is decided.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Moment {
    /// [`now_ns`], a tick late at most.
    pub now_ns: u64,
    /// The same in seconds: a division takes as long as a look into a map.
    pub now_s: u64,
    /// The tick of which that is the time.
    tick: u64,
    /// What flows are marked with whose packets are for what they say (see `settled`); zero for nothing.
    pub mark: u16,
    /// Whether a flow of the packet's addresses is there that is over.
    pub leaves_over: bool,
    zero: [u8; 5],
}

impl Moment {
    /// Makes it now. The clock moves with each tick, so that it is read once for all packets of one.
    #[inline(always)]
    pub fn begin(&mut self, mark: u16) {
        self.mark = mark;
        let tick = ticks();
        if self.tick != tick {
            self.tick = tick;
            self.now_ns = now_ns();
            self.now_s = self.now_ns / SECOND_NS;
        }
    }
}
