//! Intel Resource Director Technology: a container's class of service is a directory of the mounted resctrl file system.
//!
//! ```text
//! <resctrl>/<closID>/               schemata, tasks; ours to remove only when its name is the container's own
//! <resctrl>/<closID>/mon_groups/<container>/    with enableMonitoring
//! ```
//!
//! # Spec
//! runtime-spec config-linux, "IntelRdt"; Documentation/filesystems/resctrl.rst (Linux 4.10, monitoring 4.14).

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};

use berth_oci::runtime::LinuxIntelRdt;

use crate::error::RuntimeError;

const FIELD: &str = "linux.intelRdt";
const SCHEMATA_MAX: usize = 1 << 16;

/// What the spec asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RdtPlan {
    /// `None`: a class of the container's own, named like it. Empty: the default class.
    class: Option<String>,
    /// In the order of writing.
    schemata: Vec<String>,
    is_monitored: bool,
}

/// What was made, for the end of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct RdtGroup {
    class: PathBuf,
    monitor: Option<PathBuf>,
    /// Whether the class is ours to remove.
    is_ours: bool,
}

impl RdtPlan {
    pub(crate) fn new(asked: &LinuxIntelRdt) -> Result<Self, RuntimeError> {
        let wrong = |problem: &str| RuntimeError::Spec { field: FIELD, problem: problem.to_owned() };
        let class = match asked.clos_id().as_deref() {
            None | Some("") => None,
            Some("/") => Some(String::new()),
            Some(name) if is_name(name) => Some(name.to_owned()),
            Some(_) => return Err(wrong("closID is not the name of a class")),
        };
        let bandwidth = asked.mem_bw_schema();
        // Several lines in this one: of before there was memBwSchema, whose place a line of it does not take.
        let cache = asked.l3_cache_schema().iter().flat_map(|schema| schema.lines());
        let cache = cache.filter(|line| bandwidth.is_none() || !line.starts_with("MB:")).map(str::to_owned);
        let others = bandwidth.iter().chain(asked.schemata().iter().flatten()).cloned();
        let schemata: Vec<String> = cache.chain(others).collect();
        if asked.mem_bw_schema().as_ref().is_some_and(|schema| !schema.starts_with("MB:")) {
            return Err(wrong("memBwSchema does not begin with MB:"));
        }
        let length: usize = schemata.iter().map(String::len).sum();
        if length > SCHEMATA_MAX || schemata.iter().any(|line| line.is_empty() || line.contains(['\n', '\0'])) {
            return Err(wrong("a schema is empty, too long or more than one line"));
        }
        let named = [asked.enable_monitoring(), asked.enable_cmt(), asked.enable_mbm()];
        Ok(Self { class, schemata, is_monitored: named.into_iter().flatten().any(|is_on| *is_on) })
    }

    pub(crate) fn text(&self) -> &str {
        self.class.as_deref().unwrap_or("a class of its own")
    }

    /// Makes or finds the class; writes its schemata. What was made is undone on failure.
    ///
    /// # Errors
    /// `AlreadyExists` for a class of the container's name, `NotFound` for a class that should be there, and what the file system says.
    pub(crate) fn create(&self, resctrl: &Path, id: &str) -> Result<RdtGroup, Error> {
        if !is_name(id) {
            return Err(Error::new(ErrorKind::InvalidInput, "the container's id is no name for a class"));
        }
        let class = resctrl.join(self.class.as_deref().unwrap_or(id));
        let mut group = RdtGroup { class: class.clone(), monitor: None, is_ours: self.class.is_none() };
        let made = match (&self.class, self.schemata.is_empty()) {
            (None, _) => std::fs::create_dir(&class).map(|()| true)?,
            (Some(_), true) => class.is_dir().then_some(false).ok_or(ErrorKind::NotFound)?,
            (Some(_), false) => match std::fs::create_dir(&class) {
                Ok(()) => true,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error),
            },
        };
        let result = self.fill(&class, made, id, &mut group);
        if result.is_err() {
            group.is_ours = made;
            let _first_error_counts = group.remove();
        }
        result.map(|()| group)
    }

    fn fill(&self, class: &Path, made: bool, id: &str, group: &mut RdtGroup) -> Result<(), Error> {
        if made {
            for line in &self.schemata {
                // One line a write: the kernel says of each whether it takes it.
                OpenOptions::new()
                    .write(true)
                    .open(class.join("schemata"))?
                    .write_all(format!("{line}\n").as_bytes())?;
            }
        } else if !self.schemata.is_empty() {
            let present = std::fs::read_to_string(class.join("schemata"))?;
            if let Some(line) = self.schemata.iter().find(|line| !has_schema(&present, line)) {
                let text = format!("the class is there with another schemata than {line:?}");
                return Err(Error::new(ErrorKind::AlreadyExists, text));
            }
        }
        if self.is_monitored {
            let monitor = class.join("mon_groups").join(id);
            std::fs::create_dir(&monitor)?;
            group.monitor = Some(monitor);
        }
        Ok(())
    }
}

