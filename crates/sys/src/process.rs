//! Calls a process makes about itself before it becomes another program, as far as rustix lacks them.
#![expect(
    unsafe_code,
    reason = "rustix has no execve(2), sigaction(2), close_range(2), keyctl(2), personality(2), sched_setattr(2), ioprio_set(2), set_mempolicy(2)"
)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::clone::last_errno;

/// Strings for [`execve`], made ready (with the NULL at the end) before anything that must not allocate.
#[derive(Debug)]
pub struct StringArray {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl StringArray {
    pub fn new(strings: Vec<CString>) -> Self {
        // The heap buffers of the CStrings do not move when the vector does.
        let pointers = strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
        Self { strings, pointers }
    }

    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Becomes another program; returns only on failure.
pub fn execve(path: &CStr, arguments: &StringArray, environment: &StringArray) -> Errno {
    // SAFETY: `path` is NUL-terminated; both arrays are NULL-terminated and their strings live as long as the arrays.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    last_errno()
}

/// Marks every descriptor from `first` on close-on-exec (Linux 5.11).
///
/// # Errors
/// `ENOSYS` or `EINVAL` on older kernels.
pub fn cloexec_from(first: u32) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: the call only changes flags of descriptors; no memory is involved.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Closes every descriptor from `first` on but those given, in a process that was just cloned with a table of its own: what its maker
/// had open is none of its business, and nobody here will use or drop it.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_all_but(first: u32, kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut numbers: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    numbers.sort_unstable();
    let close = |from: u32, to: u32| -> Result<(), Errno> {
        // SAFETY: the call closes descriptors and touches no memory. Whoever owned them is in the process this one was cloned from; the
        // copies of their owners in this process's memory are never used or dropped, for it leaves by exec or _exit.
        let answer = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        if answer == 0 { Ok(()) } else { Err(last_errno()) }
    };
    let mut next = first;
    for number in numbers.into_iter().filter(|number| *number >= first) {
        if number > next {
            close(next, number - 1)?;
        }
        next = next.max(number + 1);
    }
    close(next, libc::c_uint::MAX)
}

/// Makes `fd` the descriptor `number` (0, 1, 2 or one to preserve), kept across exec.
///
/// # Errors
/// The kernel's.
pub fn place_fd(fd: impl AsFd, number: u16) -> Result<(), Errno> {
    let from = fd.as_fd().as_raw_fd();
    let to = i32::from(number);
    if from == to {
        return rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty());
    }
    // SAFETY: the call touches no memory; number 0 to 2 belong to the process's standard streams, which the caller replaces.
    let answer = unsafe { libc::dup2(from, to) };
    if answer >= 0 { Ok(()) } else { Err(last_errno()) }
}

/// Keeps descriptor `number` across exec.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn keep_fd(number: u32) -> Result<(), Errno> {
    let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
    // SAFETY: F_SETFD touches no memory.
    let answer = unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Becomes the program that `file` is on, with no path that could lead elsewhere; returns only on failure (execveat(2)).
pub fn execute_fd(file: impl AsFd, arguments: &StringArray, environment: &StringArray) -> Errno {
    let (arguments, environment) = (arguments.pointers.as_ptr(), environment.pointers.as_ptr());
    // SAFETY: the descriptor is borrowed and the path is an empty constant; both arrays are NULL-terminated and their strings live as
    // long as the arrays.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            arguments,
            environment,
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}

/// Whether descriptor `number` is open and will be kept by exec.
pub fn is_inherited(number: u32) -> bool {
    let Ok(number) = i32::try_from(number) else { return false };
    // SAFETY: F_GETFD touches no memory.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Lets `SIGHUP`, `SIGINT`, `SIGQUIT` and `SIGTERM` end the calling process, with 128 and the number, also where it is the first of a PID
/// namespace, which has only the signals it handles (pid_namespaces(7)). Exec takes the handlers away.
///
/// # Errors
/// The kernel's.
pub fn exit_on_signals() -> Result<(), Errno> {
    extern "C" fn leave(number: libc::c_int) {
        // SAFETY: _exit(2) may be called in a signal handler (signal-safety(7)) and does not return.
        unsafe { libc::_exit(128 + number) }
    }
    let handler: extern "C" fn(libc::c_int) = leave;
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: an action of zeroes is the default action: no flags, an empty mask, no restorer.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        // SAFETY: the action lives across the call; its handler takes one number, as an action without SA_SIGINFO does.
        let answer = unsafe { libc::sigaction(number, &raw const action, std::ptr::null_mut()) };
        if answer != 0 {
            return Err(last_errno());
        }
    }
    Ok(())
}

