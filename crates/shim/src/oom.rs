//! Watching the container's cgroup for kills by the kernel's OOM killer.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use tokio::io::Interest;

use crate::io::{set_nonblocking, watch};

/// v1 reports that memory ran out before it counts the kill: how often, and after which pause, the count is looked at again.
const LOOKS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// Calls `kills` (the count so far; `None`: the group is gone) and `report` when the count has grown. Ends with the group.
pub(crate) async fn follow(
    descriptor: OwnedFd,
    kills: impl Fn() -> Option<u64> + Send,
    report: impl Fn(u64) + Send,
) -> std::io::Result<()> {
    set_nonblocking(&descriptor)?;
    let watched = watch(descriptor, Interest::READABLE)?;
    let mut known = kills().unwrap_or_default();
    loop {
        watched.readable().await?.clear_ready();
        let mut notices = Vec::with_capacity(4096);
        while rustix::io::read(watched.get_ref(), spare_capacity(&mut notices)).is_ok_and(|read| read > 0) {
            notices.clear();
        }
        for _ in 0..LOOKS {
            let Some(now) = kills() else { return Ok(()) };
            if now > known {
                known = now;
                report(now);
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
