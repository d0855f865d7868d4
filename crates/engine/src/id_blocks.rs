//! Blocks of 65536 host ids for user namespaces (`--userns auto`): each container that asks has one for itself.
//!
//! The pool begins at 2^20 (above what distributions give to people) and has 16384 blocks, up to 2^30 + 2^20. Which are taken is
//! known from the containers' records; nothing else is stored.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::error::{EngineError, Result};

pub(crate) const BLOCK_SIZE: u32 = 65_536;
const POOL_START: u32 = 1 << 20;
const BLOCKS: u32 = 16_384;

#[derive(Debug, Default)]
pub(crate) struct IdBlocks {
    taken: Mutex<BTreeSet<u32>>,
}

impl IdBlocks {
    /// The first id of a free block.
    pub(crate) fn take(&self) -> Result<u32> {
        let mut taken = self.taken.lock();
        let free = (0..BLOCKS).map(|n| POOL_START + n * BLOCK_SIZE).find(|start| !taken.contains(start));
        let start = free.ok_or_else(|| {
            EngineError::new(
                berth_types::ErrorClass::ResourceExhausted,
                "no block of user ids is free: all 16384 are in use",
            )
            .with_hint("remove containers that use --userns auto")
        })?;
        taken.insert(start);
        Ok(start)
    }

    /// A block an earlier daemon gave out.
    pub(crate) fn restore(&self, start: u32) {
        self.taken.lock().insert(start);
    }

    pub(crate) fn free(&self, start: u32) {
        self.taken.lock().remove(&start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap_and_come_back() {
        let blocks = IdBlocks::default();
        blocks.restore(POOL_START);
        let (a, b) = (blocks.take().unwrap(), blocks.take().unwrap());
        assert_eq!((a, b), (POOL_START + BLOCK_SIZE, POOL_START + 2 * BLOCK_SIZE));
        blocks.free(a);
        assert_eq!(blocks.take().unwrap(), a);
        assert!(POOL_START.checked_add(BLOCKS * BLOCK_SIZE).is_some());
    }
}
