//! Reading what engines write: `config.json` and the process of an exec, as tolerant as the specification wants it.
//!
//! The types of [`crate::runtime`] refuse what the specification has a runtime warn of (a capability nobody knows), and know some flags
//! by other names than the specification's. The common document is read in one pass; only one that was refused is looked at again.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::runtime::{Process, Spec};

/// A document, and what in it was passed over.
#[derive(Debug)]
pub struct Parsed<T> {
    pub document: T,
    pub warnings: Vec<String>,
}

/// A container's `config.json`.
///
/// # Errors
/// What serde says of a document that is not of the form.
pub fn spec(json: &[u8]) -> Result<Parsed<Spec>, serde_json::Error> {
    parse(json, |value, warnings| {
        check_memory_policy(value.pointer("/linux/memoryPolicy"))?;
        if let Some(process) = value.get_mut("process") {
            mend_process(process, warnings);
        }
        Ok(())
    })
}

/// The process of an exec.
///
/// # Errors
/// As [`spec`].
pub fn process(json: &[u8]) -> Result<Parsed<Process>, serde_json::Error> {
    parse(json, |value, warnings| {
        mend_process(value, warnings);
        Ok(())
    })
}

fn parse<T: DeserializeOwned>(
    json: &[u8],
    mend: impl FnOnce(&mut Value, &mut Vec<String>) -> Result<(), serde_json::Error>,
) -> Result<Parsed<T>, serde_json::Error> {
    let first = match serde_json::from_slice(json) {
        Ok(document) => return Ok(Parsed { document, warnings: Vec::new() }),
        Err(error) => error,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(json) else { return Err(first) };
    let mut warnings = Vec::new();
    mend(&mut value, &mut warnings)?;
    // As text once more: reading the type from a tree would be the same long code a second time. The first error names a line; of a
    // document that cannot be mended it says more.
    let mended = serde_json::to_vec(&value)?;
    serde_json::from_slice(&mended).map(|document| Parsed { document, warnings }).map_err(|_| first)
}

/// Said by name, as runc says it, instead of by the form of the document.
fn check_memory_policy(policy: Option<&Value>) -> Result<(), serde_json::Error> {
    let Some(policy) = policy else { return Ok(()) };
    let wrong = |text: String| Err(serde::de::Error::custom(text));
    let mode = policy.get("mode").unwrap_or(&Value::Null);
    if serde_json::from_value::<crate::runtime::MemoryPolicyModeType>(mode.clone()).is_err() {
        return wrong(format!("invalid memory policy mode {mode}"));
    }
    let flags = policy.get("flags").and_then(Value::as_array).into_iter().flatten();
    for flag in flags {
        if serde_json::from_value::<crate::runtime::MemoryPolicyFlagType>(flag.clone()).is_err() {
            return wrong(format!("invalid memory policy flag {flag}"));
        }
    }
    Ok(())
}

fn mend_process(process: &mut Value, warnings: &mut Vec<String>) {
    // Go leaves numbers that are not there at zero, so other runtimes take such documents.
    if let Some(process) = process.as_object_mut() {
        let user = process.entry("user").or_insert_with(|| json!({}));
        for id in ["uid", "gid"] {
            user.as_object_mut().map(|user| user.entry(id).or_insert_with(|| json!(0)));
        }
    }
    if let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) {
        for set in sets.values_mut() {
            drop_unknown(set, warnings);
        }
    }
    for flag in process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut).into_iter().flatten() {
        let known = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = Value::from(known);
    }
}

/// runtime-spec config, "Linux Process", capabilities: what no kernel interface is for must be warned of, and should not fail.
fn drop_unknown(set: &mut Value, warnings: &mut Vec<String>) {
    let Some(names) = set.as_array_mut() else { return };
    names.retain(|name| {
        let is_known = serde_json::from_value::<crate::runtime::Capability>(name.clone()).is_ok();
        let text = format!("capability {name} is not known and was passed over");
        if !is_known && name.is_string() && !warnings.contains(&text) {
            warnings.push(text);
        }
        is_known || !name.is_string()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(process: &str) -> String {
        format!(r#"{{"ociVersion": "1.3.0", "process": {{"cwd": "/", "user": {{"uid": 0, "gid": 0}}, {process}}}}}"#)
    }

    #[test]
    fn unknown_capabilities_are_warned_of() {
        let text = config(
            r#""capabilities": {"bounding": ["CAP_KILL", "CAP_OF_TOMORROW"], "effective": ["CAP_OF_TOMORROW"]}"#,
        );
        let parsed = spec(text.as_bytes()).unwrap();
        assert_eq!(parsed.warnings, ["capability \"CAP_OF_TOMORROW\" is not known and was passed over"]);
        let process = parsed.document.process().clone().unwrap();
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
        let parsed = spec(config(r#""capabilities": {"bounding": ["CAP_KILL"]}"#).as_bytes()).unwrap();
        assert!(parsed.warnings.is_empty());
    }

    #[test]
    fn scheduler_flags_have_the_names_of_the_specification() {
        let flags = "SCHED_FLAG_RESET_ON_FORK SCHED_FLAG_RECLAIM SCHED_FLAG_DL_OVERRUN SCHED_FLAG_KEEP_POLICY \
                     SCHED_FLAG_KEEP_PARAMS SCHED_FLAG_UTIL_CLAMP_MIN SCHED_FLAG_UTIL_CLAMP_MAX";
        for flag in flags.split_whitespace() {
            let text = config(&format!(r#""scheduler": {{"policy": "SCHED_OTHER", "flags": ["{flag}"]}}"#));
            let parsed = spec(text.as_bytes()).unwrap();
            let process = parsed.document.process().clone().unwrap();
            assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 1, "{flag}");
            assert!(parsed.warnings.is_empty());
        }
    }

    #[test]
    fn a_user_that_is_not_named_is_root() {
        for user in ["", r#", "user": {}"#, r#", "user": {"uid": 0}"#] {
            let parsed = process(format!(r#"{{"cwd": "/"{user}}}"#).as_bytes()).unwrap();
            assert_eq!((parsed.document.user().uid(), parsed.document.user().gid()), (0, 0));
        }
    }

    #[test]
    fn what_cannot_be_mended_says_where() {
        let text = config(r#""rlimits": [{"type": "RLIMIT_DREAMS", "soft": 1, "hard": 1}]"#);
        let error = spec(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("RLIMIT_DREAMS") && error.line() == 1, "{error}");
        assert!(spec(b"{").is_err());
        assert!(process(b"[]").is_err());
    }
}
