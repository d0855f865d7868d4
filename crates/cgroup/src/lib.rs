//! Control groups: v1, v2 and the hybrid layout, by the cgroupfs driver and by systemd.
//!
//! [`Layout`] says what this host has, [`Resources`] what somebody asked for, [`plan`] turns the two into [`Setting`]s
//! without touching the kernel, and [`Cgroup`] applies them and drives the life of one group: attach, freeze, kill,
//! measure, watch, delete. [`Cgroup::start_scope`] makes one that systemd manages; the same settings then go the other way.
//!
//! Invariants:
//! * No threads, no environment, no working directory: every path comes from the layout.
//! * A limit the host cannot enforce is an error that names the limit, the file and a way out. Nothing is skipped silently.
//! * Every wait has a deadline.

mod apply;
mod controller;
mod cpuset;
mod dbus;
mod delegation;
mod device;
mod error;
mod file;
mod freezer;
mod group;
mod group_path;
mod kill;
mod layout;
mod membership;
mod oom;
mod plan;
mod resources;
mod stats;
mod systemd;
mod wait;

pub use controller::Controller;
pub use dbus::DbusError;
pub use device::{Access, DeviceFilter, DeviceKind, DeviceRule};
pub use error::{CgroupError, PlanError};
pub use group::Cgroup;
pub use layout::{Hierarchy, Layout, Unified, Version};
pub use membership::Membership;
pub use plan::{Missing, Setting, Value, plan};
pub use resources::{BlockIo, Cpu, HugetlbLimit, Memory, RdmaLimit, Resources, ThrottleDevice, WeightDevice};
pub use stats::{
    BlockIoEntry, BlockIoStats, CpuStats, HugetlbStats, MemoryEvents, MemoryStats, PidsStats, Pressure, RdmaStats,
    Stall, Stats,
};
pub use systemd::{Instance, KNOBS, Knob, Place, ScopeRequest, UnitName};
