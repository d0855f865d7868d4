//! The v2 device program: eBPF of type `cgroup_device` from the normal form of the rules.
//!
//! The kernel calls it with `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`, where `access_type` is
//! `access << 16 | type`; it allows by answering 1. The program is a straight line of tests, one block for each exception.

use berth_sys::bpf::BpfInstruction;

use super::{Access, DeviceFilter, DeviceKind, DeviceRule};

/// Registers: the answer, the context (later scratch), type, access, major, minor.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE: u8 = 0xb4;
const JUMP_NOT_EQUAL: u8 = 0x56;
const JUMP_EQUAL: u8 = 0x16;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5e;
const EXIT: u8 = 0x95;

const TYPE_BLOCK: i32 = 1;
const TYPE_CHAR: i32 = 2;
const TYPE_MASK: i32 = 0xffff;
const ACCESS_SHIFT: i32 = 16;

/// The program that gives the filter's answers.
pub(crate) fn program(filter: &DeviceFilter) -> Vec<BpfInstruction> {
    let mut program = vec![
        instruction(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, ACCESS, TYPE, 0, 0),
        instruction(AND, TYPE, 0, 0, TYPE_MASK),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, ACCESS_SHIFT),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for exception in &filter.exceptions {
        program.extend(block(exception));
    }
    program.extend(answer(filter.default_allow));
    program
}

/// Tests that leave the block when the rule does not apply, and the rule's answer.
fn block(rule: &DeviceRule) -> Vec<BpfInstruction> {
    let kind = if rule.kind == DeviceKind::Block { TYPE_BLOCK } else { TYPE_CHAR };
    let mut tests = vec![instruction(JUMP_NOT_EQUAL, TYPE, 0, 0, kind)];
    if rule.access != Access::ALL {
        tests.push(instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0));
        tests.push(instruction(AND, SCRATCH, 0, 0, i32::from(rule.access.bits())));
        // An allowing rule must grant all that is asked for; a denying one need only touch it.
        tests.push(if rule.allow {
            instruction(JUMP_NOT_EQUAL_REGISTER, SCRATCH, ACCESS, 0, 0)
        } else {
            instruction(JUMP_EQUAL, SCRATCH, 0, 0, 0)
        });
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            tests.push(instruction(JUMP_NOT_EQUAL, register, 0, 0, number.cast_signed()));
        }
    }
    tests.extend(answer(rule.allow));
    let length = tests.len();
    for (index, test) in tests.iter_mut().enumerate() {
        if matches!(test.code, JUMP_NOT_EQUAL | JUMP_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
            test.offset = i16::try_from(length - index - 1).expect("a block has at most eight instructions");
        }
    }
    tests
}

fn answer(allow: bool) -> [BpfInstruction; 2] {
    [instruction(MOVE, ANSWER, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> BpfInstruction {
    // The two register fields are C bit fields: their order follows the byte order.
    let registers = if cfg!(target_endian = "little") { source << 4 | destination } else { destination << 4 | source };
    BpfInstruction { code, registers, offset, immediate }
}
