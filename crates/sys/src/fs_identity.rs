//! setfsuid(2), setfsgid(2): the identity of the calling thread towards file systems.
#![expect(unsafe_code, reason = "rustix has no setfsuid(2) and setfsgid(2)")]

use rustix::io::Errno;
use rustix::thread::{CapabilitySets, capabilities, set_capabilities};

/// Runs `action` with another user and group towards file systems and with the same capabilities, for the calling thread only.
///
/// Needed where the kernel takes the caller as the owner of what it makes and the real one has no name there (id-mapped mounts).
///
/// # Errors
/// `EPERM` when the thread may not take the identity; then `action` has not run. What `action` returned otherwise.
pub fn with_fs_identity<T>(uid: u32, gid: u32, action: impl FnOnce() -> T) -> Result<T, Errno> {
    let before = capabilities(None)?;
    let identity = FsIdentity::take(uid, gid, before)?;
    // Leaving user 0 clears the file system capabilities of the effective set; the permitted set still has them.
    set_capabilities(None, before)?;
    let result = action();
    drop(identity);
    Ok(result)
}

struct FsIdentity {
    uid: u32,
    gid: u32,
    capabilities: CapabilitySets,
}

impl FsIdentity {
    fn take(uid: u32, gid: u32, capabilities: CapabilitySets) -> Result<Self, Errno> {
        let before = Self { uid: set_fs_uid(u32::MAX), gid: set_fs_gid(u32::MAX), capabilities };
        set_fs_gid(gid);
        set_fs_uid(uid);
        // The calls return the old id whether they worked or not; an id that is none changes nothing and tells what is set now.
        if set_fs_uid(u32::MAX) != uid || set_fs_gid(u32::MAX) != gid {
            return Err(Errno::PERM);
        }
        Ok(before)
    }
}

impl Drop for FsIdentity {
    fn drop(&mut self) {
        set_fs_uid(self.uid);
        set_fs_gid(self.gid);
        // A thread may always set what it has permitted.
        set_capabilities(None, self.capabilities).ok();
    }
}

fn set_fs_uid(uid: u32) -> u32 {
    // SAFETY: setfsuid takes an id by value, changes only the calling thread (raw system call) and cannot fail.
    let before = unsafe { libc::syscall(libc::SYS_setfsuid, uid) };
    u32::try_from(before).unwrap_or(u32::MAX)
}

fn set_fs_gid(gid: u32) -> u32 {
    // SAFETY: setfsgid takes an id by value, changes only the calling thread (raw system call) and cannot fail.
    let before = unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
    u32::try_from(before).unwrap_or(u32::MAX)
}
