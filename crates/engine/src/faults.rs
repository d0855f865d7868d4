//! Failure injection: a test arms a named step of a start, and that step fails after it was done (the worst moment for a roll-back).

use parking_lot::Mutex;

use crate::engine::Engine;
use crate::error::{EngineError, Result};

#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: Mutex<Vec<String>>,
}

impl Faults {
    /// Fails once for an armed step.
    pub(crate) fn check(&self, step: &str) -> Result<()> {
        let mut armed = self.armed.lock();
        let Some(index) = armed.iter().position(|name| name == step) else { return Ok(()) };
        armed.swap_remove(index);
        Err(EngineError::internal(format!("injected failure after step {step}")))
    }
}

impl Engine {
    /// For tests (S-155): the next time the named step of a create or start has been done, it is treated as failed.
    /// Steps: `metadata.create snapshot.prepare network.attach shim.start bundle.write task.create task.start`.
    pub fn inject_failure(&self, step: &str) {
        self.inner.faults.armed.lock().push(step.to_owned());
    }
}
