//! A filter as plain data: what remains of a profile once capabilities, architecture and kernel are known.

mod assembly;
mod multiplexed;
mod section;
#[cfg(test)]
mod tests;

use crate::action::Action;
use crate::arch::Arch;
use crate::error::SeccompError;
use crate::program::Program;

/// Rules for system calls by name.
///
/// Of several rules for a call, those with argument tests are asked first, in order; then the strictest of those without; then the
/// default action holds. A call newer than every call the rules name fails with ENOSYS where the default is to refuse, so programs fall
/// back to the older call as on an older kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub default_action: Action,
    /// The ABIs it judges; calls by any other kill the process. Empty is the native one with its sub-architectures.
    pub arches: Vec<Arch>,
    pub rules: Vec<Rule>,
    pub flags: Flags,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Calls an architecture does not have are passed over there.
    pub names: Vec<String>,
    pub action: Action,
    /// All of them must hold; empty always holds. When one argument is tested twice, any of the tests is enough: that is what the
    /// runtimes of the field made of such profiles.
    pub args: Vec<ArgTest>,
}

/// One test of a call's argument, as 64-bit unsigned numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArgTest {
    /// 0 to 5.
    pub index: u8,
    pub comparison: Comparison,
    pub value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal after masking the argument with this.
    MaskedEqual {
        mask: u64,
    },
}

/// Flags of seccomp(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    pub log: bool,
    pub spec_allow: bool,
    pub wait_kill_recv: bool,
    pub thread_sync: bool,
}

impl Flags {
    /// From the names in a profile.
    ///
    /// # Errors
    /// `InvalidArgument` for a name we do not know.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, SeccompError> {
        let mut flags = Self::default();
        for name in names {
            match name {
                "SECCOMP_FILTER_FLAG_LOG" => flags.log = true,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flags.spec_allow = true,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => flags.wait_kill_recv = true,
                "SECCOMP_FILTER_FLAG_TSYNC" => flags.thread_sync = true,
                _ => return Err(SeccompError::UnknownFlag { name: name.to_owned() }),
            }
        }
        Ok(flags)
    }
}

impl Filter {
    /// The program for the kernel.
    ///
    /// # Errors
    /// `ResourceExhausted` when it would be longer than the kernel takes.
    pub fn compile(&self) -> Result<Program, SeccompError> {
        let arches = if self.arches.is_empty() {
            let native = Arch::native()?;
            [&[native], native.sub_arches()].concat()
        } else {
            self.arches.clone()
        };
        Program::new(assembly::program(&section::sections(self, &arches)))
    }
}

impl Rule {
    /// The lists of tests of which one must hold entirely.
    fn alternatives(&self) -> Vec<Vec<ArgTest>> {
        let twice = (0..6).any(|index| self.args.iter().filter(|test| test.index == index).count() > 1);
        if twice { self.args.iter().map(|test| vec![*test]).collect() } else { vec![self.args.clone()] }
    }
}
