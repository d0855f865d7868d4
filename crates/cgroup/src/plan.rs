//! Resources into settings: pure, so a plan can be printed, compared and tested without root.

mod block_io;
mod cpu;
mod memory;
mod other;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use crate::controller::Controller;
use crate::device::DeviceFilter;
use crate::error::PlanError;
use crate::layout::{Home, Layout};
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
    /// Written after a look at what is in use: refused when that is more than these bytes.
    AboveUsage(u64),
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
            Value::AboveUsage(bytes) => write!(formatter, "{}: {} = {bytes} unless in use", self.limit, self.file),
            Value::Devices(filter) => {
                write!(formatter, "{}: {}", self.limit, if filter.default_allow { "allow all" } else { "deny all" })?;
                filter.exceptions.iter().try_for_each(|rule| write!(formatter, ", but {rule}"))
            }
        }
    }
}

/// The settings that carry out `resources` on a host of this layout, in the order they have to be applied.
///
/// # Errors
/// `FailedPrecondition` for what the host cannot enforce, `InvalidArgument` for values no host could.
pub fn plan(layout: &Layout, resources: &Resources) -> Result<Vec<Setting>, PlanError> {
    let mut draft = Draft { layout, settings: Vec::new() };
    cpu::plan(&mut draft, &resources.cpu)?;
    memory::plan(&mut draft, &resources.memory)?;
    other::pids(&mut draft, resources.pids_limit)?;
    block_io::plan(&mut draft, &resources.block_io)?;
    other::devices(&mut draft, &resources.devices)?;
    other::hugetlb(&mut draft, &resources.hugetlb)?;
    other::net(&mut draft, resources)?;
    other::rdma(&mut draft, &resources.rdma)?;
    // Last, so what is asked for by name overrides what was derived.
    other::unified(&mut draft, &resources.unified)?;
    Ok(draft.settings)
}

/// A plan in the making.
struct Draft<'a> {
    layout: &'a Layout,
    settings: Vec<Setting>,
}

/// Which interface a controller has on this host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interface {
    V1,
    V2,
}

impl Draft<'_> {
    /// The interface of a controller, or an error that says the limit cannot be had.
    fn interface(&self, limit: &'static str, controller: Controller) -> Result<Interface, PlanError> {
        match self.layout.home(controller) {
            Some(Home::V1(_)) => Ok(Interface::V1),
            Some(Home::V2) => Ok(Interface::V2),
            None => Err(PlanError::NoController { limit, controller, way_out: self.way_out(limit, controller) }),
        }
    }

    fn way_out(&self, limit: &str, controller: Controller) -> String {
        let unset = format!("leave {limit} unset");
        match &self.layout.unified {
            Some(unified) if self.layout.hierarchies.is_empty() => format!(
                "enable {name} for {mount} (a delegating parent must write +{name} to its cgroup.subtree_control; \
                 some kernels need cgroup_enable={name} on the command line), or {unset}",
                name = controller.v2_name(),
                mount = unified.mount.display()
            ),
            _ => {
                format!("mount the v1 hierarchy ({name}) below /sys/fs/cgroup, or {unset}", name = controller.v1_name())
            }
        }
    }

    fn text(
        &mut self,
        limit: &'static str,
        controller: Controller,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        advice: &'static str,
    ) {
        self.settings.push(Setting {
            limit,
            controller,
            file: file.into(),
            value: Value::Text(value.to_string()),
            missing: Missing::Fail(advice),
        });
    }
}

fn not_on_v2(limit: &'static str, way_out: &str) -> PlanError {
    PlanError::NotOnVersion { limit, version: "cgroup v2", way_out: way_out.to_owned() }
}

fn bad_value(limit: &'static str, value: impl ToString, reason: impl Into<String>) -> PlanError {
    PlanError::BadValue { limit, value: value.to_string(), reason: reason.into() }
}

/// A limit in the form of v2 files: `-1` and other negatives are `max`.
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}
