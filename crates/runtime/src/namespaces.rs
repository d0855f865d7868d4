//! Which namespaces a container makes, which it joins, and which it shares with the host.

use std::path::PathBuf;

use berth_oci::runtime::{LinuxNamespace, LinuxNamespaceType};
use rustix::thread::UnshareFlags;

use crate::error::RuntimeError;

/// The kinds, in the order in which they are joined: user first, for it gives the right to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) enum Namespace {
    User,
    Pid,
    Uts,
    Ipc,
    Network,
    Cgroup,
    Time,
    Mount,
}

/// All of them, by name.
pub(crate) const KINDS: [Namespace; 8] = [
    Namespace::Cgroup,
    Namespace::Ipc,
    Namespace::Mount,
    Namespace::Network,
    Namespace::Pid,
    Namespace::Time,
    Namespace::User,
    Namespace::Uts,
];

impl Namespace {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Network => "network",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
            Self::Mount => "mount",
        }
    }

    pub(crate) fn flag(self) -> UnshareFlags {
        match self {
            Self::User => UnshareFlags::NEWUSER,
            Self::Pid => UnshareFlags::NEWPID,
            Self::Uts => UnshareFlags::NEWUTS,
            Self::Ipc => UnshareFlags::NEWIPC,
            Self::Network => UnshareFlags::NEWNET,
            Self::Cgroup => UnshareFlags::NEWCGROUP,
            Self::Time => UnshareFlags::NEWTIME,
            Self::Mount => UnshareFlags::NEWNS,
        }
    }

    fn of(kind: LinuxNamespaceType) -> Self {
        match kind {
            LinuxNamespaceType::User => Self::User,
            LinuxNamespaceType::Pid => Self::Pid,
            LinuxNamespaceType::Uts => Self::Uts,
            LinuxNamespaceType::Ipc => Self::Ipc,
            LinuxNamespaceType::Network => Self::Network,
            LinuxNamespaceType::Cgroup => Self::Cgroup,
            LinuxNamespaceType::Time => Self::Time,
            LinuxNamespaceType::Mount => Self::Mount,
        }
    }
}

/// What the spec's list says, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Namespaces {
    /// Made for the container.
    pub(crate) new: Vec<Namespace>,
    /// Existing ones, by a path of the host.
    pub(crate) joined: Vec<(Namespace, PathBuf)>,
}

impl Namespaces {
    pub(crate) fn of_spec(list: &[LinuxNamespace]) -> Result<Self, RuntimeError> {
        let mut namespaces = Self::default();
        for entry in list {
            let kind = Namespace::of(entry.typ());
            if namespaces.is_private(kind) {
                let problem = format!("{} is there twice", kind.text());
                return Err(RuntimeError::Spec { field: "linux.namespaces", problem });
            }
            match entry.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    if !path.is_absolute() {
                        let problem = format!("path {} is not absolute", path.display());
                        return Err(RuntimeError::Spec { field: "linux.namespaces", problem });
                    }
                    namespaces.joined.push((kind, path.clone()));
                }
                _ => namespaces.new.push(kind),
            }
        }
        namespaces.new.sort_unstable();
        namespaces.joined.sort_unstable();
        Ok(namespaces)
    }

    pub(crate) fn is_new(&self, kind: Namespace) -> bool {
        self.new.contains(&kind)
    }

    pub(crate) fn is_joined(&self, kind: Namespace) -> bool {
        self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// Whether the container does not share the host's.
    pub(crate) fn is_private(&self, kind: Namespace) -> bool {
        self.is_new(kind) || self.is_joined(kind)
    }

    /// With a time namespace where a process has one of its own: criu restores into one, and what joins later has to be in it as
    /// well, or could not be saved again.
    pub(crate) fn with_time_of(&self, pid: u32) -> Self {
        let identity = |path: &str| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        let (own, theirs) = (identity("/proc/self/ns/time"), identity(&format!("/proc/{pid}/ns/time")));
        let mut with = self.clone();
        if own != theirs && !with.is_private(Namespace::Time) {
            with.new.push(Namespace::Time);
            with.new.sort_unstable();
        }
        with
    }

    /// What clone3 makes. Not the cgroup namespace: its root would be the creator's cgroup. Not the time namespace: its clocks
    /// can only be set while nobody is in it.
    pub(crate) fn clone_flags(&self) -> UnshareFlags {
        let made_later = [Namespace::Cgroup, Namespace::Time];
        self.new
            .iter()
            .filter(|kind| !made_later.contains(kind))
            .fold(UnshareFlags::empty(), |flags, kind| flags | kind.flag())
    }

    /// What a process added later joins, by init's pidfd; the PID namespace is joined by being cloned into it.
    pub(crate) fn exec_flags(&self) -> UnshareFlags {
        let joined = self.joined.iter().map(|(kind, _)| kind);
        self.new
            .iter()
            .chain(joined)
            .filter(|kind| **kind != Namespace::Pid)
            .fold(UnshareFlags::empty(), |flags, kind| flags | kind.flag())
    }

    pub(crate) fn clone_text(&self) -> String {
        let made_later = [Namespace::Cgroup, Namespace::Time];
        let names: Vec<&str> =
            self.new.iter().filter(|kind| !made_later.contains(kind)).map(|kind| kind.text()).collect();
        names.join(",")
    }

    pub(crate) fn joined_by_exec_text(&self) -> String {
        let joined = self.joined.iter().map(|(kind, _)| kind.text());
        let mut names: Vec<&str> = self.new.iter().map(|kind| kind.text()).chain(joined).collect();
        names.sort_unstable();
        names.join(",")
    }
}
