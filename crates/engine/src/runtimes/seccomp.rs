//! A seccomp profile as `linux.seccomp` of the specification, for runtimes that do not take a compiled program: what `berth_seccomp` finds to count
//! for this container's capabilities, architecture and kernel.

use berth_oci::runtime::LinuxSeccomp;
use berth_seccomp::Profile;

use crate::error::{Doing as _, EngineError, Result};

pub(crate) fn document(profile: &Profile, capabilities: &[&str], kernel: (u32, u32)) -> Result<LinuxSeccomp> {
    let fitted = profile.fitted(capabilities, kernel).doing(|| "cannot use the seccomp profile".to_owned())?;
    let wrong = |error: serde_json::Error| {
        EngineError::invalid(format!("the seccomp profile cannot be given to another runtime: {error}"))
    };
    serde_json::to_value(fitted).and_then(serde_json::from_value).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use berth_oci::runtime::Arch;
    use berth_types::ErrorClass;

    use super::*;

    fn names(capabilities: &[&str]) -> Vec<String> {
        let document = document(&berth_seccomp::default_profile(), capabilities, (6, 1)).unwrap();
        document.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn conditions_are_taken_out() {
        let plain = names(&[]);
        assert!(plain.iter().any(|name| name == "read"));
        assert!(!plain.iter().any(|name| name == "mount"));
        assert!(names(&["SYS_ADMIN"]).iter().any(|name| name == "mount"));
    }

    /// Everything of a profile reaches the other runtime.
    #[test]
    fn nothing_is_lost() {
        let json = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"flags":["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath":"/run/agent","listenerMetadata":"m","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64"],
            "syscalls":[{"name":"personality","action":"SCMP_ACT_ERRNO","errnoRet":7,
                "args":[{"index":0,"value":8,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#;
        let document = document(&Profile::parse(json).unwrap(), &[], (6, 1)).unwrap();
        let value = serde_json::to_value(&document).unwrap();
        let expected = serde_json::json!([{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7,
            "args": [{"index": 0, "value": 8, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}]);
        assert_eq!(value["syscalls"], expected);
        assert_eq!(
            (&value["defaultErrnoRet"], &value["listenerPath"], &value["listenerMetadata"], &value["flags"]),
            (&38.into(), &"/run/agent".into(), &"m".into(), &serde_json::json!(["SECCOMP_FILTER_FLAG_LOG"]))
        );
        let architectures = document.architectures().clone().unwrap();
        assert!(architectures.contains(&Arch::ScmpArchX86_64) && architectures.contains(&Arch::ScmpArchAarch64));
    }

    /// What our own runtime refuses is not handed to another one.
    #[test]
    fn what_is_wrong_is_refused() {
        for json in [
            r#"{"defaultAction":"SCMP_ACT_SHRUG"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"new"}}]}"#,
        ] {
            let error = document(&Profile::parse(json.as_bytes()).unwrap(), &[], (6, 1)).unwrap_err();
            assert_eq!(error.class, ErrorClass::InvalidArgument, "{json}");
        }
    }
}
