//! The few bpf(2) commands and instructions a measurement needs: a small program that puts a packet back as it was
//! and calls another, run many times in one call.
//!
//! `BPF_PROG_TEST_RUN` with `repeat` feeds a program its own output, which would be another packet from the second time
//! on. Must not know what the measured program does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;

const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_PROG_ARRAY: u32 = 3;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;

const HELPER_MAP_LOOKUP_ELEM: i32 = 1;
const HELPER_SKB_STORE_BYTES: i32 = 9;
const HELPER_TAIL_CALL: i32 = 12;
const HELPER_XDP_STORE_BYTES: i32 = 190;

/// Bytes of a frame that are put back: Ethernet, IPv4 and TCP headers.
pub const HEADERS_BYTES: usize = 54;
/// A map value: the headers, then a counter.
const VALUE_BYTES: usize = 64;
const COUNTER_OFFSET: i16 = 60;
/// Where the last byte of the IPv4 source address and the source port lie.
const SOURCE_LAST_OFFSET: i16 = 29;
const SOURCE_PORT_OFFSET: i16 = 34;

/// Where a program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// On a socket buffer.
    Tc,
    /// On a packet in memory.
    Xdp,
}

/// A program that restores a packet's headers and calls the program in its array.
pub struct Restorer {
    program: OwnedFd,
    template: OwnedFd,
    callee: OwnedFd,
    hook: Hook,
}

impl Restorer {
    /// With `vary` every packet has another source, counted up: 2^24 of them.
    pub fn new(hook: Hook, vary: bool) -> io::Result<Restorer> {
        let template = create_map(MAP_TYPE_ARRAY, VALUE_BYTES as u32)?;
        let callee = create_map(MAP_TYPE_PROG_ARRAY, 4)?;
        let program = load(hook, &restoring(hook, template.as_raw_fd(), callee.as_raw_fd(), vary))?;
        Ok(Restorer { program, template, callee, hook })
    }

    /// Gives it the frame whose headers every packet has.
    pub fn set_frame(&self, frame: &[u8]) -> io::Result<()> {
        let mut value = [0_u8; VALUE_BYTES];
        let length = frame.len().min(HEADERS_BYTES);
        value[..length].copy_from_slice(&frame[..length]);
        update(self.template.as_fd(), value.as_ptr() as u64)
    }

    /// Gives it the program to call.
    pub fn set_callee(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let fd = program.as_raw_fd() as u32;
        update(self.callee.as_fd(), &raw const fd as u64)
    }

    /// Nanoseconds of one run of many on a frame that arrives by an interface of this namespace, and the last verdict.
    pub fn run(&self, frame: &[u8], ifindex: u32, repeat: u32) -> io::Result<(u32, i32)> {
        let mut context = [0_u8; 192];
        let context = match self.hook {
            // struct __sk_buff: the fields before ifindex, which stands at 40, must be zero.
            Hook::Tc => {
                context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
                &context[..]
            }
            // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
            Hook::Xdp => {
                context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
                context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
                &context[..24]
            }
        };
        // struct { prog_fd, retval, data_size_in, data_size_out: u32; data_in, data_out: u64; repeat, duration,
        // ctx_size_in, ctx_size_out: u32; ctx_in, ctx_out: u64 } test.
        let mut attr = Attr::new()
            .u32(0, self.program.as_raw_fd() as u32)
            .u32(8, frame.len() as u32)
            .u64(16, frame.as_ptr() as u64)
            .u32(32, repeat)
            .u32(40, context.len() as u32)
            .u64(48, context.as_ptr() as u64);
        bpf(PROG_TEST_RUN, &mut attr)?;
        Ok((attr.read(36), attr.read(4) as i32))
    }
}

/// A program that does nothing but leave a packet to the next: TCX_NEXT is -1, XDP_PASS 2.
pub fn empty(hook: Hook) -> io::Result<OwnedFd> {
    load(hook, &[mov_imm(0, if hook == Hook::Tc { -1 } else { 2 }), exit()])
}

fn restoring(hook: Hook, template: i32, callee: i32, vary: bool) -> Vec<u64> {
    let mut code = vec![mov(6, 1), store_word_imm(10, -4, 0), mov(2, 10), add_imm(2, -4)];
    code.extend(load_map(1, template));
    code.push(call(HELPER_MAP_LOOKUP_ELEM));
    code.extend([jump_if_not_zero(0, 2), mov_imm(0, 2), exit()]);
    if vary {
        code.extend([
            load_word(7, 0, COUNTER_OFFSET),
            add_imm(7, 1),
            store_word(0, 7, COUNTER_OFFSET),
            store_half(0, 7, SOURCE_PORT_OFFSET),
            shift_right(7, 16),
            store_byte(0, 7, SOURCE_LAST_OFFSET),
        ]);
    }
    code.extend([mov(3, 0), mov(1, 6), mov_imm(2, 0), mov_imm(4, HEADERS_BYTES as i32), mov_imm(5, 0)]);
    // Both take the context, an offset, a buffer and its length; the former takes flags too.
    code.extend([
        call(if hook == Hook::Tc { HELPER_SKB_STORE_BYTES } else { HELPER_XDP_STORE_BYTES }),
        mov(1, 6),
    ]);
    code.extend(load_map(2, callee));
    code.extend([mov_imm(3, 0), call(HELPER_TAIL_CALL), mov_imm(0, 2), exit()]);
    code
}

