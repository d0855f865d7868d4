use std::collections::HashMap;

use super::*;
use crate::interpreter::{Call, run};

const ENOSYS: u32 = 0x0005_0000 | 38;
const KILL: u32 = 0x8000_0000;

fn rule(names: &[&str], action: Action, args: &[ArgTest]) -> Rule {
    Rule { names: names.iter().map(|name| (*name).to_owned()).collect(), action, args: args.to_vec() }
}

fn test(index: u8, comparison: Comparison, value: u64) -> ArgTest {
    ArgTest { index, comparison, value }
}

fn filter(default_action: Action, arches: &[Arch], rules: Vec<Rule>) -> Filter {
    Filter { default_action, arches: arches.to_vec(), rules, flags: Flags::default() }
}

fn verdict(program: &Program, arch: Arch, number: u32, args: [u64; 6]) -> u32 {
    run(program, &Call { arch: arch.audit_value(), number, args }).0
}

fn by_name(program: &Program, arch: Arch, name: &str, args: [u64; 6]) -> u32 {
    verdict(program, arch, arch.syscall_number(name).expect(name), args)
}

/// What the documentation of [`Filter`] says, call by call, without ranges or trees.
fn naive(filter: &Filter, table: &HashMap<&str, u32>, number: u32, args: [u64; 6]) -> Action {
    let holds = |test: &ArgTest| {
        let arg = args[usize::from(test.index)];
        match test.comparison {
            Comparison::Equal => arg == test.value,
            Comparison::NotEqual => arg != test.value,
            Comparison::Less => arg < test.value,
            Comparison::LessOrEqual => arg <= test.value,
            Comparison::Greater => arg > test.value,
            Comparison::GreaterOrEqual => arg >= test.value,
            Comparison::MaskedEqual { mask } => arg & mask == test.value,
        }
    };
    let mut always: Option<Action> = None;
    let mut highest = None;
    for rule in &filter.rules {
        for own in rule.names.iter().filter_map(|name| table.get(name.as_str()).copied()) {
            highest = highest.max(Some(own));
            if own != number {
                continue;
            }
            let twice = rule.args.iter().any(|a| rule.args.iter().filter(|b| a.index == b.index).count() > 1);
            let hit = if twice { rule.args.iter().any(holds) } else { rule.args.iter().all(holds) };
            if rule.args.is_empty() {
                always = Some(always.map_or(rule.action, |other| other.min(rule.action)));
            } else if hit {
                return rule.action;
            }
        }
    }
    let passes = matches!(filter.default_action, Action::Allow | Action::Log | Action::Trace(_));
    match (always, highest) {
        (Some(action), _) => action,
        (None, Some(highest)) if number > highest && !passes => Action::Errno(38),
        _ => filter.default_action,
    }
}

/// A small generator of its own (xorshift), so a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.next(from.len() as u64)).unwrap()]
    }

    /// Values around the borders of both halves.
    fn value(&mut self) -> u64 {
        let high = self.pick(&[0, 0, 1, 2, 0x7fff_ffff, 0xffff_fffe, 0xffff_ffff]);
        let low = self.pick(&[0, 1, 2, 3, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff]);
        high << 32 | low
    }

    fn action(&mut self) -> Action {
        self.pick(&[
            Action::Allow,
            Action::Allow,
            Action::Errno(1),
            Action::Errno(13),
            Action::Log,
            Action::Trap,
            Action::Notify,
            Action::Trace(7),
            Action::KillProcess,
            Action::KillThread,
        ])
    }

    fn test(&mut self) -> ArgTest {
        let comparison = match self.next(7) {
            0 => Comparison::Equal,
            1 => Comparison::NotEqual,
            2 => Comparison::Less,
            3 => Comparison::LessOrEqual,
            4 => Comparison::Greater,
            5 => Comparison::GreaterOrEqual,
            _ => Comparison::MaskedEqual { mask: self.value() },
        };
        let index = u8::try_from(self.next(6)).unwrap();
        test(index, comparison, self.value())
    }
}

