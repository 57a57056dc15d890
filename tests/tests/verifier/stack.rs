//! How much stack the programs take, as kernels before 6.13 count it: newer ones give more, so that the verifier of the machine
//! that tests does not say when there is too much of it.
//!
//! Read off the instructions: the lowest place below the frame pointer that a function touches, and whom it calls.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aya_obj::Object;
use aya_obj::generated::bpf_insn;
use penstock_tests::dataplane::object;

/// MAX_BPF_STACK of include/linux/filter.h.
const STACK_MAX: usize = 512;
/// To what each frame is rounded up (`check_max_stack_depth` of kernel/bpf/verifier.c).
const FRAME_UNIT: usize = 32;

const CLASS_MASK: u8 = 7;
const CLASS_LDX: u8 = 1;
const CLASS_ST: u8 = 2;
const CLASS_STX: u8 = 3;
const LOAD_WIDE: u8 = 0x18;
const MOVE: u8 = 0xbf;
const ADD_NUMBER: u8 = 0x07;
const CALL: u8 = 0x85;
/// The source register of a call of another function of the program.
const CALL_FUNCTION: u8 = 1;
const FRAME_POINTER: u8 = 10;

/// A function of a program.
#[derive(Debug, Default)]
struct Frame {
    size: usize,
    calls: BTreeSet<usize>,
}

#[test]
fn no_chain_of_calls_takes_more_stack_than_older_kernels_give() {
    let Some(path) = object() else { return };
    let bytes = std::fs::read(&path).expect("the object");
    let mut object = Object::parse(&bytes).expect("an object");
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).expect("every called function is there");
    assert!(object.programs.len() > 10, "only {} programs in {}", object.programs.len(), path.display());
    let mut seen = 0;
    for (name, program) in &object.programs {
        let code = &object.functions[&program.function_key()].instructions;
        let frames = frames(code);
        seen = seen.max(frames.len());
        let (depth, chain) = deepest(&frames, 0);
        assert!(depth <= STACK_MAX, "{name}: frames of {chain:?} bytes are {depth}, more than {STACK_MAX}");
    }
    assert!(seen > 5, "programs of {seen} functions at most: calls are not seen");
}

#[test]
fn frames_and_calls_are_read_off_the_instructions() {
    let instruction = |code, dst, src, off, imm| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(dst, src),
        off,
        imm,
    };
    let code = [
        // *(u64 *)(r10 - 40) = r1, call the function after the end, end.
        instruction(0x7b, FRAME_POINTER, 1, -40, 0),
        instruction(CALL, 0, CALL_FUNCTION, 0, 1),
        instruction(0x95, 0, 0, 0, 0),
        // r2 = r10, r2 += -100, call a helper, end.
        instruction(MOVE, 2, FRAME_POINTER, 0, 0),
        instruction(ADD_NUMBER, 2, 0, 0, -100),
        instruction(CALL, 0, 0, 0, 7),
        instruction(0x95, 0, 0, 0, 0),
    ];
    let frames = frames(&code);
    assert_eq!(frames.values().map(|it| it.size).collect::<Vec<_>>(), [40, 100]);
    assert_eq!(deepest(&frames, 0), (64 + 128, vec![40, 100]));
}

/// The functions of a program, by where they begin.
fn frames(code: &[bpf_insn]) -> BTreeMap<usize, Frame> {
    let called = code.iter().enumerate().filter_map(|(at, it)| called(at, it));
    let begins: BTreeSet<usize> = called.chain([0]).collect();
    let ends = begins.iter().skip(1).copied().chain([code.len()]);
    begins.iter().zip(ends).map(|(begin, end)| (*begin, frame(*begin, &code[*begin..end]))).collect()
}

fn called(at: usize, instruction: &bpf_insn) -> Option<usize> {
    let calls = instruction.code == CALL && instruction.src_reg() == CALL_FUNCTION;
    calls.then(|| at.wrapping_add_signed(instruction.imm as isize + 1))
}

fn frame(begin: usize, code: &[bpf_insn]) -> Frame {
    let mut frame = Frame::default();
    // What registers are by how much below the frame pointer.
    let mut below = BTreeMap::from([(FRAME_POINTER, 0_i64)]);
    let mut wide = false;
    for (at, it) in code.iter().enumerate() {
        if std::mem::replace(&mut wide, it.code == LOAD_WIDE) {
            continue;
        }
        frame.calls.extend(called(begin + at, it));
        let base = match it.code & CLASS_MASK {
            CLASS_LDX => Some(it.src_reg()),
            CLASS_ST | CLASS_STX => Some(it.dst_reg()),
            _ => None,
        };
        let mut touched = base.and_then(|base| Some(below.get(&base)? - i64::from(it.off)));
        match it.code {
            MOVE => match below.get(&it.src_reg()).copied() {
                Some(depth) => {
                    below.insert(it.dst_reg(), depth);
                }
                None => {
                    below.remove(&it.dst_reg());
                }
            },
            ADD_NUMBER => {
                if let Some(depth) = below.get_mut(&it.dst_reg()) {
                    *depth -= i64::from(it.imm);
                    touched = Some(*depth);
                }
            }
            CALL => below.retain(|register, _| *register > 5),
            code if ![CLASS_ST, CLASS_STX, 5, 6].contains(&(code & CLASS_MASK)) => {
                below.remove(&it.dst_reg());
            }
            _ => {}
        }
        frame.size = frame.size.max(touched.and_then(|it| usize::try_from(it).ok()).unwrap_or(0));
    }
    frame
}

/// The most that a function takes with all it calls, and the frames of those that take it.
fn deepest(frames: &BTreeMap<usize, Frame>, at: usize) -> (usize, Vec<usize>) {
    let frame = &frames[&at];
    let calls = frame.calls.iter().map(|called| deepest(frames, *called));
    let (depth, mut chain) = calls.max_by_key(|(depth, _)| *depth).unwrap_or_default();
    chain.insert(0, frame.size);
    (depth + frame.size.max(1).next_multiple_of(FRAME_UNIT), chain)
}
