//! The architectures a filter can judge, and their system call numbers.

use crate::error::SeccompError;

/// An ABI with its own system call numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Arch {
    /// From the name in a profile, `SCMP_ARCH_X86_64`. `None` for one we have no table for.
    pub fn parse(name: &str) -> Result<Self, SeccompError> {
        Ok(match name {
            "SCMP_ARCH_X86_64" => Self::X86_64,
            "SCMP_ARCH_X86" => Self::X86,
            "SCMP_ARCH_X32" => Self::X32,
            "SCMP_ARCH_AARCH64" => Self::Aarch64,
            "SCMP_ARCH_ARM" => Self::Arm,
            _ => return Err(SeccompError::UnknownArch { name: name.to_owned() }),
        })
    }

    /// The architecture this program was built for.
    ///
    /// # Errors
    /// `Unimplemented` where there is no table.
    pub fn native() -> Result<Self, SeccompError> {
        Self::of_machine(std::env::consts::ARCH)
    }

    fn of_machine(machine: &str) -> Result<Self, SeccompError> {
        Ok(match machine {
            "x86_64" => Self::X86_64,
            "x86" => Self::X86,
            "aarch64" => Self::Aarch64,
            "arm" => Self::Arm,
            _ => return Err(SeccompError::UnknownArch { name: machine.to_owned() }),
        })
    }

    /// The number of a call; `None` where the architecture lacks it.
    pub fn syscall_number(self, name: &str) -> Option<u32> {
        let _ = name;
        None
    }
}
