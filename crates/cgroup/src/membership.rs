//! Which groups a process is in: proc_pid_cgroup(5), lines of `N:controller,controller:/path`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::CgroupError;
use crate::file;

/// Where limits and measurements of a process are found, in this order; the v2 hierarchy is the empty name.
const MAIN: [&str; 4] = ["memory", "pids", "cpu", ""];

/// The groups of one process, by controller (`cpu`, `name=systemd`; the v2 hierarchy has the empty name).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    pub groups: BTreeMap<String, String>,
}

impl Membership {
    /// Of a process by its number here; `None`: of the caller.
    ///
    /// # Errors
    /// `NotFound` when there is no such process.
    pub fn of(pid: Option<u32>) -> Result<Self, CgroupError> {
        let pid = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        Ok(Self::parse(&file::read_path(Path::new(&format!("/proc/{pid}/cgroup")))?))
    }

    /// Lines of another form are passed over.
    pub fn parse(text: &str) -> Self {
        let mut groups = BTreeMap::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            if let (Some(controllers), Some(path)) = (fields.next(), fields.next()) {
                groups.extend(controllers.split(',').map(|controller| (controller.to_owned(), path.to_owned())));
            }
        }
        Self { groups }
    }

    /// The one group that stands for all: on v1 and hybrid hosts where memory, processes or processor time are counted, on v2 the only one.
    pub fn main(&self) -> Option<&str> {
        MAIN.iter().find_map(|controller| self.groups.get(*controller)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions() {
        let main = |text: &str| Membership::parse(text).main().map(str::to_owned);
        let v1 = "5:cpu,cpuacct:/x\n4:memory:/a/b:c\n1:name=systemd:/s\n0::/init\n";
        assert_eq!(main(v1).as_deref(), Some("/a/b:c"));
        assert_eq!(main("3:cpu,cpuacct:/x\n0::/\n").as_deref(), Some("/x"));
        assert_eq!(main("0::/berth/1\n").as_deref(), Some("/berth/1"));
        assert_eq!(main("nothing"), None);
        let groups = Membership::parse(v1).groups;
        assert_eq!(
            (groups["cpuacct"].as_str(), groups["name=systemd"].as_str(), groups[""].as_str()),
            ("/x", "/s", "/init")
        );
        assert!(Membership::of(None).unwrap().main().is_some());
    }
}
