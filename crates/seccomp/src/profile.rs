//! Profiles as Docker, Podman and the OCI runtime specification write them in JSON.
//!
//! # Spec
//! runtime-spec config-linux, "Seccomp"; Docker's additions are `archMap`, `includes`, `excludes`, `name` and `minKernel`.

use serde::{Deserialize, Serialize};

use crate::error::SeccompError;
use crate::filter::Filter;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    pub default_action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arch_map: Vec<ArchMap>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listener_path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
    pub syscalls: Vec<SyscallRule>,
}

/// Which sub-architectures come along with a native one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArchMap {
    pub architecture: String,
    pub sub_architectures: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyscallRule {
    /// Docker's old form, one name for each rule.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub names: Vec<String>,
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    pub args: Vec<ProfileArg>,
    pub comment: String,
    pub includes: Condition,
    pub excludes: Condition,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProfileArg {
    pub index: u32,
    pub value: u64,
    pub value_two: u64,
    pub op: String,
}

/// When a rule counts, or does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    pub arches: Vec<String>,
    pub caps: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_kernel: Option<String>,
}

impl Profile {
    /// # Errors
    /// `InvalidArgument` when it is not JSON of this form.
    pub fn parse(json: &[u8]) -> Result<Self, SeccompError> {
        serde_json::from_slice(json).map_err(|source| SeccompError::Json { source })
    }

    /// Fits the profile to the native architecture, the container's bounding capabilities (`CAP_SYS_ADMIN`) and the kernel.
    ///
    /// # Errors
    /// `InvalidArgument` for names we do not know and contradictions.
    pub fn resolve(&self, capabilities: &[&str], kernel: (u32, u32)) -> Result<Filter, SeccompError> {
        let _ = (capabilities, kernel);
        Err(SeccompError::Contradiction { what: "not resolved" })
    }
}