/// The map of this number.
pub fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf(MAP_GET_FD_BY_ID, &mut Attr::new().u32(0, id)).map(owned)
}

/// The numbers of the maps in an array of maps with so many entries.
pub fn maps_in(outer: BorrowedFd<'_>, entries: u32) -> Vec<u32> {
    let lookup = |key: u32| {
        let mut id = 0_u32;
        // struct { map_fd: u32; key, value, flags: u64 }.
        let attr = Attr::new().u32(0, outer.as_raw_fd() as u32).u64(8, &raw const key as u64);
        bpf(MAP_LOOKUP_ELEM, &mut attr.u64(16, &raw mut id as u64)).is_ok().then_some(id)
    };
    (0..entries).filter_map(lookup).collect()
}

// === Instructions: struct bpf_insn { code: u8, dst: 4, src: 4, off: i16, imm: i32 } ===

fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    u64::from(code)
        | u64::from(to | from << 4) << 8
        | u64::from(offset as u16) << 16
        | u64::from(number as u32) << 32
}

fn mov(to: u8, from: u8) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

fn mov_imm(to: u8, number: i32) -> u64 {
    instruction(0xb7, to, 0, 0, number)
}

fn add_imm(to: u8, number: i32) -> u64 {
    instruction(0x07, to, 0, 0, number)
}

fn shift_right(to: u8, bits: i32) -> u64 {
    instruction(0x77, to, 0, 0, bits)
}

fn load_word(to: u8, from: u8, offset: i16) -> u64 {
    instruction(0x61, to, from, offset, 0)
}

fn store_word(to: u8, from: u8, offset: i16) -> u64 {
    instruction(0x63, to, from, offset, 0)
}

fn store_half(to: u8, from: u8, offset: i16) -> u64 {
    instruction(0x6b, to, from, offset, 0)
}

fn store_byte(to: u8, from: u8, offset: i16) -> u64 {
    instruction(0x73, to, from, offset, 0)
}

fn store_word_imm(to: u8, offset: i16, number: i32) -> u64 {
    instruction(0x62, to, 0, offset, number)
}

fn jump_if_not_zero(register: u8, over: i16) -> u64 {
    instruction(0x55, register, 0, over, 0)
}

fn call(helper: i32) -> u64 {
    instruction(0x85, 0, 0, 0, helper)
}

fn exit() -> u64 {
    instruction(0x95, 0, 0, 0, 0)
}

/// BPF_LD_IMM64 of a map's descriptor takes two places.
fn load_map(to: u8, map: i32) -> [u64; 2] {
    const PSEUDO_MAP_FD: u8 = 1;
    [instruction(0x18, to, PSEUDO_MAP_FD, 0, map), 0]
}

// === System calls ===

/// `union bpf_attr`, zeroed and filled by offset: each command has its own layout.
#[repr(C, align(8))]
struct Attr([u8; 128]);

impl Attr {
    fn new() -> Self {
        Self([0; 128])
    }

    fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, offset: usize, value: u64) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn read(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_ne_bytes(bytes)
    }
}

fn bpf(command: libc::c_int, attr: &mut Attr) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is fully initialised and outlives the call; memory it points to is owned by the callers.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut Attr, size_of::<Attr>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel just gave this descriptor to us alone.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

/// An array of one entry.
fn create_map(kind: u32, value_bytes: u32) -> io::Result<OwnedFd> {
    // struct { map_type, key_size, value_size, max_entries }.
    bpf(MAP_CREATE, &mut Attr::new().u32(0, kind).u32(4, 4).u32(8, value_bytes).u32(12, 1)).map(owned)
}

/// Sets entry 0; `value` is the address of a value of the map's size that outlives the call.
fn update(map: BorrowedFd<'_>, value: u64) -> io::Result<()> {
    let key = 0_u32;
    // struct { map_fd: u32; key, value, flags: u64 }.
    let attr = Attr::new().u32(0, map.as_raw_fd() as u32).u64(8, &raw const key as u64);
    bpf(MAP_UPDATE_ELEM, &mut attr.u64(16, value)).map(drop)
}

fn load(hook: Hook, code: &[u64]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    // struct { prog_type, insn_cnt: u32; insns, license: u64 }.
    // Programs that call each other at XDP are all of one expected_attach_type, which stands at 68: BPF_XDP.
    let (kind, attach) = if hook == Hook::Tc { (PROG_TYPE_SCHED_CLS, 0) } else { (PROG_TYPE_XDP, 37) };
    let attr = Attr::new().u32(0, kind).u32(68, attach).u32(4, code.len() as u32);
    bpf(PROG_LOAD, &mut attr.u64(8, code.as_ptr() as u64).u64(16, license.as_ptr() as u64)).map(owned)
}
