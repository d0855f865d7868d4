//! Watching the container's cgroup for kills by the kernel's OOM killer.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use tokio::io::Interest;

use crate::io::{set_nonblocking, watch};

/// v1 reports that memory ran out before it counts the kill: how often, and after which pause, the count is looked at again.
const LOOKS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// Calls `look` when something may have happened; it says whether there was a kill (`None`: the group is gone). Ends with the group.
pub(crate) async fn follow(descriptor: OwnedFd, look: impl Fn() -> Option<bool> + Send) -> std::io::Result<()> {
    set_nonblocking(&descriptor)?;
    let watched = watch(descriptor, Interest::READABLE)?;
    loop {
        watched.readable().await?.clear_ready();
        let mut notices = Vec::with_capacity(4096);
        while rustix::io::read(watched.get_ref(), spare_capacity(&mut notices)).is_ok_and(|read| read > 0) {
            notices.clear();
        }
        for _ in 0..LOOKS {
            match look() {
                None => return Ok(()),
                Some(true) => break,
                Some(false) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
