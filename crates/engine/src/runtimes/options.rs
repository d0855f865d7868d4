//! Options for a shim's start as the messages shims expect: `containerd.runc.v1.Options` for runc's, by Docker's names for them, and
//! `runtimeoptions.v1.Options` for the rest (Kata, gVisor).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{EngineError, Result};

const RUNC: &str = "containerd.runc.v1.Options";
/// Name, number, and whether it is text.
const RUNC_FIELDS: [(&str, u8, bool); 10] = [
    ("NoPivotRoot", 1, false),
    ("NoNewKeyring", 2, false),
    ("ShimCgroup", 3, true),
    ("IoUid", 4, false),
    ("IoGid", 5, false),
    ("BinaryName", 6, true),
    ("Root", 7, true),
    ("SystemdCgroup", 9, false),
    ("CriuImagePath", 10, true),
    ("CriuWorkPath", 11, true),
];
const OTHER: &str = "runtimeoptions.v1.Options";
const OTHER_FIELDS: [(&str, u8, bool); 3] = [("TypeUrl", 1, true), ("ConfigPath", 2, true), ("ConfigBody", 3, true)];

/// Type URL and message; `None` without options.
pub(super) fn encode(options: &BTreeMap<String, Value>) -> Result<Option<(String, Vec<u8>)>> {
    if options.is_empty() {
        return Ok(None);
    }
    let knows = |table: &[(&str, u8, bool)]| options.keys().all(|key| table.iter().any(|(name, ..)| name == key));
    let (type_url, table): (_, &[_]) = match () {
        () if knows(&RUNC_FIELDS) => (RUNC, &RUNC_FIELDS),
        () if knows(&OTHER_FIELDS) => (OTHER, &OTHER_FIELDS),
        () => {
            let names: Vec<&str> = options.keys().map(String::as_str).collect();
            return Err(EngineError::invalid(format!("no shim takes the options {} together", names.join(", "))));
        }
    };
    let mut message = Vec::new();
    for (name, number, is_text) in table {
        let Some(value) = options.get(*name) else { continue };
        let wrong = || EngineError::invalid(format!("runtime option {name} cannot be {value}"));
        match value {
            Value::String(text) if *is_text => {
                message.push(number << 3 | 2);
                varint(&mut message, u64::try_from(text.len()).unwrap_or_default());
                message.extend_from_slice(text.as_bytes());
            }
            Value::Bool(flag) if !is_text => message.extend_from_slice(&[number << 3, u8::from(*flag)]),
            Value::Number(count) if !is_text => {
                message.push(number << 3);
                varint(&mut message, count.as_u64().ok_or_else(wrong)?);
            }
            _ => return Err(wrong()),
        }
    }
    Ok(Some((type_url.to_owned(), message)))
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    into.push(u8::try_from(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_both_kinds() {
        let encoded = |json: &str| encode(&serde_json::from_str(json).unwrap());
        assert_eq!(encoded("{}").unwrap(), None);
        let (kind, runc) = encoded(r#"{"BinaryName":"crun","SystemdCgroup":true,"IoUid":300}"#).unwrap().unwrap();
        assert_eq!((kind.as_str(), runc), (RUNC, b"\x20\xac\x02\x32\x04crun\x48\x01".to_vec()));
        let (kind, other) = encoded(r#"{"TypeUrl":"t","ConfigPath":"/c"}"#).unwrap().unwrap();
        assert_eq!((kind.as_str(), other), (OTHER, b"\x0a\x01t\x12\x02/c".to_vec()));
        assert!(encoded(r#"{"BinaryName":true}"#).is_err());
        assert!(encoded(r#"{"BinaryName":"x","ConfigPath":"y"}"#).is_err());
    }
}