impl RdtGroup {
    /// Puts a process in.
    pub(crate) fn add(&self, pid: u32) -> Result<(), Error> {
        for directory in std::iter::once(&self.class).chain(&self.monitor) {
            OpenOptions::new().write(true).open(directory.join("tasks"))?.write_all(pid.to_string().as_bytes())?;
        }
        Ok(())
    }

    pub(crate) fn remove(&self) -> Result<(), Error> {
        let class = self.is_ours.then_some(&self.class);
        let mut first = Ok(());
        for directory in self.monitor.iter().chain(class) {
            match std::fs::remove_dir(directory) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }
}

/// Where resctrl is mounted.
///
/// # Errors
/// [`RuntimeError::HostLacks`] when it is not.
pub(crate) fn mount_point() -> Result<PathBuf, RuntimeError> {
    let lacks = RuntimeError::HostLacks { wanted_by: FIELD, what: "a mounted resctrl file system" };
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return Err(lacks) };
    let found = table.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("resctrl ").then(|| mount.split(' ').nth(4)).flatten()
    });
    found.map(PathBuf::from).ok_or(lacks)
}

fn is_name(name: &str) -> bool {
    let reserved = ["info", "mon_groups", "mon_data", ".", ".."];
    !name.is_empty() && name.len() < 256 && !name.contains(['/', '\0', '\n']) && !reserved.contains(&name)
}

/// Whether each part of a line (`L3:0=f;1=3`) is in the file, however that pads its numbers.
fn has_schema(present: &str, line: &str) -> bool {
    let parts = |line: &str| -> Option<(String, Vec<String>)> {
        let (resource, values) = line.trim().split_once(':')?;
        let plain = |value: &str| {
            let (domain, bits) = value.trim().split_once('=')?;
            let bits = bits.trim().trim_start_matches('0');
            Some(format!("{}={}", domain.trim(), if bits.is_empty() { "0" } else { bits }))
        };
        Some((resource.trim().to_owned(), values.split(';').map(plain).collect::<Option<Vec<String>>>()?))
    };
    let Some((resource, wanted)) = parts(line) else { return false };
    let found = present.lines().filter_map(parts).find(|(name, _)| *name == resource);
    found.is_some_and(|(_, values)| wanted.iter().all(|value| values.contains(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<RdtPlan, RuntimeError> {
        RdtPlan::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn order_and_names() {
        let made = plan(
            r#"{"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L2:0=3"], "enableMonitoring": true}"#,
        )
        .unwrap();
        assert_eq!(made.schemata, ["L3:0=f", "MB:0=20", "L2:0=3"]);
        assert!(made.is_monitored && made.class.is_none());
        assert_eq!(plan(r#"{"closID": "/"}"#).unwrap().class.as_deref(), Some(""));
        let lines = |json: &str| plan(json).unwrap().schemata;
        let both = r#"{"l3CacheSchema": "L3:0=f\nMB:0=70\nL3CODE:0=1", "memBwSchema": "MB:0=20"}"#;
        assert_eq!(lines(both), ["L3:0=f", "L3CODE:0=1", "MB:0=20"]);
        assert_eq!(lines(r#"{"l3CacheSchema": "L3:0=f\nMB:0=70"}"#), ["L3:0=f", "MB:0=70"]);
        for wrong in [
            r#"{"closID": "../x"}"#,
            r#"{"closID": "info"}"#,
            r#"{"memBwSchema": "L3:0=f"}"#,
            r#"{"schemata": ["L3:0=f\nMB:0=1"]}"#,
        ] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn schemata_are_compared_by_value() {
        let present = "    L3:0=000f;1=07f0\n    MB:0= 20;1=100\n";
        for (line, expected) in
            [("L3:0=f", true), ("L3:1=7f0;0=f", true), ("MB:0=20", true), ("L3:0=ff", false), ("L2:0=f", false)]
        {
            assert_eq!(has_schema(present, line), expected, "{line}");
        }
    }
}
