//! A group that is a scope of systemd: making it, changing it, ending it.

use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;

use crate::controller::Controller;
use crate::dbus::{DbusError, Value};
use crate::error::CgroupError;
use crate::file;
use crate::group::{Cgroup, HomeDirectory};
use crate::layout::{Layout, Version};
use crate::plan::{Missing, Setting, Value as Wanted};

use super::Instance;
use super::kernel_log::KernelLog;
use super::manager::{Manager, NO_SUCH_UNIT, UNIT_EXISTS};
use super::property::{Host, Property, split};
use super::unit_name::{UnitName, reference};

/// The kernel's, and systemd's, period of a quota.
const PERIOD_DEFAULT_US: u64 = 100_000;

/// What a new scope needs.
#[derive(Debug)]
pub struct ScopeRequest<'a> {
    pub instance: &'a Instance,
    pub name: &'a UnitName,
    /// Shown by `systemctl status`.
    pub description: &'a str,
    /// A process to put in: a scope lives as long as it has one.
    pub pid: Pid,
    pub settings: &'a [Setting],
    /// For everything asked of systemd together.
    pub timeout: Duration,
}

/// The unit behind a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) name: String,
    pub(crate) instance: Instance,
}

/// For what is asked of systemd about a group that is there.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Cgroup {
    /// Makes a group as a transient scope, with all limits in the one message that starts it; what systemd has no property for is
    /// written afterwards. On failure nothing is left.
    ///
    /// # Errors
    /// `Unavailable` where no systemd answers, `DeadlineExceeded` when it does not finish, `AlreadyExists` for a scope that runs; the
    /// plan's and the files' as for a group of the other driver.
    pub fn start_scope(layout: &Layout, request: &ScopeRequest<'_>) -> Result<Self, CgroupError> {
        let unit = Unit { name: request.name.scope.clone(), instance: request.instance.clone() };
        let fail = |source| unit.error("reach", source);
        let mut manager = Manager::connect(request.instance, request.timeout).map_err(fail)?;
        let is_v2 = layout.version == Version::V2;
        let (version, drivers) = (manager.version().map_err(fail)?, drivers());
        let host = Host { version, is_v2, period_us: PERIOD_DEFAULT_US, block_node: &block_node, drivers: &drivers };
        let split = split(request.settings, &host)?;
        let log = KernelLog::open();
        let mut properties = basics(request, is_v2);
        properties.extend(split.properties);
        start(&mut manager, &unit.name, &properties)?;
        let made = manager.control_group(&unit.name).and_then(|path| {
            // The directories systemd made are taken as they are; on v1 those of the controllers it does not manage are added.
            let mut group = Self::create(layout, &path)?;
            (group.path, group.unit, group.log) = (reference(&path), Some(unit.clone()), log);
            group.check_owned(&split.owned)?;
            group.apply_files(split.direct.iter().copied())?;
            Ok(group)
        });
        if made.is_err() {
            // The first error is the one to tell.
            let _undone = manager.stop(&unit.name);
        }
        made
    }

    /// Carries out a plan through systemd.
    pub(crate) fn apply_to_unit(&self, unit: &Unit, settings: &[Setting]) -> Result<(), CgroupError> {
        let mut manager = Manager::connect(&unit.instance, TIMEOUT).map_err(|source| unit.error("reach", source))?;
        let version = manager.version().map_err(|source| unit.error("reach", source))?;
        let is_v2 = self.unified().is_some_and(|unified| unified.alone);
        let drivers = drivers();
        let period_us = self.period_us();
        let host = Host { version, is_v2, period_us, block_node: &block_node, drivers: &drivers };
        let split = split(settings, &host)?;
        self.check_usage(&split.owned)?;
        self.check_owned(&split.owned)?;
        if !split.properties.is_empty() {
            manager.set(&unit.name, &split.properties)?;
        }
        self.apply_files(split.direct.iter().copied())
    }

    /// Names of the scopes in a slice of the machine's systemd, without `.scope`; none when there is no such slice.
    pub fn scopes(layout: &Layout, slice: &str) -> Vec<String> {
        let Ok(name) = UnitName::parse(&format!("{slice}::x"), &Instance::System) else { return Vec::new() };
        let path = name.control_group();
        let Some(parent) = path.strip_suffix("/x.scope").filter(|parent| !parent.is_empty()) else { return Vec::new() };
        let children = Self::open(layout, parent).and_then(|group| group.child_names());
        let scope = |child: &String| child.strip_suffix(".scope").map(str::to_owned);
        children.unwrap_or_default().iter().filter_map(scope).collect()
    }

    /// Whether systemd manages the group.
    pub fn is_scope(&self) -> bool {
        self.unit.is_some()
    }

    /// systemd takes a property in silence that the kernel has no file for; a limit that cannot be enforced is an error here too.
    fn check_owned(&self, owned: &[&Setting]) -> Result<(), CgroupError> {
        owned.iter().filter(|setting| setting.controller != Controller::Devices).try_for_each(|setting| {
            let Some(home) = self.home(setting.controller) else { return Ok(()) };
            let has = |file: &str| home.directory().exists(file);
            match &setting.missing {
                Missing::Instead(other) if has(&setting.file) || has(&other.file) => Ok(()),
                Missing::Fail(_) | Missing::Skip if has(&setting.file) => Ok(()),
                Missing::Skip => Ok(()),
                Missing::Fail(way_out) => Err(no_file(setting, home, way_out)),
                Missing::Instead(other) => match &other.missing {
                    Missing::Fail(way_out) => Err(no_file(setting, home, way_out)),
                    _ => Ok(()),
                },
            }
        })
    }

    fn check_usage(&self, owned: &[&Setting]) -> Result<(), CgroupError> {
        owned.iter().try_for_each(|setting| match (&setting.value, self.home(setting.controller)) {
            (Wanted::AboveUsage(bytes), Some(home)) => home.above_usage(*bytes),
            _ => Ok(()),
        })
    }

    fn period_us(&self) -> u64 {
        let read = |home: HomeDirectory<'_>| match home {
            HomeDirectory::V1(directory) => directory.read_number("cpu.cfs_period_us").ok(),
            HomeDirectory::V2(unified) => {
                unified.directory.read("cpu.max").ok()?.split_whitespace().nth(1)?.parse().ok()
            }
        };
        self.home(Controller::Cpu).and_then(read).unwrap_or(PERIOD_DEFAULT_US)
    }
}

