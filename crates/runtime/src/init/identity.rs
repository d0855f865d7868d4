//! The last steps: who the process is, what it may do, where it stands, and exec.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_rootfs::RootError;
use berth_sys::process::{StringArray, cloexec_from, execve, place_fd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Failure, InitContext};
use crate::options::Rights;
use crate::process::CapabilityPlan;
use crate::user::resolve;

/// Where programs are looked for when the environment has no PATH; what engines set by default.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `PER` of a pty slave: `UNIX98_PTY_SLAVE_MAJOR` to the last of eight.
const PTY_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

impl InitContext<'_> {
    pub(super) fn resolve_user(&mut self) -> Result<(), Failure> {
        let root = self.root()?;
        let identity =
            resolve(root, &self.plan.process.user).map_err(|error| Failure::new(error.detail, error.errno))?;
        self.scratch.identity = Some(identity);
        Ok(())
    }

    pub(super) fn set_scheduler(&self) -> Result<(), Failure> {
        match &self.plan.process.scheduler {
            Some(scheduler) => berth_sys::process::set_scheduler(scheduler).map_err(|errno| match errno {
                // sched_setattr(2): the deadline scheduler wants all CPUs.
                Errno::PERM => {
                    let why = "process scheduler can't be used together with AllowedCPUs, nor without CAP_SYS_NICE";
                    Failure::new(why, errno)
                }
                errno => errno.into(),
            }),
            None => Ok(()),
        }
    }

    pub(super) fn set_io_priority(&self) -> Result<(), Failure> {
        match self.plan.process.io_priority {
            Some((class, level)) => Ok(berth_sys::process::set_io_priority(class, level)?),
            None => Ok(()),
        }
    }

    /// What we may not raise is set as high as we may, with a warning: a host without CAP_SYS_RESOURCE still runs the container.
    pub(super) fn set_limit(&self, index: usize) -> Result<(), Failure> {
        let Some(limit) = self.plan.process.limits.get(index) else { return Ok(()) };
        let bound = |value: u64| (value != u64::MAX).then_some(value);
        let wanted = Rlimit { current: bound(limit.soft), maximum: bound(limit.hard) };
        match rustix::process::setrlimit(limit.resource, wanted) {
            Err(Errno::PERM) => {}
            other => return Ok(other?),
        }
        let now = rustix::process::getrlimit(limit.resource).maximum.unwrap_or(u64::MAX);
        let hard = limit.hard.min(now);
        let soft = limit.soft.min(hard);
        let clamped = Rlimit { current: bound(soft), maximum: bound(hard) };
        rustix::process::setrlimit(limit.resource, clamped)?;
        self.warn(&format!(
            "{} was set to {soft}:{hard}, not {}:{}: raising it needs CAP_SYS_RESOURCE",
            limit.name, limit.soft, limit.hard
        ));
        Ok(())
    }

    /// By a descriptor resolved without magic links, so `/proc/self/fd/N` of ours is no way out (CVE-2024-21626).
    pub(super) fn enter_cwd(&self) -> Result<(), Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = self.root()?.open(&self.plan.process.cwd, flags, Mode::empty())?;
        rustix::process::fchdir(&directory)?;
        let here = rustix::process::getcwd(Vec::new())?;
        if here.as_bytes().first() == Some(&b'/') {
            return Ok(());
        }
        Err(Failure::new("it is outside the container's root", Errno::XDEV))
    }

    pub(super) fn set_user(&self) -> Result<(), Failure> {
        let Some(identity) = &self.scratch.identity else {
            return Err(Failure::new("the user was not looked up", Errno::INVAL));
        };
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        for stream in self.streams().into_iter().flatten() {
            give_stream(stream, uid)?;
        }
        let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        match rustix::thread::set_thread_groups(&groups) {
            // An ordinary user keeps the groups he has; there are none to give.
            Err(Errno::PERM) if self.rights == Rights::Ordinary && groups.iter().all(|group| *group == gid) => {}
            other => other.map_err(|errno| Failure::new("cannot set groups", errno))?,
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid)
            .map_err(|errno| Failure::new(format!("cannot become group {}", identity.gid), errno))?;
        rustix::thread::set_keep_capabilities(true)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .map_err(|errno| Failure::new(format!("cannot become user {}", identity.uid), errno))?;
        // With fs.suid_dumpable set, the change of user would make us dumpable again (CVE-2016-9962).
        Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
    }

    /// The five sets. What the host itself lacks cannot be given and is reported.
    pub(super) fn set_capabilities(&self) -> Result<(), Failure> {
        let wanted = self.plan.process.capabilities.unwrap_or_default();
        let now = rustix::thread::capabilities(None)?;
        // The change of user emptied the effective set; the bounding set needs CAP_SETPCAP.
        rustix::thread::set_capabilities(None, CapabilitySets { effective: now.permitted, ..now })?;
        drop_bounding(wanted.bounding)?;
        let host = now.permitted.bits();
        let given = CapabilityPlan {
            bounding: wanted.bounding,
            permitted: wanted.permitted & host,
            effective: wanted.effective & wanted.permitted & host,
            inheritable: wanted.inheritable & host,
            ambient: wanted.ambient & wanted.permitted & wanted.inheritable & host,
        };
        for number in numbers(wanted.ambient & !given.ambient) {
            // In runc's words.
            let why = "it is not both permitted and inheritable, or the host lacks it";
            self.warn(&format!("can't raise ambient capability {}: {why}", capability_name(number)));
        }
        if (CapabilityPlan { ambient: wanted.ambient, ..given }) != wanted {
            self.warn("some capabilities were not given: the host lacks them, or their sets contradict each other");
        }
        let set = CapabilitySet::from_bits_retain;
        rustix::thread::set_capabilities(
            None,
            CapabilitySets {
                effective: set(given.effective),
                permitted: set(given.permitted),
                inheritable: set(given.inheritable),
            },
        )?;
        berth_sys::capability::clear_ambient_set()?;
        for number in numbers(given.ambient) {
            berth_sys::capability::raise_ambient(number)?;
        }
        Ok(())
    }

    /// For a stream that is the host's null device, the container's own: a descriptor of the host's /dev cannot be saved and restored.
    /// Only what is the very device counts, wherever /dev/null leads (CVE-2026-88265).
    fn own_null(&self, stream: BorrowedFd<'_>) -> Option<OwnedFd> {
        let is_null = |fd: BorrowedFd<'_>| {
            rustix::fs::fstat(fd).is_ok_and(|stat| {
                let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && device == (1, 3)
            })
        };
        if !is_null(stream) {
            return None;
        }
        let path = std::path::Path::new("/dev/null");
        // Looked at before it is opened: opening a FIFO or another device would have effects.
        let found = self.root().ok()?.resolve(path).ok().filter(|fd| is_null(fd.as_fd()))?;
        drop(found);
        let null = self.root().ok()?.open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).ok()?;
        let null = rustix::io::fcntl_dupfd_cloexec(null, 3).ok()?;
        is_null(null.as_fd()).then_some(null)
    }

    pub(super) fn close_descriptors(&self) -> Result<(), Failure> {
        // Copies above the standard numbers first, so that placing one stream cannot overwrite another.
        let mut copies = Vec::new();
        for stream in self.streams() {
            copies.push(match stream {
                Some(stream) => Some(match self.own_null(stream) {
                    Some(null) => null,
                    None => rustix::io::fcntl_dupfd_cloexec(stream, 3)?,
                }),
                None => None,
            });
        }
        for (number, copy) in (0_u16..).zip(&copies) {
            match copy {
                Some(copy) => place_fd(copy, number)?,
                None => return Err(Failure::new("there is no terminal", Errno::NOTTY)),
            }
        }
        Ok(cloexec_from(self.preserve_fds.saturating_add(3))?)
    }

    /// Whether exec will find something to execute: a file with an x bit. What the container's user may do is exec's to say.
    pub(super) fn find_program(&self) -> Result<(), Failure> {
        let process = &self.plan.process;
        let program = process.arguments.first().ok_or_else(|| Failure::from(Errno::INVAL))?;
        let mut answer = Errno::NOENT;
        for candidate in candidates(program.as_bytes(), &process.environment) {
            // Relative ones count from the container's working directory, which is entered later.
            let path =
                process.cwd.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(candidate.as_bytes()));
            let Ok(stat) = self.root()?.resolve(&path).and_then(|fd| {
                rustix::fs::fstat(&fd).map_err(|source| RootError { operation: "stat", path: path.clone(), source })
            }) else {
                continue;
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile if stat.st_mode & 0o111 != 0 => return Ok(()),
                _ => answer = Errno::ACCESS,
            }
        }
        Err(Failure::new(exec_text(&program.to_string_lossy(), answer), answer))
    }

    /// The program's, with its HOME.
    pub(super) fn environment(&self) -> Vec<CString> {
        let mut environment = self.plan.process.environment.clone();
        if let Some(identity) = &self.scratch.identity
            && !environment.iter().any(|entry| entry.as_bytes().starts_with(b"HOME="))
        {
            environment.extend(CString::new(format!("HOME={}", identity.home)));
        }
        environment
    }

    /// Returns only with a failure.
    pub(super) fn execute(&self) -> Result<(), Failure> {
        let process = &self.plan.process;
        berth_sys::process::set_umask(process.umask.unwrap_or(0o022));
        let environment = self.environment();
        let program = process.arguments.first().ok_or_else(|| Failure::from(Errno::INVAL))?;
        let candidates = candidates(program.as_bytes(), &environment);
        let arguments = StringArray::new(process.arguments.clone());
        let environment = StringArray::new(environment);
        let mut answer = Errno::NOENT;
        for candidate in &candidates {
            match execve(candidate, &arguments, &environment) {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => answer = Errno::ACCESS,
                other => {
                    answer = other;
                    break;
                }
            }
        }
        let program = program.to_string_lossy();
        // A file that is there and cannot be found wants an interpreter that is not; in runc's words for it.
        let is_there = || rustix::fs::access(program.as_ref(), rustix::fs::Access::EXISTS).is_ok();
        let text = if answer == Errno::NOENT && program.contains('/') && is_there() {
            format!("exec {program}: {}", exec_reason(&program, answer))
        } else {
            exec_text(&program, answer)
        };
        Err(Failure::new(text, answer))
    }
}

