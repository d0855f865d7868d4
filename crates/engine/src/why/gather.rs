//! The facts of an end, read while the control group and the bundle are still there.

use berth_cgroup::Cgroup;
use berth_core::Bundle;
use berth_shim_client::ExitStatus;

use super::audit::{KilledCall, killed_call};
use super::end::End;
use crate::engine::Engine;
use crate::record::Record;

/// signal(7).
const SIGSYS: i32 = 31;

impl Engine {
    /// Completes what is known of a run that has just ended. Of a good exit only the kernel's count of kills is read: that is
    /// on the way of every `run`.
    pub(crate) fn gather_end(&self, record: &Record, bundle: &Bundle, status: ExitStatus, shim_lost: bool) -> End {
        let mut end = record.state.end.clone();
        end.shim_lost = shim_lost;
        if let Some(note) = bundle.exit_note() {
            end.signal = Some(note.signal);
            end.core_dumped = note.core_dumped;
            end.oom_kills = note.oom_kills;
        }
        let Some(layout) = &self.inner.facts.cgroups else { return end };
        let Ok(group) = Cgroup::open(layout, &self.cgroup_path(record)) else { return end };
        if status.code == 0 && !shim_lost {
            end.oom_kills = end.oom_kills.max(group.oom_kills().unwrap_or(0));
            return end;
        }
        let Ok(sample) = group.stats() else { return end };
        end.oom_kills = end.oom_kills.max(sample.memory.oom_kills);
        end.memory_limit_bytes = sample.memory.limit.filter(|limit| *limit < self.inner.facts.memory_bytes);
        end.memory_peak_bytes = sample.memory.max_usage;
        end.memory_limit_hits = sample.memory.failcnt;
        end.pids_limit = sample.pids.limit;
        end.forks_refused = sample.pids.refused;
        end
    }

    /// The call for which a filter ended the process. The kernel's log may be long: it is read on a thread for it.
    pub(crate) async fn call_of_the_end(&self, end: &End, pid: u32, status: ExitStatus) -> Option<KilledCall> {
        if end.signal != Some(SIGSYS) {
            return None;
        }
        self.blocking(move |_| Ok(killed_call(pid, status.exited_at))).await.ok().flatten()
    }
}
