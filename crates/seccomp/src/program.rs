//! A finished program: instructions in the kernel's form.

use crate::error::SeccompError;

/// One `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub operand: u32,
}

/// At most [`Program::LENGTH_MAX`] instructions, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
}

impl Program {
    /// The kernel's BPF_MAXINSNS.
    pub const LENGTH_MAX: usize = 4096;
    const SIZE: usize = 8;

    pub(crate) fn new(instructions: Vec<Instruction>) -> Result<Self, SeccompError> {
        if instructions.len() > Self::LENGTH_MAX {
            return Err(SeccompError::TooLong { instructions: instructions.len(), limit: Self::LENGTH_MAX });
        }
        Ok(Self { instructions })
    }

    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// In the byte order of this machine, as the kernel reads it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.instructions.len() * Self::SIZE);
        for instruction in &self.instructions {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.jump_true, instruction.jump_false]);
            bytes.extend(instruction.operand.to_ne_bytes());
        }
        bytes
    }

    /// The inverse of [`Program::to_bytes`]. The kernel checks the instructions themselves when it loads them.
    ///
    /// # Errors
    /// `InvalidArgument` for a length no program has.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SeccompError> {
        let (chunks, rest) = bytes.as_chunks::<{ Self::SIZE }>();
        if !rest.is_empty() || chunks.is_empty() || chunks.len() > Self::LENGTH_MAX {
            return Err(SeccompError::ProgramBytes { length: bytes.len(), limit: Self::LENGTH_MAX });
        }
        let instructions = chunks
            .iter()
            .map(|&[c0, c1, jump_true, jump_false, k0, k1, k2, k3]| Instruction {
                code: u16::from_ne_bytes([c0, c1]),
                jump_true,
                jump_false,
                operand: u32::from_ne_bytes([k0, k1, k2, k3]),
            })
            .collect();
        Ok(Self { instructions })
    }
}
