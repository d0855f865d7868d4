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