impl Unit {
    /// The unit of a control group: its last name.
    pub(crate) fn of_control_group(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        Self { name, instance: Instance::of_control_group(path) }
    }

    pub(crate) fn error(&self, what: &'static str, source: DbusError) -> CgroupError {
        CgroupError::Systemd { what, unit: self.name.clone(), source }
    }

    /// Ends the scope; one that is gone is fine.
    pub(crate) fn stop(&self, timeout: Duration) -> Result<(), CgroupError> {
        let mut manager = Manager::connect(&self.instance, timeout).map_err(|source| self.error("reach", source))?;
        manager.stop(&self.name)
    }

    /// Asks systemd to move a process into the scope.
    pub(crate) fn attach(&self, pid: u32) -> Result<(), CgroupError> {
        Manager::connect(&self.instance, TIMEOUT)
            .and_then(|mut manager| manager.attach(&self.name, pid))
            .map_err(|source| self.error("move a process into", source))
    }
}

/// A scope of that name that failed earlier is forgotten, and the start tried once more.
fn start(manager: &mut Manager, name: &str, properties: &[Property]) -> Result<(), CgroupError> {
    match manager.start(name, properties) {
        Err(CgroupError::Systemd { source, .. }) if source.is(UNIT_EXISTS) => {
            match manager.reset_failed(name) {
                Err(error) if !error.is(NO_SUCH_UNIT) => {
                    return Err(CgroupError::Systemd { what: "start", unit: name.to_owned(), source: error });
                }
                _ => {}
            }
            manager.start(name, properties)
        }
        other => other,
    }
}

/// What every scope of ours has.
fn basics(request: &ScopeRequest<'_>, is_v2: bool) -> Vec<Property> {
    let pid = request.pid.as_raw_nonzero().get().unsigned_abs();
    let io_accounting = if is_v2 { "IOAccounting" } else { "BlockIOAccounting" };
    let mut properties = vec![
        ("Description", Value::Text(request.description.to_owned())),
        ("Slice", Value::Text(request.name.slice.clone())),
        ("PIDs", Value::U32List(vec![pid])),
        // What is below the scope, and its processes, is ours.
        ("Delegate", Value::Bool(true)),
        ("DefaultDependencies", Value::Bool(false)),
        // A scope that failed must not keep its name.
        ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
    ];
    properties.extend(
        ["CPUAccounting", "MemoryAccounting", "TasksAccounting", io_accounting].map(|name| (name, Value::Bool(true))),
    );
    properties
}

fn no_file(setting: &Setting, home: HomeDirectory<'_>, way_out: &str) -> CgroupError {
    let file = home.directory().file(&setting.file);
    CgroupError::NoFile { limit: setting.limit, file, way_out: way_out.to_owned() }
}

fn drivers() -> String {
    file::read_path(Path::new("/proc/devices")).unwrap_or_default()
}

/// `/dev/sda` of `8:0`, by sysfs: links such as `/dev/block/8:0` need an udev.
fn block_node(major: u32, minor: u32) -> Option<String> {
    let uevent = file::read_path(Path::new(&format!("/sys/dev/block/{major}:{minor}/uevent"))).ok()?;
    uevent.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(|name| format!("/dev/{name}"))
}
