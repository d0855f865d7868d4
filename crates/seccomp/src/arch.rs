//! The architectures a filter can judge, and their system call numbers.
//!
//! The tables in `data/` are those of Linux 6.18, one `number name` on a line.

use std::collections::HashMap;

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

/// x32 calls come as x86-64 ones with this bit set.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// Architectures of libseccomp for which there is no table here.
const WITHOUT_TABLE: [&str; 20] = [
    "LOONGARCH64",
    "M68K",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PARISC",
    "PARISC64",
    "PPC",
    "PPC64",
    "PPC64LE",
    "RISCV64",
    "S390",
    "S390X",
    "SH",
    "SHEB",
    "SH4",
    "NATIVE",
];

impl Arch {
    /// From the name in a profile, `SCMP_ARCH_X86_64`. `None` for one that exists, but no process here can use: rules for it
    /// are void.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is none.
    pub fn parse(name: &str) -> Result<Option<Self>, SeccompError> {
        let unknown = || SeccompError::UnknownArch { name: name.to_owned() };
        Ok(Some(match name.strip_prefix("SCMP_ARCH_").ok_or_else(unknown)? {
            "X86_64" => Self::X86_64,
            "X86" => Self::X86,
            "X32" => Self::X32,
            "AARCH64" => Self::Aarch64,
            "ARM" => Self::Arm,
            other if WITHOUT_TABLE.contains(&other) => return Ok(None),
            _ => return Err(unknown()),
        }))
    }

    /// The architecture this program was built for.
    ///
    /// # Errors
    /// `InvalidArgument` where there is no table.
    pub fn native() -> Result<Self, SeccompError> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "x86" => Ok(Self::X86),
            "aarch64" => Ok(Self::Aarch64),
            "arm" => Ok(Self::Arm),
            other => Err(SeccompError::UnknownArch { name: other.to_owned() }),
        }
    }

    /// Further ABIs a process on this architecture can use.
    pub fn sub_arches(self) -> &'static [Self] {
        match self {
            Self::X86_64 => &[Self::X86, Self::X32],
            Self::Aarch64 => &[Self::Arm],
            Self::X86 | Self::X32 | Self::Arm => &[],
        }
    }

    /// The name in `includes` and `excludes` of Docker's profiles.
    pub(crate) fn docker_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// The name in profiles, without its prefix.
    pub(crate) fn profile_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// What the kernel puts into `seccomp_data.arch` (AUDIT_ARCH_*).
    pub const fn audit_value(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// What is added to a number of the table in `seccomp_data.nr`.
    pub(crate) const fn number_base(self) -> u32 {
        if matches!(self, Self::X32) { X32_BIT } else { 0 }
    }

    /// The number of a call as the kernel shows it to a filter; `None` where the architecture lacks it.
    pub fn syscall_number(self, name: &str) -> Option<u32> {
        self.lines().find(|(_, own)| *own == name).map(|(number, _)| number)
    }

    /// Every call and its number as the kernel shows it to a filter.
    pub fn syscalls(self) -> HashMap<&'static str, u32> {
        self.lines().map(|(number, name)| (name, number)).collect()
    }

    fn lines(self) -> impl Iterator<Item = (u32, &'static str)> {
        let table = match self {
            Self::X86_64 => include_str!("../data/x86_64.txt"),
            Self::X86 => include_str!("../data/x86.txt"),
            Self::X32 => include_str!("../data/x32.txt"),
            Self::Aarch64 => include_str!("../data/aarch64.txt"),
            Self::Arm => include_str!("../data/arm.txt"),
        };
        let base = self.number_base();
        table
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(move |(number, name)| Some((number.parse::<u32>().ok()? | base, name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Arch; 5] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];

    #[test]
    fn tables_are_complete_and_sorted() {
        for (arch, count) in ALL.into_iter().zip([383, 459, 372, 325, 429]) {
            let numbers: Vec<u32> = arch.lines().map(|(number, _)| number).collect();
            assert_eq!(numbers.len(), count, "{arch:?}");
            assert!(numbers.is_sorted(), "{arch:?}");
            assert_eq!(arch.syscalls().len(), count, "{arch:?}: a name twice");
        }
    }

    #[test]
    fn anchor_numbers() {
        for (arch, name, number) in [
            (Arch::X86_64, "read", 0),
            (Arch::X86_64, "clone3", 435),
            (Arch::X86_64, "file_setattr", 469),
            (Arch::X86, "socketcall", 102),
            (Arch::X86, "clock_gettime64", 403),
            (Arch::X32, "rt_sigaction", 512 | X32_BIT),
            (Arch::X32, "write", 1 | X32_BIT),
            (Arch::Aarch64, "openat", 56),
            (Arch::Aarch64, "mseal", 462),
            (Arch::Arm, "set_tls", 0xf_0005),
        ] {
            assert_eq!(arch.syscall_number(name), Some(number), "{arch:?} {name}");
        }
        assert_eq!(Arch::Aarch64.syscall_number("open"), None);
    }

    #[test]
    fn names() {
        for arch in ALL {
            assert_eq!(Arch::parse(arch.profile_name()).unwrap(), Some(arch));
        }
        assert_eq!(Arch::parse("SCMP_ARCH_S390X").unwrap(), None);
        assert!(Arch::parse("SCMP_ARCH_PDP11").is_err());
        assert!(Arch::parse("amd64").is_err());
    }
}
