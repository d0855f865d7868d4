//! Sections into instructions.
//!
//! ```text
//! load arch;  for each section: is it this one? -> load number, binary tree over the ranges, argument tests in the leaves
//! otherwise kill the process
//! ```
//!
//! Every piece is position-independent: jumps go forward inside a piece, and each piece ends in returns only.

use super::section::{Answer, Section};
use super::{ArgTest, Comparison};
use crate::action::Action;
use crate::program::Instruction;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;
const ARG_SIZE: u32 = 8;

pub(super) fn program(sections: &[Section]) -> Vec<Instruction> {
    let mut code = vec![plain(LOAD, ARCH)];
    for section in sections {
        let mut body = vec![plain(LOAD, NUMBER)];
        body.extend(tree(&section.ranges));
        code.extend(branch(JUMP_EQUAL, section.audit_value, body));
    }
    code.push(answer(Action::KillProcess));
    code
}

/// `body` when the test holds; what follows it when not.
fn branch(test: u16, operand: u32, body: Vec<Instruction>) -> Vec<Instruction> {
    let mut code = match u8::try_from(body.len()) {
        Ok(length) => vec![jump(test, operand, 0, length)],
        Err(_) => vec![jump(test, operand, 1, 0), plain(JUMP, distance(body.len()))],
    };
    code.extend(body);
    code
}

/// Halves the ranges until one is left, so every number is found with the same few comparisons.
fn tree(ranges: &[(u32, Answer)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![answer(Action::KillProcess)],
        [(_, one)] => leaf(one),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let mut code = branch(JUMP_GREATER_OR_EQUAL, high[0].0, tree(high));
            code.extend(tree(low));
            code
        }
    }
}

fn leaf(range: &Answer) -> Vec<Instruction> {
    let mut code = Vec::new();
    for (tests, action) in &range.tested {
        code.extend(rule(tests, *action));
    }
    code.push(answer(range.otherwise()));
    code
}

/// Where a comparison of one half goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Next,
    /// The test holds: on to the next test.
    Pass,
    /// It does not: past the rule's return.
    Fail,
}

struct Step {
    code: u16,
    operand: u32,
    yes: Target,
    no: Target,
}

/// All tests, then the answer; whatever fails goes on behind it.
fn rule(tests: &[ArgTest], action: Action) -> Vec<Instruction> {
    let blocks: Vec<Vec<Step>> = tests.iter().map(|test| steps(*test)).collect();
    let length: usize = blocks.iter().map(Vec::len).sum();
    let mut code = Vec::new();
    for block in blocks {
        let pass = code.len() + block.len();
        for step in block {
            let here = code.len() + 1;
            let offset = |target| match target {
                Target::Next => 0,
                Target::Pass => short(pass - here),
                Target::Fail => short(length + 1 - here),
            };
            let is_jump = matches!(step.code, JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_OR_EQUAL);
            code.push(if is_jump {
                jump(step.code, step.operand, offset(step.yes), offset(step.no))
            } else {
                plain(step.code, step.operand)
            });
        }
    }
    code.push(answer(action));
    code
}

/// One 64-bit comparison in halves: the high words decide unless they are equal.
fn steps(test: ArgTest) -> Vec<Step> {
    use Target::{Fail, Next, Pass};
    let (high, low) = (upper(test.value), lower(test.value));
    let compare = |code, operand, yes, no| Step { code, operand, yes, no };
    let load = |half| Step { code: LOAD, operand: address(test.index, half), yes: Next, no: Next };
    let ordered = |unless_equal: [Step; 2], last: Step| {
        let [first, second] = unless_equal;
        vec![load(Half::High), first, second, load(Half::Low), last]
    };
    match test.comparison {
        Comparison::Equal => vec![
            load(Half::High),
            compare(JUMP_EQUAL, high, Next, Fail),
            load(Half::Low),
            compare(JUMP_EQUAL, low, Pass, Fail),
        ],
        Comparison::NotEqual => vec![
            load(Half::High),
            compare(JUMP_EQUAL, high, Next, Pass),
            load(Half::Low),
            compare(JUMP_EQUAL, low, Fail, Pass),
        ],
        Comparison::MaskedEqual { mask } => vec![
            load(Half::High),
            compare(AND, upper(mask), Next, Next),
            compare(JUMP_EQUAL, high, Next, Fail),
            load(Half::Low),
            compare(AND, lower(mask), Next, Next),
            compare(JUMP_EQUAL, low, Pass, Fail),
        ],
        Comparison::Greater | Comparison::GreaterOrEqual => ordered(
            [compare(JUMP_GREATER, high, Pass, Next), compare(JUMP_EQUAL, high, Next, Fail)],
            if test.comparison == Comparison::Greater {
                compare(JUMP_GREATER, low, Pass, Fail)
            } else {
                compare(JUMP_GREATER_OR_EQUAL, low, Pass, Fail)
            },
        ),
        Comparison::Less | Comparison::LessOrEqual => ordered(
            [compare(JUMP_GREATER, high, Fail, Next), compare(JUMP_EQUAL, high, Next, Pass)],
            if test.comparison == Comparison::Less {
                compare(JUMP_GREATER_OR_EQUAL, low, Fail, Pass)
            } else {
                compare(JUMP_GREATER, low, Fail, Pass)
            },
        ),
    }
}

#[derive(Clone, Copy)]
enum Half {
    High,
    Low,
}

/// Where the half of an argument is, in this machine's byte order.
fn address(index: u8, half: Half) -> u32 {
    let second = matches!(half, Half::High) == cfg!(target_endian = "little");
    ARGS + ARG_SIZE * u32::from(index) + if second { 4 } else { 0 }
}

const fn upper(value: u64) -> u32 {
    (value >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
const fn lower(value: u64) -> u32 {
    value as u32
}

/// Inside one rule: six tests of six instructions at most.
fn short(distance: usize) -> u8 {
    u8::try_from(distance).unwrap_or(u8::MAX)
}

/// Programs longer than the kernel takes are refused afterwards, so the distance always fits.
fn distance(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn answer(action: Action) -> Instruction {
    plain(RETURN, action.to_return_value())
}

fn plain(code: u16, operand: u32) -> Instruction {
    jump(code, operand, 0, 0)
}

fn jump(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}