/// In the words that callers of runtimes know.
fn exec_text(program: &str, errno: Errno) -> String {
    format!("exec: {program:?}: {}", exec_reason(program, errno))
}

fn exec_reason(program: &str, errno: Errno) -> String {
    let text = match errno {
        Errno::NOENT if program.contains('/') => "no such file or directory",
        Errno::NOENT => "executable file not found in $PATH",
        Errno::ACCESS => "permission denied",
        Errno::NOEXEC => "exec format error",
        Errno::ISDIR => "is a directory",
        other => return format!("cannot be executed: {other}"),
    };
    text.to_owned()
}

fn candidates(program: &[u8], environment: &[CString]) -> Vec<CString> {
    if program.contains(&b'/') {
        return CString::new(program).into_iter().collect();
    }
    let path = environment.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    let path = path.unwrap_or(PATH_DEFAULT.as_bytes());
    path.split(|b| *b == b':')
        .filter_map(|directory| {
            let directory: &[u8] = if directory.is_empty() { b"." } else { directory };
            CString::new([directory, b"/", program].concat()).ok()
        })
        .collect()
}

/// Lets the container's user reopen its streams by name. Only pipes and terminals of ours: never a file or a device (CVE-2026-88265).
fn give_stream(stream: BorrowedFd<'_>, uid: Uid) -> Result<(), Failure> {
    let stat = rustix::fs::fstat(stream.as_fd())?;
    let is_ours = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => true,
        FileType::CharacterDevice => PTY_MAJORS.contains(&rustix::fs::major(stat.st_rdev)),
        _ => false,
    };
    if !is_ours || stat.st_uid == uid.as_raw() {
        return Ok(());
    }
    match rustix::fs::chownat(stream, "", Some(uid), None, AtFlags::EMPTY_PATH) {
        // Without a mapping of the present owner, or on a read-only file system, the stream stays as it is.
        Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS) => Ok(()),
        Err(errno) => Err(Failure::new("cannot give away a stream", errno)),
    }
}

fn drop_bounding(keep: u64) -> Result<(), Failure> {
    for number in 0..=berth_sys::capability::CAPABILITY_MAX {
        if keep & (1 << number) != 0 {
            continue;
        }
        match berth_sys::capability::in_bounding_set(number) {
            Ok(true) => berth_sys::capability::drop_from_bounding_set(number)?,
            Ok(false) => {}
            // The kernel's list ends here.
            Err(Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn capability_name(number: u8) -> String {
    let name = berth_types::capability::NAMES.get(usize::from(number));
    name.map_or_else(|| number.to_string(), |name| format!("CAP_{name}"))
}

fn numbers(bits: u64) -> impl Iterator<Item = u8> {
    (0..=berth_sys::capability::CAPABILITY_MAX).filter(move |number| bits & (1 << number) != 0)
}
