//! `events`: resource use at intervals, and running out of memory when it happens, one JSON document a line.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use berth_cgroup::{BlockIoEntry, Stats};
use berth_runtime::{Container, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Map, Value, json};

use super::print;
use crate::error::CommandError;
use crate::paths;

/// On v1 the kernel tells before it counts the kill: how long, and how often within it, the count is looked at again.
const COUNT_WAIT: Duration = Duration::from_secs(1);
const COUNT_STEP: Duration = Duration::from_millis(10);

pub(crate) fn events(root: &Path, id: &str, once: bool, interval: Duration) -> Result<(), CommandError> {
    let container = paths::container(root, id)?;
    if container.status() == Status::Stopped {
        return Err(CommandError::State(format!("container with id {id} is not running")));
    }
    if once {
        return print_stats(&container, id);
    }
    let mut memory = Memory::watch(&container)?;
    let mut next = Instant::now() + interval;
    loop {
        let until = next.saturating_duration_since(Instant::now());
        let Woken { ended, memory: is_memory } = wait(&container, &memory, until)?;
        if is_memory {
            memory.drain();
        }
        if memory.kills_since(&container, if is_memory && !ended { COUNT_WAIT } else { Duration::ZERO }) {
            print(&format!(r#"{{"type":"oom","id":"{id}"}}"#));
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            print_stats(&container, id)?;
            next = Instant::now() + interval;
        }
    }
}

/// The kernel's word on the group's memory.
struct Memory {
    watch: OwnedFd,
    kills: u64,
}

impl Memory {
    fn watch(container: &Container) -> Result<Self, CommandError> {
        let watch = container.oom_watch()?;
        Ok(Self { watch, kills: container.oom_kills().unwrap_or(0) })
    }

    fn drain(&self) {
        // One read empties an eventfd, and an inotify queue of one watch.
        let _nothing_there = rustix::io::read(&self.watch, &mut [0; 4096]);
    }

    fn kills_since(&mut self, container: &Container, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        loop {
            // A group that is gone says nothing new.
            let kills = container.oom_kills().unwrap_or(self.kills);
            let is_more = kills > self.kills;
            self.kills = kills;
            if is_more || Instant::now() >= deadline {
                return is_more;
            }
            let step = Timespec::try_from(COUNT_STEP).ok();
            let mut ended = [PollFd::from_borrowed_fd(container.init.pidfd.as_fd(), PollFlags::IN)];
            if matches!(poll(&mut ended, step.as_ref()), Ok(1)) {
                let kills = container.oom_kills().unwrap_or(self.kills);
                return std::mem::replace(&mut self.kills, kills) < kills;
            }
        }
    }
}

struct Woken {
    ended: bool,
    memory: bool,
}

fn wait(container: &Container, memory: &Memory, until: Duration) -> Result<Woken, CommandError> {
    let too_long = |_| CommandError::Usage("--interval is too long".to_owned());
    let timeout = Timespec::try_from(until).map_err(too_long)?;
    let mut fds = [
        PollFd::from_borrowed_fd(container.init.pidfd.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(memory.watch.as_fd(), PollFlags::IN),
    ];
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(source) => return Err(CommandError::Kernel { what: "wait", source }),
    }
    let [ended, memory] = fds.map(|fd| !fd.revents().is_empty());
    Ok(Woken { ended, memory })
}

fn print_stats(container: &Container, id: &str) -> Result<(), CommandError> {
    // In runc's order: scripts look at the beginning of a line. An id needs no escapes.
    print(&format!(r#"{{"type":"stats","id":"{id}","data":{}}}"#, document(&container.stats()?)));
    Ok(())
}

/// In runc's form: types/events.go of its sources.
fn document(stats: &Stats) -> Value {
    let unlimited = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let (cpu, memory) = (&stats.cpu, &stats.memory);
    // `cache` on v1, `file` on v2.
    let cache = memory.stat.get("cache").or_else(|| memory.stat.get("file")).copied().unwrap_or(0);
    let hugetlb: Map<String, Value> = stats
        .hugetlb
        .iter()
        .map(|(size, use_)| {
            (size.clone(), json!({"usage": use_.usage, "max": use_.max_usage, "failcnt": use_.failcnt}))
        })
        .collect();
    json!({
        "cpu": {
            "usage": {"total": cpu.total_ns, "percpu": cpu.percpu_ns, "kernel": cpu.system_ns, "user": cpu.user_ns},
            "throttling": {"periods": cpu.periods, "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns},
        },
        "memory": {
            "cache": cache,
            "usage": {"limit": unlimited(memory.limit), "usage": memory.usage, "max": memory.max_usage,
                "failcnt": memory.failcnt},
            "swap": {"limit": unlimited(memory.swap_limit), "usage": memory.swap_usage, "failcnt": 0},
            "raw": memory.stat,
        },
        "pids": {"current": stats.pids.current, "limit": stats.pids.limit.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": block_io(&stats.block_io.service_bytes),
            "ioServicedRecursive": block_io(&stats.block_io.serviced),
        },
        "hugetlb": hugetlb,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn block_io(entries: &[BlockIoEntry]) -> Vec<Value> {
    let entry = |e: &BlockIoEntry| json!({"major": e.major, "minor": e.minor, "op": e.op, "value": e.value});
    entries.iter().map(entry).collect()
}
