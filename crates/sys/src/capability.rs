//! Capabilities by number, so that kernel and program need not know the same list: prctl(2), capabilities(7).
#![expect(unsafe_code, reason = "rustix takes an enum of known capabilities, the kernel may know more")]

use rustix::io::Errno;

use crate::clone::last_errno;

/// Highest number the kernel could ever use.
pub const CAPABILITY_MAX: u8 = 63;

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> Result<libc::c_int, Errno> {
    // SAFETY: the options used in this module take plain numbers and touch no memory of ours.
    let answer = unsafe { libc::prctl(option, first, second, 0, 0) };
    if answer >= 0 { Ok(answer) } else { Err(last_errno()) }
}

/// Whether the bounding set has it.
///
/// # Errors
/// `EINVAL` for a number this kernel does not know.
pub fn in_bounding_set(number: u8) -> Result<bool, Errno> {
    prctl(libc::PR_CAPBSET_READ, number.into(), 0).map(|answer| answer == 1)
}

/// Takes it out of the bounding set, for good.
///
/// # Errors
/// `EPERM` without CAP_SETPCAP, `EINVAL` for an unknown number.
pub fn drop_from_bounding_set(number: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, number.into(), 0).map(drop)
}

/// Empties the ambient set (Linux 4.3).
///
/// # Errors
/// `EINVAL` on older kernels.
pub fn clear_ambient_set() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0).map(drop)
}

/// Adds to the ambient set; it must be permitted and inheritable.
///
/// # Errors
/// `EPERM` when it is not.
pub fn raise_ambient(number: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, number.into()).map(drop)
}
