//! Profiles as Docker, Podman and the OCI runtime specification write them in JSON.
//!
//! As tolerant as Docker: unknown fields are passed over, `null` is "not there", unknown system calls are no error (they are of other
//! architectures or newer kernels). Unknown actions, comparisons and flags are errors, for a filter must not mean less than it says.
//!
//! # Spec
//! runtime-spec config-linux, "Seccomp"; Docker's additions are `archMap`, `includes`, `excludes`, `name` and `minKernel`.

mod resolve;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Deserializer, Serialize};

use crate::arch::Arch;
use crate::error::SeccompError;
use crate::filter::Filter;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    pub default_action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub architectures: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub arch_map: Vec<ArchMap>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub flags: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub listener_path: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub listener_metadata: String,
    #[serde(deserialize_with = "null_is_default")]
    pub syscalls: Vec<SyscallRule>,
}

/// Which sub-architectures come along with a native one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArchMap {
    #[serde(deserialize_with = "null_is_default")]
    pub architecture: String,
    #[serde(deserialize_with = "null_is_default")]
    pub sub_architectures: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyscallRule {
    /// Docker's old form, one name for each rule.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub names: Vec<String>,
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub args: Vec<ProfileArg>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub comment: String,
    #[serde(skip_serializing_if = "Condition::is_empty", deserialize_with = "null_is_default")]
    pub includes: Condition,
    #[serde(skip_serializing_if = "Condition::is_empty", deserialize_with = "null_is_default")]
    pub excludes: Condition,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProfileArg {
    pub index: u32,
    pub value: u64,
    #[serde(deserialize_with = "null_is_default")]
    pub value_two: u64,
    pub op: String,
}

/// When a rule counts (all of them), or does not (any of them).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub arches: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub caps: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_kernel: Option<String>,
}

impl Condition {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Go writes empty lists and maps as `null`.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Profile {
    /// # Errors
    /// `InvalidArgument` when it is not JSON of this form.
    pub fn parse(json: &[u8]) -> Result<Self, SeccompError> {
        serde_json::from_slice(json).map_err(|source| SeccompError::Json { source })
    }

    /// Fits the profile to the native architecture, the container's bounding capabilities (`CAP_SYS_ADMIN`) and the kernel
    /// (major, minor).
    ///
    /// # Errors
    /// `InvalidArgument` for names we do not know and contradictions.
    pub fn resolve(&self, capabilities: &[&str], kernel: (u32, u32)) -> Result<Filter, SeccompError> {
        self.resolve_for(Arch::native()?, capabilities, kernel)
    }

    /// The same for another architecture.
    ///
    /// # Errors
    /// As for [`Profile::resolve`].
    pub fn resolve_for(&self, native: Arch, capabilities: &[&str], kernel: (u32, u32)) -> Result<Filter, SeccompError> {
        resolve::resolve(self, native, capabilities, kernel)
    }

    /// What [`Profile::resolve`] finds, as a profile again: without conditions, as the runtime specification has it.
    ///
    /// # Errors
    /// As for [`Profile::resolve`].
    pub fn fitted(&self, capabilities: &[&str], kernel: (u32, u32)) -> Result<Self, SeccompError> {
        resolve::fit(self, Arch::native()?, capabilities, kernel).map(|(fitted, _)| fitted)
    }
}
