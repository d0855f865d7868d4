//! Mappings of user namespaces: checked, written by the privileged parent, and a namespace made only to carry one.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use berth_oci::runtime::LinuxIdMapping;
use berth_sys::clone::{CloneArgs, clone_child, namespace_bits};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::error::RuntimeError;
use crate::procfs::Procfs;

/// The kernel's limit since Linux 4.15 (user_namespaces(7)).
const EXTENTS_MAX: usize = 340;
/// The kernel takes a map in one write of less than a page.
const TEXT_MAX: usize = 4095;

/// Text of uid_map and gid_map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct IdMaps {
    pub(crate) uids: String,
    pub(crate) gids: String,
}

impl IdMaps {
    pub(crate) fn new(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<Self, RuntimeError> {
        Ok(Self { uids: text("linux.uidMappings", uids)?, gids: text("linux.gidMappings", gids)? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// Writes both maps for a process that is in a fresh user namespace.
    ///
    /// # Errors
    /// The kernel's: `EPERM` for ids the writer may not give away, `EINVAL` for overlaps.
    pub(crate) fn write(&self, pid: u32) -> Result<(), (Errno, &'static str)> {
        for (file, text) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            write_proc(pid, file, text.as_bytes()).map_err(|errno| (errno, file))?;
        }
        Ok(())
    }
}

impl IdMaps {
    /// Whether a process has these mappings.
    ///
    /// # Errors
    /// `EINVAL` when it has others; the kernel's.
    pub(crate) fn compare(&self, pid: u32) -> Result<(), (Errno, &'static str)> {
        let ranges = |text: &str| -> Vec<String> {
            let mut lines: Vec<String> =
                text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).collect();
            lines.sort_unstable();
            lines
        };
        for (file, expected) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            let path = format!("/proc/{pid}/{file}");
            let found = std::fs::read_to_string(path)
                .map_err(|error| (Errno::from_io_error(&error).unwrap_or(Errno::IO), file))?;
            if ranges(&found) != ranges(expected) {
                return Err((Errno::INVAL, "the user namespace that is joined has other mappings"));
            }
        }
        Ok(())
    }
}

impl IdMaps {
    /// The same by an ordinary user: one's own id directly, ranges by newuidmap(1) and newgidmap(1), which look into
    /// /etc/subuid and /etc/subgid.
    ///
    /// # Errors
    /// With what was tried.
    pub(crate) fn write_as_user(&self, pid: u32) -> Result<(), (Errno, String)> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let named = |file: &'static str| move |errno| (errno, file.to_owned());
        if is_own(&self.uids, uid) {
            write_proc(pid, "uid_map", self.uids.as_bytes()).map_err(named("uid_map"))?;
        } else {
            run_helper("newuidmap", pid, &self.uids)?;
        }
        if is_own(&self.gids, gid) {
            // Groups that take rights away must not be dropped by who could not drop them before (user_namespaces(7)).
            write_proc(pid, "setgroups", b"deny").map_err(named("setgroups"))?;
            write_proc(pid, "gid_map", self.gids.as_bytes()).map_err(named("gid_map"))
        } else {
            run_helper("newgidmap", pid, &self.gids)
        }
    }
}

/// Whether the mapping is of this one id alone.
fn is_own(map: &str, id: u32) -> bool {
    let mut lines = map.lines().map(|line| line.split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<u32>>());
    lines.next().is_some_and(|line| matches!(line.as_slice(), [_, outside, 1] if *outside == id))
        && lines.next().is_none()
}

fn run_helper(program: &'static str, pid: u32, map: &str) -> Result<(), (Errno, String)> {
    let output = std::process::Command::new(program).arg(pid.to_string()).args(map.split_whitespace()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err((Errno::PERM, format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))),
        Err(error) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Err((errno, format!("{program}, which maps more than one's own id, cannot be run")))
        }
    }
}

fn text(field: &'static str, mappings: &[LinuxIdMapping]) -> Result<String, RuntimeError> {
    if mappings.is_empty() || mappings.len() > EXTENTS_MAX {
        let problem = format!("{} ranges; 1 to {EXTENTS_MAX} are possible", mappings.len());
        return Err(RuntimeError::Spec { field, problem });
    }
    let mut out = String::new();
    for mapping in mappings {
        let (inside, outside, size) = (mapping.container_id(), mapping.host_id(), mapping.size());
        if size == 0 || inside.checked_add(size).is_none() || outside.checked_add(size).is_none() {
            let problem = format!("range {inside} {outside} {size} is empty or too long");
            return Err(RuntimeError::Spec { field, problem });
        }
        writeln!(out, "{inside} {outside} {size}")
            .map_err(|_| RuntimeError::Spec { field, problem: "cannot be written down".to_owned() })?;
    }
    if out.len() > TEXT_MAX {
        return Err(RuntimeError::Spec { field, problem: format!("its {} ranges are too many", mappings.len()) });
    }
    Ok(out)
}

/// Writes a file of the host's procfs about a process of ours, in one call.
pub(crate) fn write_proc(pid: u32, file: &str, content: &[u8]) -> Result<(), Errno> {
    Procfs::open()?.write(&format!("{pid}/{file}"), content)
}

/// A user namespace with these mappings that nobody lives in: what an id-mapped mount needs.
pub(crate) fn mapping_namespace(maps: &IdMaps) -> Result<OwnedFd, Errno> {
    let args = CloneArgs { namespaces: namespace_bits(UnshareFlags::NEWUSER), ..CloneArgs::default() };
    let child = clone_child(&args, || {
        // Only there to hold the namespace until the parent has a descriptor of it; killed below, or with the parent.
        let _set = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        let _never = rustix::event::poll(&mut [], None);
        0
    })?;
    let result = maps.write(child.pid).map_err(|(errno, _)| errno).and_then(|()| {
        let path = format!("/proc/{}/ns/user", child.pid);
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    });
    crate::create::kill_and_reap(&child.pidfd);
    result
}