/// set_mempolicy(2) for the calling thread; `nodes` is a bit mask of memory nodes, lowest first.
///
/// # Errors
/// `EINVAL` for a mode and nodes that do not fit or do not exist, `ENOSYS` in a kernel without NUMA.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    // The kernel takes one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let bits = libc::c_ulong::try_from(bits).map_err(|_| Errno::INVAL)?;
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask has `bits - 1` bits and lives across the call; an empty one is the null pointer, of which nothing is read.
    let answer = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Joins the session keyring of this name, or a new one (keyctl(2)). `may_be_found` lets its user's later processes find it by that name.
///
/// # Errors
/// The kernel's; `ENOSYS` when built without keys.
pub fn join_session_keyring(name: &CStr, may_be_found: bool) -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    const KEYCTL_SETPERM: libc::c_int = 5;
    // As the kernel makes it (who has it may all; its user view, read, link), and its user may search (keyutils.h).
    const PERMISSIONS: libc::c_ulong = 0x3f00_0000 | 0x0013_0000 | 0x0008_0000;
    // SAFETY: the name is NUL-terminated and lives across the call.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    if serial < 0 {
        return Err(last_errno());
    }
    if !may_be_found {
        return Ok(());
    }
    // SAFETY: numbers only.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, PERMISSIONS) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// personality(2).
///
/// # Errors
/// The kernel's.
pub fn set_personality(persona: u32) -> Result<(), Errno> {
    // SAFETY: the call touches no memory of ours.
    let answer = unsafe { libc::personality(libc::c_ulong::from(persona)) };
    if answer >= 0 { Ok(()) } else { Err(last_errno()) }
}

/// ioprio_set(2) for the calling process: class (1 real-time, 2 best-effort, 3 idle) and level.
///
/// # Errors
/// The kernel's.
pub fn set_io_priority(class: u8, level: u8) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let value = (libc::c_int::from(class) << 13) | libc::c_int::from(level);
    // SAFETY: the call touches no memory.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// `struct sched_attr`, first version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerAttributes {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime_ns: u64,
    pub deadline_ns: u64,
    pub period_ns: u64,
}

impl SchedulerAttributes {
    /// `SCHED_FLAG_RESET_ON_FORK` for the deadline scheduler, under which fork(2) fails without it.
    pub fn resets_for_children_of_deadline(&mut self) {
        const SCHED_DEADLINE: u32 = 6;
        if self.policy == SCHED_DEADLINE {
            self.flags |= 1;
        }
    }
}

#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// sched_setattr(2) for the calling thread.
///
/// # Errors
/// The kernel's.
pub fn set_scheduler(attributes: &SchedulerAttributes) -> Result<(), Errno> {
    let raw = SchedAttr {
        size: 48,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime_ns,
        deadline: attributes.deadline_ns,
        period: attributes.period_ns,
    };
    // SAFETY: `raw` is a sched_attr of the size it names (48, SCHED_ATTR_SIZE_VER0) and lives across the call.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sets the file mode creation mask without a race: one process, one thread.
pub fn set_umask(mask: u32) {
    // SAFETY: umask always succeeds and touches no memory.
    unsafe { libc::umask(mask) };
}

/// Brings the loopback interface of the calling thread's network namespace up.
///
/// # Errors
/// The kernel's.
pub fn raise_loopback() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    // By number: the type of the constant is not that of the argument in every C library.
    const SET_INTERFACE_FLAGS: libc::Ioctl = 0x8914;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is a valid value of that plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(|_| Errno::INVAL)?;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives across the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SET_INTERFACE_FLAGS, &raw const request) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// All signals back to their default action and none blocked, as a fresh program expects.
///
/// # Errors
/// Never in practice; the kernel's.
pub fn reset_signals() -> Result<(), Errno> {
    // The kernel's own sigaction: SIG_DFL, no flags, no restorer, empty mask. By system call, because libc hides the two signals
    // of its thread library, which a posix_spawn of glibc leaves ignored in what it starts.
    let default = [0u64; 4];
    let mask_bytes = size_of::<u64>();
    for number in (1..=64).filter(|number| ![libc::SIGKILL, libc::SIGSTOP].contains(number)) {
        // SAFETY: the action lives across the call and is at least as large as the kernel's struct; the old one is not asked
        // for; no handler of ours is lost that exec would keep.
        let done = unsafe {
            let no_old = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), no_old, mask_bytes)
        };
        if done != 0 {
            return Err(last_errno());
        }
    }
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initializes the set it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialized just above; the old mask is not asked for.
    let answer = unsafe { libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}
