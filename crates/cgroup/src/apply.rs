//! Writing a plan into a group.

use rustix::io::Errno;

use crate::controller::Controller;
use crate::delegation;
use crate::device::{self, DeviceFilter, DeviceRule};
use crate::error::CgroupError;
use crate::file::{Directory, write_once};
use crate::group::{Cgroup, HomeDirectory, UnifiedMember};
use crate::plan::{Missing, Setting, Value};

/// Our device programs use no helper of the kernel, so the licence is free to be our own.
const LICENSE: &std::ffi::CStr = c"Apache-2.0";

impl Cgroup {
    /// Carries out a plan: through systemd where it manages the group, else to the files in the plan's order. Some files constrain each other (memory and memory plus swap, quota and burst): what the kernel
    /// refuses as invalid is tried once more after the rest, so old and new values may stand in any order.
    ///
    /// # Errors
    /// The limit, the file, the value and what the kernel said. Settings before the failing one stay set.
    pub fn apply(&self, settings: &[Setting]) -> Result<(), CgroupError> {
        match &self.unit {
            Some(unit) => self.apply_to_unit(unit, settings),
            None => self.apply_files(settings),
        }
    }

    /// The cgroupfs applier: every setting to its file.
    pub(crate) fn apply_files<'a>(&self, settings: impl IntoIterator<Item = &'a Setting>) -> Result<(), CgroupError> {
        let mut refused = Vec::new();
        for setting in settings {
            match self.apply_one(setting) {
                Err(CgroupError::Write { source: Errno::INVAL, .. }) => refused.push(setting),
                other => other?,
            }
        }
        refused.into_iter().try_for_each(|setting| self.apply_one(setting))
    }

    fn apply_one(&self, setting: &Setting) -> Result<(), CgroupError> {
        let Some(home) = self.home(setting.controller) else {
            return self.missing(setting, self.path.clone().into());
        };
        match &setting.value {
            Value::Text(text) => self.write(setting, home, text),
            Value::AboveUsage(bytes) => {
                home.above_usage(*bytes)?;
                self.write(setting, home, &bytes.to_string())
            }
            Value::Devices(filter) => match home {
                HomeDirectory::V1(directory) => write_device_rules(directory, filter),
                HomeDirectory::V2(unified) => attach_device_program(unified, filter),
            },
        }
    }

    fn write(&self, setting: &Setting, home: HomeDirectory<'_>, value: &str) -> Result<(), CgroupError> {
        let directory = home.directory();
        let fd = match open_or_enable(setting, home) {
            Ok(Some(fd)) => fd,
            Ok(None) => return self.missing(setting, directory.file(&setting.file)),
            Err(error) => return Err(error),
        };
        write_once(fd, value).map_err(|source| write_error(setting.limit, directory, &setting.file, value, source))
    }

    fn missing(&self, setting: &Setting, file: std::path::PathBuf) -> Result<(), CgroupError> {
        match &setting.missing {
            Missing::Fail(way_out) => {
                Err(CgroupError::NoFile { limit: setting.limit, file, way_out: (*way_out).to_owned() })
            }
            Missing::Instead(other) => self.apply_one(other),
            Missing::Skip => Ok(()),
        }
    }
}

/// The setting's file, open for writing; `None` where the kernel has none, also after its controller was enabled.
fn open_or_enable(setting: &Setting, home: HomeDirectory<'_>) -> Result<Option<std::os::fd::OwnedFd>, CgroupError> {
    let directory = home.directory();
    let fail = |source| CgroupError::Write {
        limit: setting.limit,
        file: directory.file(&setting.file),
        value: String::new(),
        source,
    };
    match (directory.open_write(&setting.file), home) {
        (Ok(fd), _) => Ok(Some(fd)),
        (Err(Errno::NOENT), HomeDirectory::V1(_)) => Ok(None),
        (Err(Errno::NOENT), HomeDirectory::V2(unified)) => {
            if setting.controller == Controller::Core {
                return Ok(None);
            }
            delegation::enable(setting.limit, &unified.mount, setting.controller.v2_name(), directory)?;
            match directory.open_write(&setting.file) {
                Ok(fd) => Ok(Some(fd)),
                Err(Errno::NOENT) => Ok(None),
                Err(source) => Err(fail(source)),
            }
        }
        (Err(source), _) => Err(fail(source)),
    }
}

/// One descriptor for each file, one write for each rule.
fn write_device_rules(directory: &Directory, filter: &DeviceFilter) -> Result<(), CgroupError> {
    const ALLOW: &str = "devices.allow";
    const DENY: &str = "devices.deny";
    let (default, exceptions) = if filter.default_allow { (ALLOW, DENY) } else { (DENY, ALLOW) };
    let fail = |file, value: &str, source| write_error("devices", directory, file, value, source);
    directory.write(default, "a").map_err(|source| fail(default, "a", source))?;
    if filter.exceptions.is_empty() {
        return Ok(());
    }
    let fd = directory.open_write(exceptions).map_err(|source| fail(exceptions, "", source))?;
    filter
        .exceptions
        .iter()
        .map(DeviceRule::to_string)
        .try_for_each(|rule| write_once(&fd, &rule).map_err(|source| fail(exceptions, &rule, source)))
}

/// The new program first, then the old ones go, so there is no moment without one. All must allow while both are there.
fn attach_device_program(unified: &UnifiedMember, filter: &DeviceFilter) -> Result<(), CgroupError> {
    let fail = |source| CgroupError::DeviceProgram { path: unified.directory.path.clone(), source };
    let program = berth_sys::bpf::load_cgroup_device(&device::program(filter), LICENSE).map_err(fail)?;
    let old = berth_sys::bpf::cgroup_device_programs(&unified.directory.fd).map_err(fail)?;
    berth_sys::bpf::attach_cgroup_device(&unified.directory.fd, &program).map_err(fail)?;
    old.iter().try_for_each(|old| berth_sys::bpf::detach_cgroup_device(&unified.directory.fd, old).map_err(fail))
}

fn write_error(limit: &'static str, directory: &Directory, file: &str, value: &str, source: Errno) -> CgroupError {
    CgroupError::Write { limit, file: directory.file(file), value: value.to_owned(), source }
}
