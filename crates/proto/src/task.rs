//! The Task service, the same under two names: containerd 1.x calls `containerd.task.v2.Task`, 2.x `containerd.task.v3.Task`.

use std::collections::HashMap;
use std::sync::Arc;

pub use containerd_shim_protos::api::*;
pub use containerd_shim_protos::shim_async::Task;
use ttrpc::r#async::Service;

/// Under which name a shim answers; the messages are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskApi {
    V2,
    V3,
}

impl TaskApi {
    /// Full name of the ttrpc service.
    pub const fn service(self) -> &'static str {
        match self {
            Self::V2 => "containerd.task.v2.Task",
            Self::V3 => "containerd.task.v3.Task",
        }
    }

    /// The version number of a bootstrap answer.
    pub const fn from_version(version: i32) -> Option<Self> {
        match version {
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            _ => None,
        }
    }
}

/// Tables for a server that answers under both names.
pub fn services(task: &Arc<dyn Task + Send + Sync>) -> HashMap<String, Service> {
    [TaskApi::V2, TaskApi::V3]
        .into_iter()
        .flat_map(|api| {
            containerd_shim_protos::shim_async::create_task(Arc::clone(task))
                .into_values()
                .map(move |service| (api.service().to_owned(), service))
        })
        .collect()
}
