use super::*;
use crate::action::Action;
use crate::filter::{ArgTest, Comparison, Flags};
use berth_types::Classify;

const KERNEL: (u32, u32) = (6, 1);

fn resolve(json: &str, capabilities: &[&str]) -> Result<Filter, SeccompError> {
    Profile::parse(json.as_bytes())?.resolve_for(Arch::X86_64, capabilities, KERNEL)
}

fn refusal(json: &str) -> String {
    let error = resolve(json, &[]).unwrap_err();
    assert_eq!(error.class(), berth_types::ErrorClass::InvalidArgument);
    error.to_string()
}

/// The names of the rules that count.
fn counting(json: &str, capabilities: &[&str]) -> Vec<String> {
    resolve(json, capabilities).unwrap().rules.into_iter().flat_map(|rule| rule.names).collect()
}

#[test]
fn the_oci_form() {
    let filter = resolve(
        r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "defaultErrnoRet": null,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_S390X"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "somethingNew": {"a": 1},
            "syscalls": [
              {"names": ["a", "b"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "args": null},
              {"names": ["c"], "action": "SCMP_ACT_TRACE", "args": [
                 {"index": 5, "value": 18446744073709551615, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"},
                 {"index": 0, "value": 7, "op": "SCMP_CMP_GE"}]},
              {"names": ["d"], "action": "SCMP_ACT_ERRNO"}]}"#,
        &[],
    )
    .unwrap();
    assert_eq!(filter.default_action, Action::KillProcess);
    assert_eq!(filter.arches, [Arch::X86_64, Arch::X32]);
    assert_eq!(filter.flags, Flags { log: true, spec_allow: true, ..Flags::default() });
    assert_eq!(filter.rules[0].names, ["a", "b"]);
    assert_eq!((filter.rules[0].action, filter.rules[2].action), (Action::Errno(38), Action::Errno(1)));
    assert_eq!(filter.rules[1].action, Action::Trace(1));
    assert_eq!(
        filter.rules[1].args,
        [
            ArgTest { index: 5, comparison: Comparison::MaskedEqual { mask: u64::MAX }, value: 3 },
            ArgTest { index: 0, comparison: Comparison::GreaterOrEqual, value: 7 },
        ]
    );
}

#[test]
fn the_docker_form() {
    let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [
          {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
          {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
          {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}],
        "syscalls": [
          {"name": "old", "action": "SCMP_ACT_ALLOW"},
          {"names": ["always"], "action": "SCMP_ACT_ALLOW", "includes": null, "excludes": {}, "comment": "why"},
          {"names": ["admin"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
          {"names": ["both"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
          {"names": ["nobody"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
          {"names": ["intel"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["x86", "amd64"]}},
          {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
          {"names": ["foreign"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["arm64"]}},
          {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.1"}},
          {"names": ["newer"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
          {"names": ["until"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "5.15"}}]}"#;
    let plain = ["old", "always", "nobody", "intel", "foreign", "new"];
    assert_eq!(counting(json, &["CAP_CHOWN"]), plain);
    assert_eq!(counting(json, &["CAP_SYS_ADMIN"]), ["old", "always", "admin", "intel", "foreign", "new"]);
    // Some callers leave the prefix out.
    let all = ["old", "always", "admin", "both", "intel", "foreign", "new"];
    assert_eq!(counting(json, &["sys_admin", "BPF"]), all);
    let profile = Profile::parse(json.as_bytes()).unwrap();
    let arm = profile.resolve_for(Arch::Aarch64, &[], (4, 7)).unwrap();
    assert_eq!(arm.arches, [Arch::Aarch64, Arch::Arm]);
    let names: Vec<String> = arm.rules.into_iter().flat_map(|rule| rule.names).collect();
    assert_eq!(names, ["old", "always", "nobody", "arm", "until"]);
    let again = serde_json::to_vec(&profile).unwrap();
    assert_eq!(Profile::parse(&again).unwrap(), profile);
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let rule = |rule: &str| refusal(&format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#));
    let arg = |arg: &str| rule(&format!(r#"{{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{arg}]}}"#));
    assert_eq!(refusal("{}"), "seccomp action \"\" is not known");
    assert_eq!(refusal("[1]"), "seccomp profile is not valid JSON of the expected form");
    assert_eq!(
        rule(r#"{"names": ["a"], "action": "SCMP_ACT_MAYBE"}"#),
        "seccomp action \"SCMP_ACT_MAYBE\" is not known"
    );
    assert_eq!(
        rule(r#"{"names": ["a"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096}"#),
        "seccomp errno 4096 is above 4095"
    );
    assert_eq!(
        rule(r#"{"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}"#),
        "seccomp profile: use either name or names"
    );
    assert_eq!(
        rule(r#"{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}"#),
        "minimum kernel \"new\" in a seccomp profile is not a version such as 4.8"
    );
    assert_eq!(arg(r#"{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}"#), "seccomp argument index 6 of read is above 5");
    assert_eq!(
        arg(r#"{"index": 0, "value": 0, "op": "SCMP_CMP_ABOUT"}"#),
        "seccomp argument comparison \"SCMP_CMP_ABOUT\" is not known"
    );
    assert_eq!(
        refusal(r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}"#),
        "seccomp filter flag \"SECCOMP_FILTER_FLAG_X\" is not known"
    );
    assert_eq!(
        refusal(r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X"]}"#),
        "seccomp architecture \"SCMP_ARCH_X\" is not known"
    );
    assert_eq!(
        refusal(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}]}"#
        ),
        "seccomp profile: use either architectures or archMap"
    );
}

#[test]
fn an_errno_is_for_actions_that_return_one() {
    for (action, is_refused) in [
        ("SCMP_ACT_ERRNO", false),
        ("SCMP_ACT_TRACE", false),
        ("SCMP_ACT_KILL", true),
        ("SCMP_ACT_KILL_PROCESS", true),
        ("SCMP_ACT_TRAP", true),
        ("SCMP_ACT_ALLOW", true),
        ("SCMP_ACT_LOG", true),
        ("SCMP_ACT_NOTIFY", true),
    ] {
        let json = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["read"], "action": "{action}", "errnoRet": 5}}]}}"#
        );
        let result = Profile::parse(json.as_bytes()).unwrap().resolve_for(Arch::X86_64, &[], (6, 18));
        assert_eq!(result.is_err(), is_refused, "{action}");
        // Not given, or given as nothing, it is no matter.
        let json = json.replace("5}", "null}");
        assert!(Profile::parse(json.as_bytes()).unwrap().resolve_for(Arch::X86_64, &[], (6, 18)).is_ok(), "{action}");
    }
}

/// Property: whatever stands in a profile, it is refused or it compiles to a program whose jumps stay inside and which ends in returns.
#[test]
fn strange_profiles_compile_or_are_refused() {
    let mut seed = 0x243f_6a88_85a3_08d3_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).unwrap() % below
    };
    let actions =
        ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY", "SCMP_ACT_NONE", ""];
    let names = ["read", "write", "socket", "clone", "ipc", "no_such_call", "", "open\u{0}"];
    let ops = ["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_XX"];
    let (mut compiled, mut refused) = (0, 0);
    for _ in 0..500 {
        let rules: Vec<serde_json::Value> = (0..next(8))
            .map(|_| {
                let args: Vec<serde_json::Value> = (0..next(3))
                    .map(|_| serde_json::json!({"index": next(8), "value": u64::MAX >> next(64), "valueTwo": next(9), "op": ops[next(5)]}))
                    .collect();
                let own: Vec<&str> = (0..next(4)).map(|_| names[next(names.len())]).collect();
                serde_json::json!({"names": own, "action": actions[next(actions.len())], "args": args})
            })
            .collect();
        let profile = serde_json::json!({"defaultAction": actions[next(actions.len())], "syscalls": rules});
        let parsed = Profile::parse(profile.to_string().as_bytes()).unwrap();
        let Ok(program) = parsed.resolve_for(Arch::X86_64, &[], (6, 18)).and_then(|filter| filter.compile()) else {
            refused += 1;
            continue;
        };
        compiled += 1;
        let code = program.instructions();
        for (at, instruction) in code.iter().enumerate() {
            let furthest = match instruction.code {
                0x05 => usize::try_from(instruction.operand).unwrap(),
                0x15 | 0x25 | 0x35 => usize::from(instruction.jump_true.max(instruction.jump_false)),
                _ => 0,
            };
            assert!(at + furthest < code.len(), "{profile}");
        }
        assert_eq!(code.last().map(|instruction| instruction.code), Some(0x06), "{profile}");
    }
    assert!(compiled > 20 && refused > 20, "{compiled} compiled, {refused} refused");
}
