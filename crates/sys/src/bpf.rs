//! bpf(2), as far as device control groups on v2 need it: load a program, attach, query and detach it.
//!
//! Every call passes a structure that ends with the last member it uses; the kernel takes any shorter form.
#![expect(unsafe_code, reason = "rustix has no bpf(2)")]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
/// The most programs the kernel attaches to one cgroup (BPF_CGROUP_MAX_PROGS).
const PROGRAMS_MAX: u32 = 64;

/// One `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct BpfInstruction {
    pub code: u8,
    /// Destination register in the low four bits, source in the high four (little endian).
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct AttachAttr {
    target_fd: i32,
    attach_fd: i32,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
struct QueryAttr {
    target_fd: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_count: u32,
    padding: u32,
}

#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Loads a program of type `cgroup_device` and returns its descriptor (close-on-exec).
///
/// # Errors
/// `EINVAL`, `EACCES` when the verifier refuses it, `EPERM` without CAP_BPF or CAP_SYS_ADMIN (before Linux 5.11 also at RLIMIT_MEMLOCK).
pub fn load_cgroup_device(program: &[BpfInstruction], license: &CStr) -> Result<OwnedFd, Errno> {
    let mut attr = LoadAttr {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_count: u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"berth_devices\0\0\0",
        prog_ifindex: 0,
        expected_attach_type: ATTACH_CGROUP_DEVICE,
    };
    // SAFETY: PROG_LOAD reads a LoadAttr; its instructions and its NUL-terminated license are borrowed across the call.
    let number = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: PROG_LOAD returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Attaches a `cgroup_device` program to a v2 directory, beside what is attached already (`BPF_F_ALLOW_MULTI`).
pub fn attach_cgroup_device(cgroup: impl AsFd, program: impl AsFd) -> Result<(), Errno> {
    let mut attr = attach_attr(cgroup, program, ALLOW_MULTI);
    // SAFETY: PROG_ATTACH reads an AttachAttr, which holds no pointers.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Detaches a program from a v2 directory.
pub fn detach_cgroup_device(cgroup: impl AsFd, program: impl AsFd) -> Result<(), Errno> {
    let mut attr = attach_attr(cgroup, program, 0);
    // SAFETY: PROG_DETACH reads an AttachAttr, which holds no pointers.
    unsafe { bpf(PROG_DETACH, &mut attr) }.map(drop)
}

fn attach_attr(cgroup: impl AsFd, program: impl AsFd, attach_flags: u32) -> AttachAttr {
    AttachAttr {
        target_fd: cgroup.as_fd().as_raw_fd(),
        attach_fd: program.as_fd().as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags,
    }
}

/// The `cgroup_device` programs attached to this directory itself (not to its ancestors).
pub fn cgroup_device_programs(cgroup: impl AsFd) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0_u32; PROGRAMS_MAX as usize];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_fd().as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_count: PROGRAMS_MAX,
        padding: 0,
    };
    // SAFETY: PROG_QUERY reads and writes a QueryAttr; it writes at most `prog_count` ids to `ids`, which has that many.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    let count = attr.prog_count.min(PROGRAMS_MAX) as usize;
    ids.iter().take(count).map(|id| program_by_id(*id)).collect()
}

fn program_by_id(id: u32) -> Result<OwnedFd, Errno> {
    let mut attr = IdAttr { id, next_id: 0, open_flags: 0 };
    // SAFETY: PROG_GET_FD_BY_ID reads an IdAttr, which holds no pointers.
    let number = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }?;
    // SAFETY: PROG_GET_FD_BY_ID returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// # Safety
/// `T` is the form of `union bpf_attr` that `command` uses, and what it points to is valid across the call.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> Result<i32, Errno> {
    // SAFETY: `attr` is valid for reads and writes of its size; the caller vouches for the rest.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    i32::try_from(answer).map_err(|_| Errno::OVERFLOW)
}
