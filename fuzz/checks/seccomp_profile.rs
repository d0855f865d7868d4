//! Seccomp profiles: what compiles is a program the kernel would look at, of the length it takes, and survives its bytes.

use berth_seccomp::{Arch, Profile, Program};

pub(crate) fn check(json: &[u8]) {
    let Ok(profile) = Profile::parse(json) else { return };
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let Ok(filter) = profile.resolve_for(arch, &["CAP_SYS_ADMIN"], (6, 18)) else { continue };
        let Ok(program) = filter.compile() else { continue };
        let code = program.instructions();
        assert!((1..=Program::LENGTH_MAX).contains(&code.len()));
        // Every jump stays inside, and the last instruction returns.
        for (at, instruction) in code.iter().enumerate() {
            let furthest = match instruction.code {
                0x05 => instruction.operand as usize,
                0x15 | 0x25 | 0x35 => usize::from(instruction.jump_true.max(instruction.jump_false)),
                _ => 0,
            };
            assert!(at + furthest < code.len(), "instruction {at} of {}", code.len());
        }
        assert_eq!(code.last().map(|instruction| instruction.code), Some(0x06));
        assert_eq!(Program::from_bytes(&program.to_bytes()).expect("its own bytes"), program);
    }
}
