use super::*;
use crate::action::Action;
use crate::filter::Filter;
use crate::interpreter::{Call, run};
use crate::program::Program;

const KERNEL: (u32, u32) = (6, 18);
/// What a container has without asking.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
const ALLOWED: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

fn filter(arch: Arch, capabilities: &[&str]) -> Filter {
    default_profile().resolve_for(arch, capabilities, KERNEL).unwrap()
}

fn verdict(program: &Program, arch: Arch, name: &str, arg: u64) -> u32 {
    let number = arch.syscall_number(name).expect(name);
    run(program, &Call { arch: arch.audit_value(), number, args: [arg, 0, 0, 0, 0, 0] }).0
}

fn check(capabilities: &[&str], cases: &[(&str, u64, u32)]) {
    let program = filter(Arch::X86_64, capabilities).compile().unwrap();
    for (name, arg, expected) in cases {
        assert_eq!(verdict(&program, Arch::X86_64, name, *arg), *expected, "{name}({arg:#x}) with {capabilities:?}");
    }
}

#[test]
fn an_ordinary_container() {
    check(
        &DEFAULT_CAPABILITIES,
        &[
            ("read", 0, ALLOWED),
            ("execve", 0, ALLOWED),
            ("openat2", 0, ALLOWED),
            ("ptrace", 0, ALLOWED),
            ("chroot", 0, ALLOWED),
            ("clone", 17, ALLOWED),
            ("clone", 0x0001_0f11, ALLOWED),
            ("clone", 0x1000_0000, EPERM),
            ("clone", 0x0002_0000 | 17, EPERM),
            ("clone", 0x0200_0000, EPERM),
            ("clone3", 0, ENOSYS),
            ("unshare", 0, EPERM),
            ("setns", 0, EPERM),
            ("mount", 0, EPERM),
            ("fsopen", 0, EPERM),
            ("open_tree_attr", 0, EPERM),
            ("bpf", 0, EPERM),
            ("perf_event_open", 0, EPERM),
            ("io_uring_setup", 0, EPERM),
            ("io_uring_enter", 0, EPERM),
            ("io_uring_register", 0, EPERM),
            ("keyctl", 0, EPERM),
            ("add_key", 0, EPERM),
            ("request_key", 0, EPERM),
            ("userfaultfd", 0, EPERM),
            ("kexec_load", 0, EPERM),
            ("init_module", 0, EPERM),
            ("reboot", 0, EPERM),
            ("swapon", 0, EPERM),
            ("pivot_root", 0, EPERM),
            ("open_by_handle_at", 0, EPERM),
            ("settimeofday", 0, EPERM),
            ("syslog", 0, EPERM),
            ("personality", 0, ALLOWED),
            ("personality", 0x2_0008, ALLOWED),
            ("personality", 0xffff_ffff, ALLOWED),
            ("personality", 0x004_0000, EPERM),
            ("socket", 2, ALLOWED),
            ("socket", 11, ALLOWED),
            ("socket", 12, EPERM),
            ("socket", 16, ALLOWED),
            ("socket", 45, ALLOWED),
            ("socket", 0x1_0000_0002, EPERM),
            ("socket", 38, EPERM),
            ("socket", 40, EPERM),
            ("socket", 46, EPERM),
            ("file_getattr", 0, ALLOWED),
            ("mseal", 0, ALLOWED),
            ("arch_prctl", 0, ALLOWED),
        ],
    );
}

#[test]
fn capabilities_open_what_belongs_to_them() {
    check(
        &["CAP_SYS_ADMIN"],
        &[
            ("clone", 0x1000_0000, ALLOWED),
            ("clone3", 0, ALLOWED),
            ("mount", 0, ALLOWED),
            ("unshare", 0, ALLOWED),
            ("open_tree_attr", 0, ALLOWED),
            ("chroot", 0, EPERM),
            ("io_uring_setup", 0, EPERM),
            ("kexec_load", 0, EPERM),
        ],
    );
    for (capability, name) in [
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYS_MODULE", "finit_module"),
        ("CAP_SYS_PACCT", "acct"),
        ("CAP_SYS_PTRACE", "pidfd_getfd"),
        ("CAP_SYS_RAWIO", "iopl"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYS_TTY_CONFIG", "vhangup"),
        ("CAP_SYS_NICE", "mbind"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
    ] {
        check(&[], &[(name, 0, EPERM)]);
        check(&[capability], &[(name, 0, ALLOWED)]);
    }
}

#[test]
fn old_kernels_do_not_get_ptrace() {
    let filter = default_profile().resolve_for(Arch::X86_64, &[], (4, 7)).unwrap();
    let program = filter.compile().unwrap();
    assert_eq!(verdict(&program, Arch::X86_64, "ptrace", 0), EPERM);
}

#[test]
fn sub_architectures_and_newer_calls() {
    let program = filter(Arch::X86_64, &DEFAULT_CAPABILITIES).compile().unwrap();
    for arch in [Arch::X86, Arch::X32] {
        assert_eq!(verdict(&program, arch, "write", 0), ALLOWED, "{arch:?}");
        assert_eq!(verdict(&program, arch, "mount", 0), EPERM, "{arch:?}");
    }
    assert_eq!(verdict(&program, Arch::X86, "clock_gettime64", 0), ALLOWED);
    assert_eq!(verdict(&program, Arch::X86, "socketcall", 1), ALLOWED);
    for number in [470, 471, 500, 0x3fff_ffff, u32::MAX] {
        let call = Call { arch: Arch::X86_64.audit_value(), number, args: [0; 6] };
        assert_eq!(run(&program, &call).0, ENOSYS, "{number}");
    }
    let program = filter(Arch::Aarch64, &DEFAULT_CAPABILITIES).compile().unwrap();
    assert_eq!(verdict(&program, Arch::Aarch64, "openat", 0), ALLOWED);
    assert_eq!(verdict(&program, Arch::Aarch64, "mount", 0), EPERM);
    assert_eq!(verdict(&program, Arch::Arm, "cacheflush", 0), ALLOWED);
    let foreign = Call { arch: Arch::X86_64.audit_value(), number: 0, args: [0; 6] };
    assert_eq!(run(&program, &foreign).0, Action::KillProcess.to_return_value());
}

/// A frequent call costs few instructions, and the whole fits the kernel's limit with room.
#[test]
fn the_program_is_short_and_flat() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let program = filter(arch, &DEFAULT_CAPABILITIES).compile().unwrap();
        let length = program.instructions().len();
        assert!(length < 1500, "{arch:?}: {length} instructions");
        let longest = arch
            .syscalls()
            .into_iter()
            .filter(|(name, _)| !matches!(*name, "socket" | "personality" | "clone"))
            .map(|(_, number)| run(&program, &Call { arch: arch.audit_value(), number, args: [0; 6] }).1)
            .max();
        assert!(longest < Some(20), "{arch:?}: {longest:?} instructions for a call");
    }
}

#[test]
fn every_name_exists_somewhere_or_is_known_to_be_foreign() {
    const FOREIGN: [&str; 4] = ["riscv_hwprobe", "fstatat64", "utimensat_time64", "umount"];
    let arches = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];
    for rule in default_profile().syscalls {
        for name in rule.names {
            let exists = arches.iter().any(|arch| arch.syscall_number(&name).is_some());
            assert!(exists || FOREIGN.contains(&name.as_str()), "{name}");
        }
    }
}