/// Property: program and naive evaluation agree on every number, with arguments around every border.
#[test]
fn programs_mean_what_the_rules_say() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..30 {
        let arches = random.pick(&[
            &[Arch::X86_64][..],
            &[Arch::X86_64, Arch::X32],
            &[Arch::X86_64, Arch::X32, Arch::Aarch64],
            &[Arch::Aarch64],
        ]);
        // Names that all three tables share and `socketcall` and `ipc` do not carry.
        let mut names: Vec<&str> = Arch::Aarch64.syscalls().into_keys().collect();
        names.retain(|name| arches.iter().all(|arch| arch.syscall_number(name).is_some()));
        names.sort_unstable();
        let rules = (0..random.next(25))
            .map(|_| {
                let own: Vec<&str> = (0..1 + random.next(6)).map(|_| random.pick(&names)).collect();
                let tests: Vec<ArgTest> = (0..random.next(4)).map(|_| random.test()).collect();
                rule(&own, random.action(), &tests)
            })
            .collect();
        let filter = filter(random.action(), arches, rules);
        let program = filter.compile().unwrap();
        assert_eq!(Program::from_bytes(&program.to_bytes()).unwrap(), program);
        for arch in arches {
            let table = arch.syscalls();
            for number in (0..620).map(|number| number | arch.number_base()) {
                for _ in 0..3 {
                    let args = std::array::from_fn(|_| random.value());
                    let expected = naive(&filter, &table, number, args).to_return_value();
                    let got = verdict(&program, *arch, number, args);
                    assert_eq!(got, expected, "round {round} {arch:?} {number} {args:x?} {filter:?}");
                }
            }
        }
    }
}

/// Differential: the default profile's program and the naive reading of its rules agree on every number there is, and beyond, with
/// arguments around the borders of its tests, for containers without and with capabilities.
#[test]
fn the_default_profile_means_what_its_rules_say() {
    let profile = crate::default::default_profile();
    let mut random = Random(0x6a09_e667_f3bc_c908);
    for capabilities in [&[][..], &["CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_PTRACE", "CAP_SYS_NICE"][..]] {
        for (native, arches) in [(Arch::X86_64, &[Arch::X86_64, Arch::X32][..]), (Arch::Aarch64, &[Arch::Aarch64])] {
            let filter = profile.resolve_for(native, capabilities, (6, 18)).unwrap();
            let program = filter.compile().unwrap();
            for arch in arches {
                let table = arch.syscalls();
                for number in (0..620).map(|number| number | arch.number_base()) {
                    for round in 0..2 {
                        let args = if round == 0 { [0; 6] } else { std::array::from_fn(|_| random.value()) };
                        let expected = naive(&filter, &table, number, args).to_return_value();
                        let got = verdict(&program, *arch, number, args);
                        assert_eq!(got, expected, "{arch:?} {number} {args:x?} {capabilities:?}");
                    }
                }
            }
        }
    }
}

/// Whether an argument (first) passes a test of a value.
type Holds = fn(u64, u64) -> bool;

#[test]
fn every_comparison_at_its_borders() {
    const MASK: u64 = 0x1_0000_0001;
    let values = [0, 1, 0xffff_fffe, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, 0x2_0000_0000, u64::MAX - 1, u64::MAX];
    let comparisons: [(Comparison, Holds); 7] = [
        (Comparison::Equal, |arg, value| arg == value),
        (Comparison::NotEqual, |arg, value| arg != value),
        (Comparison::Less, |arg, value| arg < value),
        (Comparison::LessOrEqual, |arg, value| arg <= value),
        (Comparison::Greater, |arg, value| arg > value),
        (Comparison::GreaterOrEqual, |arg, value| arg >= value),
        (Comparison::MaskedEqual { mask: MASK }, |arg, value| arg & MASK == value),
    ];
    for (round, value) in values.into_iter().enumerate() {
        for (comparison, holds) in comparisons {
            let index = round % 6;
            let tests = [test(u8::try_from(index).unwrap(), comparison, value)];
            let rules = vec![rule(&["read"], Action::Allow, &tests)];
            let program = filter(Action::Errno(1), &[Arch::X86_64], rules).compile().unwrap();
            for arg in values {
                let mut args = [7; 6];
                args[index] = arg;
                let allowed = by_name(&program, Arch::X86_64, "read", args) == Action::Allow.to_return_value();
                assert_eq!(allowed, holds(arg, value), "{comparison:?} {arg:#x} {value:#x} argument {index}");
            }
        }
    }
}

#[test]
fn another_architecture_kills() {
    let program = filter(Action::Allow, &[Arch::X86_64], Vec::new()).compile().unwrap();
    assert_eq!(verdict(&program, Arch::X86_64, 0, [0; 6]), Action::Allow.to_return_value());
    assert_eq!(verdict(&program, Arch::X86, 0, [0; 6]), KILL);
    assert_eq!(verdict(&program, Arch::Aarch64, 0, [0; 6]), KILL);
    // x32 shares the architecture and is told by the number; a tracer's "skip this call" is not x32.
    assert_eq!(verdict(&program, Arch::X86_64, 0x4000_0000, [0; 6]), KILL);
    assert_eq!(verdict(&program, Arch::X86_64, u32::MAX, [0; 6]), Action::Allow.to_return_value());
    let program = filter(Action::Allow, &[Arch::X86_64, Arch::X32], Vec::new()).compile().unwrap();
    assert_eq!(verdict(&program, Arch::X86_64, 0x4000_0000, [0; 6]), Action::Allow.to_return_value());
}

