//! A page of numbers shared with cloned children: an anonymous mapping, gone for the child when it execs.
#![expect(unsafe_code, reason = "a shared mapping as a slice of atomics")]

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// Zeroed atomics, the same memory in this process and in children cloned later.
#[derive(Debug)]
pub struct SharedNumbers {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: it owns its mapping as a `Box<[AtomicU64]>` owns its memory; munmap works from any thread.
unsafe impl Send for SharedNumbers {}
// SAFETY: shared references give only atomics, which may be used from any thread.
unsafe impl Sync for SharedNumbers {}

impl SharedNumbers {
    /// # Errors
    /// `ENOMEM`.
    pub fn new(count: usize) -> Result<Self, Errno> {
        let bytes = count.checked_mul(size_of::<AtomicU64>()).filter(|n| *n > 0).ok_or(Errno::INVAL)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: an anonymous mapping at an address the kernel chooses overlaps nothing.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED) }?;
        let start = NonNull::new(start.cast::<AtomicU64>()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, count })
    }

    pub fn as_slice(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, zeroed (a valid AtomicU64), `count` elements long and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for SharedNumbers {
    fn drop(&mut self) {
        let bytes = self.count * size_of::<AtomicU64>();
        // SAFETY: the mapping was made by `new` with this length and no reference into it outlives `self`.
        let _unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), bytes) };
    }
}
