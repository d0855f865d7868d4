//! One sample of what a container uses: its control group, and the counters of its network namespace.

use std::collections::BTreeMap;
use std::io::Read;

use berth_cgroup::{Cgroup, CgroupError};
use berth_types::Timestamp;

use crate::api::{NetworkCounters, Stats};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::Result;

/// Interfaces of a container are few; a hostile one may make many.
const NET_DEV_BYTES_MAX: u64 = 256 * 1024;

impl Engine {
    /// Counters as the kernel has them. Of a container that does not run: an empty sample, as in Docker.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stats(&self, container_ref: &str) -> Result<Stats> {
        let empty = Stats { online_cpus: u32::try_from(self.inner.facts.cpus).unwrap_or(1), ..Stats::default() };
        if let Some(foreign) = self.foreign(container_ref) {
            return self.foreign_stats(&foreign, empty).await;
        }
        let container = self.find(container_ref)?;
        let record = container.record();
        let Some(layout) = self.inner.facts.cgroups.as_ref().filter(|_| record.state.is_running()) else {
            return Ok(empty);
        };
        let sample = Cgroup::open(layout, &self.cgroup_path(&record)).and_then(|group| group.stats());
        let sample = match sample {
            Ok(sample) => sample,
            // Another runtime keeps it elsewhere, or in a kernel of its own.
            Err(CgroupError::NotFound { .. }) if !record.host.runtime.is_empty() => {
                match self.asked_of_the_shim(&container).await {
                    Some(sample) => sample,
                    None => return Ok(empty),
                }
            }
            // It ended between the look at its state and the look at its group.
            Err(_) if !container.lock().record.state.is_running() => return Ok(empty),
            Err(error) => return Err(error.into()),
        };
        Ok(self.stats_of(sample, record.state.pid))
    }

    /// A group's sample with what is measured beside it.
    pub(crate) fn stats_of(&self, sample: berth_cgroup::Stats, pid: u32) -> Stats {
        let mut stats = from_sample(sample, self.inner.facts.memory_bytes);
        stats.online_cpus = u32::try_from(self.inner.facts.cpus).unwrap_or(1);
        stats.system_cpu_ns = system_cpu_ns(&std::fs::read_to_string("/proc/stat").unwrap_or_default());
        stats.networks = networks(pid);
        stats.read_at = Some(Timestamp::now());
        stats
    }
}

impl Engine {
    async fn asked_of_the_shim(&self, container: &Container) -> Option<berth_cgroup::Stats> {
        let run = container.lock().run.clone()?;
        let usage = run.task.shim().usage().await.ok().flatten()?;
        let mut sample = berth_cgroup::Stats::default();
        sample.cpu.total_ns = usage.cpu_total_ns;
        sample.memory.usage = usage.memory_bytes;
        sample.pids.current = usage.pids;
        Some(sample)
    }
}

fn from_sample(sample: berth_cgroup::Stats, host_memory: u64) -> Stats {
    let block = |entries: Vec<berth_cgroup::BlockIoEntry>| {
        entries.into_iter().map(|e| (e.major, e.minor, e.op, e.value)).collect()
    };
    Stats {
        cpu_total_ns: sample.cpu.total_ns,
        cpu_user_ns: sample.cpu.user_ns,
        cpu_system_ns: sample.cpu.system_ns,
        cpu_per_cpu_ns: sample.cpu.percpu_ns,
        cpu_periods: sample.cpu.periods,
        cpu_throttled_periods: sample.cpu.throttled_periods,
        cpu_throttled_ns: sample.cpu.throttled_ns,
        memory_usage: sample.memory.usage,
        memory_max_usage: sample.memory.max_usage,
        memory_limit: sample.memory.limit.unwrap_or(host_memory).min(host_memory),
        memory_stats: sample.memory.stat,
        oom_kills: sample.memory.oom_kills,
        pids_current: sample.pids.current,
        pids_limit: sample.pids.limit,
        blkio_bytes: block(sample.block_io.service_bytes),
        blkio_ops: block(sample.block_io.serviced),
        ..Stats::default()
    }
}

/// CPU time of the whole host, all processors, idle included, as Docker counts it.
fn system_cpu_ns(stat: &str) -> u64 {
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    // user nice system idle iowait irq softirq: the rest is counted in these.
    let ticks: u64 = line.split_ascii_whitespace().take(7).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks.saturating_mul(1_000_000_000 / ticks_per_second)
}

pub(crate) fn networks(pid: u32) -> BTreeMap<String, NetworkCounters> {
    let mut text = String::new();
    let read = std::fs::File::open(format!("/proc/{pid}/net/dev"))
        .and_then(|file| file.take(NET_DEV_BYTES_MAX).read_to_string(&mut text));
    if read.is_err() {
        return BTreeMap::new();
    }
    net_dev(&text)
}

fn net_dev(text: &str) -> BTreeMap<String, NetworkCounters> {
    let mut networks = BTreeMap::new();
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let n: Vec<u64> = numbers.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
        let name = name.trim();
        if let (
            true,
            [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..],
        ) = (name != "lo", n.as_slice())
        {
            let counters = NetworkCounters {
                rx_bytes: *rx_bytes,
                rx_packets: *rx_packets,
                rx_errors: *rx_errors,
                rx_dropped: *rx_dropped,
                tx_bytes: *tx_bytes,
                tx_packets: *tx_packets,
                tx_errors: *tx_errors,
                tx_dropped: *tx_dropped,
            };
            networks.insert(name.to_owned(), counters);
        }
    }
    networks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts() {
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n";
        let networks = net_dev(dev);
        assert_eq!(networks.len(), 1);
        assert_eq!((networks["eth0"].rx_bytes, networks["eth0"].tx_dropped), (10, 8));
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        assert_eq!(system_cpu_ns("cpu  1 2 3 4 5 6 7 100 100\ncpu0 1 1 1\n"), 28 * tick);
    }
}
