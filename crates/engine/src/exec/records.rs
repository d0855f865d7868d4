//! Exec records in memory: what is running, and a bounded number of those that have ended.

use std::collections::HashMap;
use std::time::Duration;

use berth_types::{ContainerId, ErrorClass, ExecId, Span};
use parking_lot::Mutex;

use crate::api::ExecConfig;
use crate::error::{EngineError, Result};

/// Records kept per container; ended ones make room, oldest first.
const EXECS_MAX: usize = 128;
/// Processes that run or wait to be started, per container.
const LIVE_MAX: usize = 4096;

/// Longest wait of `inspect` for an exit that is on its way.
const SETTLE_WAIT: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(crate) struct Execs {
    inner: Mutex<Inner>,
    /// Some exec has another state.
    changed: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<String, Exec>,
    /// In order of creation.
    by_container: HashMap<ContainerId, Vec<String>>,
}

#[derive(Debug, Clone)]
pub(super) struct Exec {
    pub(super) id: ExecId,
    pub(super) container_id: ContainerId,
    pub(super) config: ExecConfig,
    pub(super) state: ExecState,
    pub(super) pid: u32,
    /// Steps so far.
    pub(super) spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExecState {
    Created,
    Starting,
    Running,
    Ended(i32),
}

impl Execs {
    /// Returns the ended ones that made room.
    pub(super) fn add(&self, exec: Exec) -> Result<Vec<String>> {
        let mut evicted = Vec::new();
        let mut inner = self.inner.lock();
        let Inner { by_id, by_container } = &mut *inner;
        let ids = by_container.entry(exec.container_id.clone()).or_default();
        while ids.len() >= EXECS_MAX {
            let is_ended = |id: &String| by_id.get(id).is_none_or(|e| matches!(e.state, ExecState::Ended(_)));
            let Some(index) = ids.iter().position(is_ended) else { break };
            let id = ids.remove(index);
            by_id.remove(&id);
            evicted.push(id);
        }
        if ids.len() >= LIVE_MAX {
            return Err(EngineError::new(
                ErrorClass::ResourceExhausted,
                format!("container has {LIVE_MAX} exec processes already"),
            ));
        }
        ids.push(exec.id.to_string());
        by_id.insert(exec.id.to_string(), exec);
        Ok(evicted)
    }

    pub(super) fn get(&self, exec_id: &str) -> Result<Exec> {
        let inner = self.inner.lock();
        inner
            .by_id
            .get(exec_id)
            .cloned()
            .ok_or_else(|| EngineError::not_found(format!("No such exec instance: {exec_id}")))
    }

    pub(super) fn change(&self, exec_id: &ExecId, change: impl FnOnce(&mut Exec)) {
        if let Some(exec) = self.inner.lock().by_id.get_mut(exec_id.as_str()) {
            change(exec);
        }
        self.changed.notify_waiters();
    }

    /// Steps of an exec so far.
    pub(crate) fn spans(&self, exec_id: &str) -> Result<Vec<Span>> {
        self.get(exec_id).map(|exec| exec.spans)
    }

    pub(super) fn add_span(&self, exec_id: &ExecId, span: Span) {
        self.change(exec_id, |exec| exec.spans.push(span));
    }

    /// The state once it is settled: a client whose stream has just ended asks for the exit code before we have heard of the exit.
    pub(super) async fn settled(&self, exec_id: &str) -> Result<Exec> {
        let deadline = tokio::time::Instant::now() + SETTLE_WAIT;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let exec = self.get(exec_id)?;
            let is_settled = match exec.state {
                ExecState::Created | ExecState::Ended(_) => true,
                ExecState::Starting => false,
                ExecState::Running => is_alive(exec.pid),
            };
            if is_settled || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(exec);
            }
        }
    }

    /// Created to starting, once.
    pub(super) fn claim(&self, exec_id: &str) -> Result<Exec> {
        let mut inner = self.inner.lock();
        let exec = inner
            .by_id
            .get_mut(exec_id)
            .ok_or_else(|| EngineError::not_found(format!("No such exec instance: {exec_id}")))?;
        match exec.state {
            ExecState::Created => exec.state = ExecState::Starting,
            ExecState::Ended(_) => return Err(EngineError::conflict(format!("exec {exec_id} has already run"))),
            _ => return Err(EngineError::conflict(format!("exec {exec_id} is already running"))),
        }
        Ok(exec.clone())
    }

    pub(crate) fn of_container(&self, id: &ContainerId) -> Vec<String> {
        let inner = self.inner.lock();
        let is_live = |exec: &&String| {
            inner.by_id.get(*exec).is_some_and(|e| matches!(e.state, ExecState::Starting | ExecState::Running))
        };
        inner.by_container.get(id).into_iter().flatten().filter(is_live).cloned().collect()
    }

    pub(crate) fn forget_container(&self, id: &ContainerId) {
        let mut inner = self.inner.lock();
        for exec_id in inner.by_container.remove(id).unwrap_or_default() {
            inner.by_id.remove(&exec_id);
        }
    }
}

/// Neither gone nor a zombie that its shim is about to reap.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X') | None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(n: usize, state: ExecState) -> Exec {
        Exec {
            id: format!("e{n}").parse().unwrap(),
            container_id: "c".parse().unwrap(),
            config: ExecConfig::default(),
            state,
            pid: 0,
            spans: Vec::new(),
        }
    }

    #[test]
    fn ended_records_make_room_live_ones_stay() {
        let execs = Execs::default();
        execs.add(exec(0, ExecState::Running)).unwrap();
        for n in 1..1000 {
            execs.add(exec(n, ExecState::Ended(0))).unwrap();
        }
        assert_eq!(execs.inner.lock().by_id.len(), EXECS_MAX);
        assert_eq!(execs.of_container(&"c".parse().unwrap()), ["e0"]);
        assert!(execs.get("e1").is_err() && execs.get("e999").is_ok());
        execs.forget_container(&"c".parse().unwrap());
        assert!(execs.inner.lock().by_id.is_empty());
    }

    #[test]
    fn an_exec_starts_once() {
        let execs = Execs::default();
        execs.add(exec(1, ExecState::Created)).unwrap();
        execs.claim("e1").unwrap();
        assert_eq!(execs.claim("e1").unwrap_err().class, ErrorClass::FailedPrecondition);
        execs.change(&"e1".parse().unwrap(), |e| e.state = ExecState::Ended(3));
        assert_eq!(execs.claim("e1").unwrap_err().message, "exec e1 has already run");
        assert_eq!(execs.claim("nope").unwrap_err().class, ErrorClass::NotFound);
    }
}
