//! The profile of a container that asks for none: an allow list, equal in effect to what users of Docker are used to.
//!
//! What is not in it fails with EPERM; what is newer than all of it with ENOSYS. Refused on purpose, whatever the capabilities:
//! `io_uring_*` (too many holes in the kernel, and it goes around this very filter), `keyctl` and its kin (the keyring is not
//! divided into namespaces), `kexec_*`, `swapon`, `userfaultfd` (makes races in the kernel winnable), `vm86`, `move_pages`, `nfsservctl`.

mod names;
#[cfg(test)]
mod tests;

use names::{ALLOWED, BY_CAPABILITY, SOCKET_FAMILIES, SOCKET_FAMILIES_BELOW};

use crate::arch::Arch;
use crate::profile::{ArchMap, Condition, Profile, ProfileArg, SyscallRule};

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
const EQUAL: &str = "SCMP_CMP_EQ";
const LESS: &str = "SCMP_CMP_LT";
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Flags of clone(2) that make namespaces: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Before Linux 4.8 a tracer could change a call after the filter had allowed it.
const PTRACE_SAFE: &str = "4.8";

/// Our default profile.
pub fn default_profile() -> Profile {
    let mut syscalls = vec![allow(ALLOWED.iter().flat_map(|words| words.split_whitespace()))];
    syscalls.push(SyscallRule {
        includes: Condition { min_kernel: Some(PTRACE_SAFE.to_owned()), ..Condition::default() },
        ..allow(["process_vm_readv", "process_vm_writev", "ptrace"])
    });
    syscalls.push(allow_when("socket", LESS, SOCKET_FAMILIES_BELOW));
    syscalls.extend(SOCKET_FAMILIES.iter().map(|family| allow_when("socket", EQUAL, *family)));
    syscalls.extend(personalities().map(|persona| allow_when("personality", EQUAL, persona)));
    syscalls.extend(by_architecture());
    syscalls.extend(BY_CAPABILITY.iter().map(|(capability, names)| SyscallRule {
        includes: capability_condition(capability),
        ..allow(names.split_whitespace())
    }));
    syscalls.extend(clone_without_namespaces());
    Profile {
        default_action: ERRNO.to_owned(),
        default_errno_ret: Some(EPERM),
        arch_map: [Arch::X86_64, Arch::Aarch64].into_iter().map(arch_map).collect(),
        syscalls,
        ..Profile::default()
    }
}

fn arch_map(arch: Arch) -> ArchMap {
    let name = |arch: &Arch| arch.profile_name().to_owned();
    ArchMap { architecture: name(&arch), sub_architectures: arch.sub_arches().iter().map(name).collect() }
}

fn allow<'a>(names: impl IntoIterator<Item = &'a str>) -> SyscallRule {
    SyscallRule {
        names: names.into_iter().map(str::to_owned).collect(),
        action: ALLOW.to_owned(),
        ..SyscallRule::default()
    }
}

fn allow_when(name: &str, op: &str, value: u64) -> SyscallRule {
    let arg = ProfileArg { index: 0, value, value_two: 0, op: op.to_owned() };
    SyscallRule { args: vec![arg], ..allow([name]) }
}

fn capability_condition(name: &str) -> Condition {
    Condition { caps: vec![name.to_owned()], ..Condition::default() }
}

/// Linux, Linux with a uname of 2.6, both for 32 bits, and the question which one it is.
fn personalities() -> impl Iterator<Item = u64> {
    const PER_LINUX: u64 = 0;
    const PER_LINUX32: u64 = 8;
    const UNAME26: u64 = 0x2_0000;
    const QUERY: u64 = 0xffff_ffff;
    [PER_LINUX, PER_LINUX32, UNAME26, UNAME26 | PER_LINUX32, QUERY].into_iter()
}

fn by_architecture() -> [SyscallRule; 3] {
    let only = |arches: &[Arch], names: &str| SyscallRule {
        includes: Condition {
            arches: arches.iter().map(|arch| arch.docker_name().to_owned()).collect(),
            ..Condition::default()
        },
        ..allow(names.split_whitespace())
    };
    [
        only(
            &[Arch::Arm, Arch::Aarch64],
            "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
        ),
        only(&[Arch::X86_64, Arch::X32], "arch_prctl"),
        only(&[Arch::X86_64, Arch::X32, Arch::X86], "modify_ldt"),
    ]
}

/// Without CAP_SYS_ADMIN: threads and processes, but no namespaces. The flags of clone3 are behind a pointer, which a filter cannot
/// follow, so it does not exist and libraries fall back to clone.
fn clone_without_namespaces() -> [SyscallRule; 2] {
    let excludes = capability_condition("CAP_SYS_ADMIN");
    let flags = ProfileArg { index: 0, value: CLONE_NAMESPACES, value_two: 0, op: "SCMP_CMP_MASKED_EQ".to_owned() };
    [
        SyscallRule { args: vec![flags], excludes: excludes.clone(), ..allow(["clone"]) },
        SyscallRule { action: ERRNO.to_owned(), errno_ret: Some(ENOSYS), excludes, ..allow(["clone3"]) },
    ]
}