#[test]
fn calls_newer_than_the_rules_do_not_exist() {
    let rules = || vec![rule(&["openat2"], Action::Allow, &[])];
    for (default, newer) in [
        (Action::Errno(1), ENOSYS),
        (Action::KillProcess, ENOSYS),
        (Action::Trap, ENOSYS),
        (Action::Allow, Action::Allow.to_return_value()),
        (Action::Log, Action::Log.to_return_value()),
        (Action::Trace(3), Action::Trace(3).to_return_value()),
    ] {
        let program = filter(default, &[Arch::X86_64, Arch::X86, Arch::X32], rules()).compile().unwrap();
        for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
            let known = arch.syscall_number("openat2").unwrap();
            assert_eq!(verdict(&program, arch, known - 1, [0; 6]), default.to_return_value(), "{arch:?}");
            assert_eq!(verdict(&program, arch, known, [0; 6]), Action::Allow.to_return_value());
            // x32 keeps a few calls from 512 on; they are older than the rule, but above it.
            assert_eq!(verdict(&program, arch, known + 1, [0; 6]), newer, "{arch:?} {default:?}");
        }
        assert_eq!(verdict(&program, Arch::X86_64, u32::MAX, [0; 6]), newer);
    }
    // ARM's private calls do not make everything below them "known".
    let program = filter(Action::Errno(1), &[Arch::Arm], vec![rule(&["openat2", "set_tls"], Action::Allow, &[])])
        .compile()
        .unwrap();
    assert_eq!(verdict(&program, Arch::Arm, 5000, [0; 6]), ENOSYS);
    assert_eq!(by_name(&program, Arch::Arm, "set_tls", [0; 6]), Action::Allow.to_return_value());
    assert_eq!(by_name(&program, Arch::Arm, "cacheflush", [0; 6]), ENOSYS);
}

#[test]
fn one_argument_tested_twice_means_either() {
    let tests = [test(0, Comparison::Equal, 1), test(0, Comparison::Equal, 2), test(1, Comparison::Equal, 9)];
    let program = filter(Action::Errno(1), &[Arch::X86_64], vec![rule(&["personality"], Action::Allow, &tests)])
        .compile()
        .unwrap();
    for (args, allowed) in [([1, 0], true), ([2, 0], true), ([3, 9], true), ([3, 0], false)] {
        let got = by_name(&program, Arch::X86_64, "personality", [args[0], args[1], 0, 0, 0, 0]);
        assert_eq!(got == Action::Allow.to_return_value(), allowed, "{args:?}");
    }
}

#[test]
fn the_old_32_bit_calls_cannot_go_around_a_rule() {
    let rules = vec![rule(&["socket", "shmat"], Action::Errno(13), &[])];
    let program = filter(Action::Allow, &[Arch::X86], rules).compile().unwrap();
    let refused = Action::Errno(13).to_return_value();
    let socketcall = |number| by_name(&program, Arch::X86, "socketcall", [number, 0, 0, 0, 0, 0]);
    assert_eq!((socketcall(1), socketcall(2)), (refused, Action::Allow.to_return_value()));
    let ipc = |number| by_name(&program, Arch::X86, "ipc", [number, 0, 0, 0, 0, 0]);
    assert_eq!((ipc(21), ipc(1 << 16 | 21)), (refused, refused));
    assert_eq!(ipc(22), Action::Allow.to_return_value());
    assert_eq!(by_name(&program, Arch::X86, "socket", [0; 6]), refused);
}

#[test]
fn too_long_a_program_is_refused_before_the_kernel_sees_it() {
    let rules = (0..1000).map(|value| rule(&["read"], Action::Allow, &[test(0, Comparison::Equal, value)])).collect();
    let error = filter(Action::Errno(1), &[Arch::X86_64], rules).compile().unwrap_err();
    assert!(matches!(error, SeccompError::TooLong { limit: 4096, .. }), "{error}");
    for length in [0, 7, 12, 8 * 4097] {
        assert!(matches!(Program::from_bytes(&vec![0; length]), Err(SeccompError::ProgramBytes { .. })), "{length}");
    }
}
