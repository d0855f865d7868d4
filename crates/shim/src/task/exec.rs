//! Exec: a process is added to a running task; it gets its kernel process by Start. Clients may attach in between.

use std::sync::Arc;

use berth_types::ExecId;

use super::Shim;
use super::create::open_io;
use crate::error::TaskError;
use crate::process::{Addresses, Process};

#[derive(Debug)]
pub(crate) struct ExecRequest {
    pub(crate) id: String,
    pub(crate) exec_id: String,
    pub(crate) addresses: Addresses,
    /// JSON of the runtime-spec's `Process`.
    pub(crate) process: Vec<u8>,
}

impl Shim {
    pub(crate) async fn add_exec(&self, request: ExecRequest) -> Result<(), TaskError> {
        let ExecRequest { id, exec_id, addresses, process } = request;
        let checked: ExecId = exec_id.parse().map_err(|source| TaskError::Id { id: exec_id.clone(), source })?;
        let parsed = berth_oci::document::process(&process)
            .map_err(|source| TaskError::Document { what: "the process", source })?;
        parsed.warnings.iter().for_each(|warning| crate::log::warn(warning));
        let plan = parsed.document;
        let process = self.with(&id, |task| {
            task.expect_running("add a process", false)?;
            if task.execs.contains_key(checked.as_str()) {
                return Err(TaskError::ProcessExists { id: id.clone(), exec_id: exec_id.clone() });
            }
            let io = open_io(&addresses, self, &exec_id, task.io_owner)?;
            let process = Process::new(id.clone(), exec_id.clone(), addresses, io, Some(plan));
            task.execs.insert(exec_id.clone(), Arc::clone(&process));
            Ok(process)
        })?;
        if let Err(error) = process.io.ready().await {
            self.with(&id, |task| Ok(task.execs.remove(&exec_id)))?;
            tokio::spawn(async move { process.io.settle().await });
            return Err(error.into());
        }
        self.events.exec_added(id, exec_id);
        Ok(())
    }
}
