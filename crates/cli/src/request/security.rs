//! `--security-opt`: a seccomp profile is read here and sent as JSON, as Docker's client does; the rest passes through checked.

use std::io::Read;

use serde_json::Value;

use crate::failure::{Failure, Outcome};

const PROFILE_BYTES_MAX: u64 = 4 << 20;

/// What the options come to: the list for the daemon, and whether system paths are left unmasked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) options: Vec<String>,
    pub(super) is_systempaths_unconfined: bool,
}

pub(super) fn parse_security(given: &[String]) -> Outcome<Security> {
    let mut security = Security::default();
    for text in given {
        // Docker takes both separators; the colon is the older one.
        let (key, value) = match text.find(['=', ':']) {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text.as_str(), None),
        };
        match (key, value) {
            ("systempaths", Some("unconfined")) => security.is_systempaths_unconfined = true,
            ("no-new-privileges", None) => security.options.push("no-new-privileges".to_owned()),
            ("no-new-privileges", Some(value @ ("true" | "false"))) => {
                security.options.push(format!("no-new-privileges={value}"));
            }
            ("seccomp", Some(value @ ("unconfined" | "builtin"))) => security.options.push(format!("seccomp={value}")),
            ("seccomp", Some(path)) => security.options.push(format!("seccomp={}", read_profile(path)?)),
            ("apparmor" | "label", Some(value)) => security.options.push(format!("{key}={value}")),
            _ => {
                return Err(Failure::new(format!("invalid --security-opt {text:?}")).hint(
                    "there are seccomp=FILE|unconfined|builtin, no-new-privileges[=true|false], systempaths=unconfined, \
                     apparmor=PROFILE and label=...",
                ));
            }
        }
    }
    Ok(security)
}

/// The profile on one line; it must at least be a JSON object.
fn read_profile(path: &str) -> Outcome<String> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot read seccomp profile {path:?}")).because(&error);
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(PROFILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > PROFILE_BYTES_MAX {
        return Err(Failure::new(format!("seccomp profile {path:?} is longer than {PROFILE_BYTES_MAX} bytes")));
    }
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(profile @ Value::Object(_)) => Ok(profile.to_string()),
        Ok(_) => Err(Failure::new(format!("seccomp profile {path:?} is not a JSON object"))),
        Err(error) => Err(Failure::new(format!("seccomp profile {path:?} is not valid JSON")).because(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Outcome<Security> {
        parse_security(&[text.to_owned()])
    }

    #[test]
    fn options() {
        assert!(parse("systempaths=unconfined").unwrap().is_systempaths_unconfined);
        assert_eq!(parse("no-new-privileges").unwrap().options, ["no-new-privileges"]);
        assert_eq!(parse("no-new-privileges:true").unwrap().options, ["no-new-privileges=true"]);
        assert_eq!(parse("seccomp=unconfined").unwrap().options, ["seccomp=unconfined"]);
        for bad in ["nope", "systempaths=x", "no-new-privileges=maybe", "seccomp"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn profiles() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        std::fs::write(file.path(), "{\n \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}").unwrap();
        let options = parse(&format!("seccomp={path}")).unwrap().options;
        assert_eq!(options, ["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]);
        std::fs::write(file.path(), "{").unwrap();
        let failure = parse(&format!("seccomp={path}")).unwrap_err();
        assert_eq!(failure.message, format!("seccomp profile {path:?} is not valid JSON"));
        let failure = parse("seccomp=/nonexistent.json").unwrap_err();
        assert_eq!(failure.message, "cannot read seccomp profile \"/nonexistent.json\"");
    }
}
