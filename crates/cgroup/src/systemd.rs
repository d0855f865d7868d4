//! The systemd driver: a container's group is a transient scope, and whatever systemd has a property for is set through it.
//!
//! The same [`Setting`]s that the cgroupfs driver writes are split in two: properties, sent in one message, and the rest, which
//! systemd neither knows nor owns (`Delegate=yes`), written to the files. So a `systemctl daemon-reload`, which writes every
//! property anew, changes nothing.
//!
//! A group of this driver is named `slice:prefix:name` when it is asked for, and `systemd:<control group>` once it is there.

mod devices;
mod instance;
mod kernel_log;
mod knobs;
mod manager;
mod property;
mod scope;
#[cfg(test)]
mod tests;
mod unit_name;

pub use instance::Instance;
pub use knobs::{KNOBS, Knob, Place};
pub use scope::ScopeRequest;
pub use unit_name::UnitName;

pub(crate) use kernel_log::KernelLog;
pub(crate) use scope::Unit;
pub(crate) use unit_name::{control_group_of, is_reference};
