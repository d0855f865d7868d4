//! For tests: classic BPF the way the kernel runs it on `struct seccomp_data`.

use crate::program::{Instruction, Program};

/// What a filter sees of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) arch: u32,
    pub(crate) number: u32,
    pub(crate) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let mut bytes = [0_u8; 64];
        bytes[..4].copy_from_slice(&self.number.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.arch.to_ne_bytes());
        for (index, arg) in self.args.iter().enumerate() {
            bytes[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_ne_bytes());
        }
        assert!(offset.is_multiple_of(4) && offset < 64, "the kernel refuses offset {offset}");
        let at = usize::try_from(offset).unwrap();
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }
}

/// The return value, and how many instructions it took.
pub(crate) fn run(program: &Program, call: &Call) -> (u32, usize) {
    let code = program.instructions();
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    for count in 1..=code.len() {
        let Instruction { code: operation, jump_true, jump_false, operand } = code[at];
        let choose = |holds: bool| usize::from(if holds { jump_true } else { jump_false });
        at += 1;
        match operation {
            0x20 => accumulator = call.word(operand),
            0x54 => accumulator &= operand,
            0x05 => at += usize::try_from(operand).unwrap(),
            0x15 => at += choose(accumulator == operand),
            0x25 => at += choose(accumulator > operand),
            0x35 => at += choose(accumulator >= operand),
            0x06 => return (operand, count),
            other => panic!("instruction {other:#x} is not expected"),
        }
    }
    panic!("it ends without a return");
}
