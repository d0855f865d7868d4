//! Who asks: the process at the other end of the connection a request came by. A face sets it for the time of a connection;
//! whatever works in a job of its own knows no caller.

use serde::{Deserialize, Serialize};

tokio::task_local! {
    static CALLER: Caller;
}

/// A client process, from the socket's credentials (unix(7), `SO_PEERCRED`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    pub pid: i32,
    pub uid: u32,
    /// Its name in the process list at the time; empty when it had gone already.
    #[serde(default)]
    pub name: String,
}

impl Caller {
    pub fn new(pid: i32, uid: u32) -> Self {
        Self { pid, uid, name: String::new() }
    }

    /// Runs a connection's work as asked by this caller.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CALLER.scope(self, work).await
    }

    /// The caller of the request at hand, with its name.
    pub(crate) fn current() -> Option<Self> {
        let mut caller = CALLER.try_with(Self::clone).ok()?;
        let name = std::fs::read_to_string(format!("/proc/{}/comm", caller.pid)).unwrap_or_default();
        name.trim_end().clone_into(&mut caller.name);
        Some(caller)
    }
}

impl std::fmt::Display for Caller {
    /// `uid 0, pid 4711 (docker)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "uid {}, pid {}", self.uid, self.pid)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " ({})", self.name) }
    }
}
