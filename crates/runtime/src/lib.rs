//! The OCI runtime: a validated spec becomes a plan (pure), the plan is applied to the kernel.
//!
//! [`plan`] gives the ordered list of steps; [`Container::create`] walks it. Steps of the first part run in the caller, then clone3
//! makes init, which is a closure of the same program, walks the rest and waits. [`Container::start`] lets it go on to exec.
//! [`Container::exec`] is the same walk with another list: namespaces are joined instead of made.
//!
//! Invariants:
//! * No threads and no async runtime. The caller of create, start and exec must be single-threaded: at work, that is; while a
//!   hook is waited for, another thread of its may have its turn ([`Meanwhile`]).
//! * Below the container's root only descriptors are used ([`berth_rootfs::RootDir`]); the host's mount table never changes.
//! * Every step is timed, can be made to fail ([`Fault`]), and what was done before a failure is undone.
//! * Init reports failures as step, object and errno over its socket; it never unwinds and never returns.

mod cgroup_driver;
mod cgroups;
mod channel;
mod container;
mod create;
mod criu;
mod error;
mod exec;
mod features;
mod hooks;
mod id_map;
mod init;
mod labels;
mod lend;
mod meanwhile;
mod memory_policy;
mod namespaces;
mod net_devices;
mod netlink;
mod notify_socket;
mod number_list;
mod options;
mod plan;
mod process;
mod procfs;
mod rdt;
mod record;
mod seal;
mod seccomp;
mod sources;
mod spec_table;
mod start;
mod state;
mod sysctl;
mod trace;
mod user;

pub use berth_cgroup::Instance as SystemdInstance;
pub use berth_rootfs::OverlayRootfs;
pub use cgroup_driver::CgroupDriver;
pub use cgroups::limit_settings;
pub use container::{Container, Process, Saved};
pub use criu::{Checkpoint, CriuOptions, CriuSwitches, RestoreOptions};
pub use error::{ExecFailure, RuntimeError};
pub use features::{Features, features};
pub use meanwhile::{Meanwhile, Wait};
pub use notify_socket::{NotifyDir, NotifySocket};
pub use options::{CreateOptions, ExecTuning, Fault, LayerOwners, Rights, Rootfs, Stdio, Tuning};
pub use plan::{PlannedStep, plan};
pub use seal::sealed_executable;
pub use spec_table::{FIELDS, Field, Support};
pub use start::Starting;
pub use state::{ContainerState, OCI_VERSION, StateDir, Status};
pub use user::{Identity, look_up_user, resolve_user};
