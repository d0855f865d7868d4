//! Names of units: `slice:prefix:name` as runtimes are given it, the scope it means, and where that scope is.

use std::fmt::Write as _;

use super::Instance;
use crate::error::CgroupError;

/// Marks the path of a group that a systemd made.
const REFERENCE: &str = "systemd:";
/// The root slice.
const ROOT: &str = "-.slice";

/// A scope and the slice it lives in, both valid unit names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitName {
    pub(crate) slice: String,
    pub(crate) scope: String,
}

impl UnitName {
    /// From `slice:prefix:name`. An empty slice is the instance's default; an empty prefix leaves the name alone. Characters that
    /// unit names cannot have are escaped as `systemd-escape` does.
    ///
    /// # Errors
    /// `InvalidArgument` for another form, a slice that is none, or a name that is too long.
    pub fn parse(path: &str, instance: &Instance) -> Result<Self, CgroupError> {
        let wrong = |reason| CgroupError::BadPath { path: path.chars().take(80).collect(), reason };
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(wrong("the systemd driver wants slice:prefix:name"));
        };
        if name.is_empty() {
            return Err(wrong("the name of its scope is empty"));
        }
        if name.ends_with(".slice") {
            return Err(wrong("it asks for a slice, but processes live in scopes"));
        }
        let slice = match slice {
            "" => instance.default_slice(),
            "-" => ROOT,
            other => other,
        };
        if !is_slice(slice) {
            return Err(wrong("its slice is not the name of a slice, such as machine.slice or a-b.slice"));
        }
        let name = escape(name);
        let scope =
            if prefix.is_empty() { format!("{name}.scope") } else { format!("{}-{name}.scope", escape(prefix)) };
        if scope.len() > 255 {
            return Err(wrong("the name of its scope is too long"));
        }
        Ok(Self { slice: slice.to_owned(), scope })
    }

    /// The scope's name: `<prefix>-<name>.scope`.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    pub fn slice(&self) -> &str {
        &self.slice
    }

    /// Where the machine's systemd puts the scope: a slice `a-b.slice` is below `a.slice`.
    pub(crate) fn control_group(&self) -> String {
        let mut path = String::new();
        if self.slice != ROOT {
            let stem = self.slice.trim_end_matches(".slice");
            for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
                write!(path, "/{}.slice", &stem[..at]).expect("a String takes everything");
            }
        }
        format!("{path}/{}", self.scope)
    }
}

fn is_slice(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".slice") else { return false };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'.' | b'\\' | b'-' | b'@');
    name == ROOT
        || (!stem.is_empty()
            && name.len() <= 255
            && stem.bytes().all(plain)
            && !stem.starts_with('-')
            && !stem.ends_with('-')
            && !stem.contains("--"))
}

/// What is not allowed in a unit's name becomes `\xNN`. Dashes stay: in scopes they mean nothing.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (byte == b'.' && at > 0);
        if plain {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "\\x{byte:02x}").expect("a String takes everything");
        }
    }
    escaped
}

/// Whether a path names a group of this driver, in either form.
pub(crate) fn is_reference(path: &str) -> bool {
    path.starts_with(REFERENCE) || (!path.starts_with('/') && path.split(':').count() == 3)
}

/// The control group that a reference means. `slice:prefix:name` is one of the machine's systemd.
pub(crate) fn control_group_of(reference: &str) -> Result<String, CgroupError> {
    match reference.strip_prefix(REFERENCE) {
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        _ => Ok(UnitName::parse(reference, &Instance::System)?.control_group()),
    }
}

pub(super) fn reference(control_group: &str) -> String {
    format!("{REFERENCE}{control_group}")
}
