//! Names of tenants and objects: what containerd takes, and nothing else.

use std::fmt;
use std::str::FromStr;

use super::{ObjectError, Result};

const IDENTIFIER_BYTES_MAX: usize = 76;
const IDENTIFIER_RULE: &str =
    "1 to 76 characters: letters and digits, with single '.', '_' or '-' between them (and only between)";

/// A namespace of the API: whose objects these are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(String);

impl Tenant {
    /// The one that Docker's API shows.
    pub fn docker() -> Self {
        Self("default".to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_docker(&self) -> bool {
        self.0 == "default"
    }
}

impl FromStr for Tenant {
    type Err = ObjectError;
    fn from_str(text: &str) -> Result<Self> {
        check_identifier("namespace", text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// # Errors
/// `InvalidArgument`.
///
/// # Spec
/// containerd `pkg/identifiers`.
pub fn check_identifier(what: &'static str, text: &str) -> Result<()> {
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    if text.len() <= IDENTIFIER_BYTES_MAX && text.split(['.', '_', '-']).all(is_word) {
        return Ok(());
    }
    Err(ObjectError::invalid(what, text.chars().take(100).collect::<String>(), IDENTIFIER_RULE))
}
