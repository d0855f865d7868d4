//! Ids are types: a string becomes an id at the edge, once, and is a safe file name from then on.

use std::fmt;
use std::str::FromStr;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdError {
    #[error("{kind} id {text:?} is not valid: 1 to 128 characters of [a-zA-Z0-9_.-], the first alphanumeric")]
    Invalid { kind: &'static str, text: String },
    #[error("invalid container ID format: {text:?} is not 1 to 128 characters of [a-zA-Z0-9_+.-] without a dot first")]
    InvalidForRuntime { text: String },
}

impl crate::Classify for IdError {
    fn class(&self) -> crate::ErrorClass {
        crate::ErrorClass::InvalidArgument
    }
}

fn check(kind: &'static str, text: &str) -> Result<(), IdError> {
    let bytes = text.as_bytes();
    let first_is_alphanumeric = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
    let rest_is_legal = bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first_is_alphanumeric && rest_is_legal && bytes.len() <= 128 {
        return Ok(());
    }
    Err(IdError::Invalid { kind, text: text.chars().take(140).collect() })
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 characters, as people see ids.
            pub fn short(&self) -> &str {
                self.0.get(..12).unwrap_or(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check($kind, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                check($kind, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id_type!(
    /// A container's id: 64 hex digits from the Docker face, any legal name from others.
    ContainerId, "container"
);
id_type!(
    /// The id of a process added to a running task.
    ExecId, "exec"
);

impl ContainerId {
    /// As OCI runtimes take ids from their callers: what runc takes (`[a-zA-Z0-9_+.-]`, any of them first), but for a leading dot,
    /// which is a runtime's own file beside its containers.
    ///
    /// # Errors
    /// For what would be no safe file name.
    pub fn of_runtime(text: &str) -> Result<Self, IdError> {
        let is_legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'.' | b'-');
        if !text.is_empty() && text.len() <= 128 && !text.starts_with('.') && text.bytes().all(is_legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(IdError::InvalidForRuntime { text: text.chars().take(140).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_file_names() {
        assert!("a1-b_c.d".parse::<ContainerId>().is_ok());
        for bad in ["", ".", "..", "-a", "a/b", "a b", "a\n", &"x".repeat(129)] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad:?}");
            assert!(bad == "-a" || ContainerId::of_runtime(bad).is_err(), "{bad:?}");
        }
        for good in ["_a", "a+b", "-a", "+", "a1-b_c.d"] {
            assert_eq!(ContainerId::of_runtime(good).unwrap().as_str(), good);
        }
    }
}
