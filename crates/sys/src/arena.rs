//! An allocator for programs that live milliseconds: it takes memory in a row and keeps what is given back in lists by size.
//!
//! Why: the C library of the static programs maps and unmaps pages for every allocation of a few KiB, which costs a short command more than
//! all its work. What it is not: a way to give memory back to the kernel, or fast for many threads (one lock).
#![expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pages of it cost nothing before they are touched.
const ARENA_BYTES: usize = 4 << 20;
/// What is larger goes to the system's allocator, and back to the kernel when freed.
const OWN_BYTES_MAX: usize = 64 << 10;
const GRAIN: usize = 16;
const FINE_BYTES_MAX: usize = 1024;
const FINE_CLASSES: usize = FINE_BYTES_MAX / GRAIN;
/// 2 KiB to [`OWN_BYTES_MAX`] in powers of two.
const COARSE_CLASSES: usize = 6;

/// The allocator; declare it with `#[global_allocator]`.
#[derive(Debug)]
pub struct Arena {
    is_locked: AtomicBool,
    inner: UnsafeCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    used_bytes: usize,
    /// First free block per class; each begins with the address of the next.
    free: [*mut u8; FINE_CLASSES + COARSE_CLASSES],
}

#[repr(align(4096))]
struct Memory(UnsafeCell<[u8; ARENA_BYTES]>);

// SAFETY: bytes of it are handed out once each, under the lock of the only `Arena` that a program declares.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; ARENA_BYTES]));

// SAFETY: `inner` is only touched between `lock` and `unlock`.
unsafe impl Sync for Arena {}

impl Arena {
    #[expect(clippy::new_without_default, reason = "a static needs a const constructor; there is one per program")]
    pub const fn new() -> Self {
        Self {
            is_locked: AtomicBool::new(false),
            inner: UnsafeCell::new(Inner { used_bytes: 0, free: [null_mut(); FINE_CLASSES + COARSE_CLASSES] }),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        while self.is_locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spin_loop();
        }
        // SAFETY: the lock is ours, so nobody else has a reference to the inner state.
        let inner = unsafe { &mut *self.inner.get() };
        let done = work(inner);
        self.is_locked.store(false, Ordering::Release);
        done
    }
}

/// Class and the size of its blocks; `None`: the system's business.
fn class_of(layout: Layout) -> Option<(usize, usize)> {
    if layout.align() > GRAIN || layout.size() > OWN_BYTES_MAX {
        return None;
    }
    if layout.size() <= FINE_BYTES_MAX {
        let grains = layout.size().div_ceil(GRAIN).max(1);
        return Some((grains - 1, grains * GRAIN));
    }
    let size = layout.size().next_power_of_two();
    let doublings = size.trailing_zeros() - FINE_BYTES_MAX.trailing_zeros();
    Some((FINE_CLASSES + doublings as usize - 1, size))
}

fn is_own(block: *mut u8) -> bool {
    let start = MEMORY.0.get() as usize;
    (start..start + ARENA_BYTES).contains(&(block as usize))
}

impl Inner {
    fn take(&mut self, class: usize, size: usize) -> *mut u8 {
        let first = self.free[class];
        if !first.is_null() {
            // SAFETY: a block in the list is free, at least 16 bytes long and aligned to them, and begins with the next one's address.
            self.free[class] = unsafe { first.cast::<*mut u8>().read() };
            return first;
        }
        if self.used_bytes + size > ARENA_BYTES {
            return null_mut();
        }
        // SAFETY: the offset lies within the array, as just checked.
        let block = unsafe { MEMORY.0.get().cast::<u8>().add(self.used_bytes) };
        self.used_bytes += size;
        block
    }

    fn give(&mut self, class: usize, block: *mut u8) {
        // SAFETY: the caller gives up a block of this class: at least 16 bytes, aligned to them.
        unsafe { block.cast::<*mut u8>().write(self.free[class]) };
        self.free[class] = block;
    }
}

// SAFETY: blocks are disjoint, at least as large as asked for and aligned to 16 bytes; whatever asks for more goes to `System`, and what came
// from there (told apart by its address) goes back there.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let own = class_of(layout).map_or(null_mut(), |(class, size)| self.with(|inner| inner.take(class, size)));
        if own.is_null() {
            // SAFETY: the caller keeps `alloc`'s contract, which is the same there.
            return unsafe { System.alloc(layout) };
        }
        own
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class_of(layout) {
            Some((class, _)) if is_own(block) => self.with(|inner| inner.give(class, block)),
            // SAFETY: it came from `System` with this layout.
            _ => unsafe { System.dealloc(block, layout) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn a_block_is_as_large_as_asked_for() {
        for size in 0..=OWN_BYTES_MAX {
            let (class, block) = class_of(layout(size, 8)).unwrap();
            assert!(block >= size && block % GRAIN == 0 && class < FINE_CLASSES + COARSE_CLASSES, "{size}");
        }
        assert_eq!(class_of(layout(OWN_BYTES_MAX, 8)).unwrap().0, FINE_CLASSES + COARSE_CLASSES - 1);
        assert_eq!(class_of(layout(OWN_BYTES_MAX + 1, 8)), None);
        assert_eq!(class_of(layout(8, 64)), None);
    }

    #[test]
    fn blocks_are_disjoint_and_come_back() {
        let arena = Arena::new();
        let sizes = [1, 16, 17, 1000, 1024, 1025, 5000, OWN_BYTES_MAX, OWN_BYTES_MAX + 1];
        // SAFETY: layouts have a size; blocks are used within it and freed once, with the same layout.
        let blocks: Vec<_> = sizes.iter().map(|size| unsafe { arena.alloc(layout(*size, 8)) }).collect();
        for ((size, block), mark) in sizes.iter().zip(&blocks).zip(1_u8..) {
            // SAFETY: the block has this size and is ours.
            unsafe { block.write_bytes(mark, *size) };
        }
        for ((size, block), mark) in sizes.iter().zip(&blocks).zip(1_u8..) {
            // SAFETY: the block has this size and was just written.
            assert!(unsafe { std::slice::from_raw_parts(*block, *size) }.iter().all(|byte| *byte == mark), "{size}");
            // SAFETY: allocated above with this layout.
            unsafe { arena.dealloc(*block, layout(*size, 8)) };
        }
        // SAFETY: as above.
        let again = unsafe { arena.alloc(layout(1025, 8)) };
        assert_eq!(again, blocks[5], "a freed block is used again");
    }
}
