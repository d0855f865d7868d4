//! `update`: limits and restart policy of an existing container, live where it runs.

use std::sync::Arc;

use crate::api::UpdateRequest;
use crate::config::Resources;
use crate::engine::Engine;
use crate::error::{Doing, EngineError, Result};
use crate::host_objects::block_devices_of;
use crate::request::limits;
use crate::spec::resources;

impl Engine {
    /// Returns warnings.
    ///
    /// # Errors
    /// `InvalidArgument` for what cannot be; the kernel's, through the shim. Then nothing is changed.
    pub async fn update(&self, container_ref: &str, update: UpdateRequest) -> Result<Vec<String>> {
        let container = self.find(container_ref)?;
        let _operation = container.operation.lock().await;
        container.ensure_present()?;
        let (record, run) = {
            let inner = container.lock();
            (inner.record.clone(), inner.run.clone().filter(|_| inner.record.state.is_running()))
        };
        if record.host.auto_remove && update.restart_policy.is_some_and(|p| p != crate::config::RestartPolicy::No) {
            return Err(EngineError::invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        let merged = merge(&record.host.resources, &update.resources);
        let mut warnings = Vec::new();
        limits::check(&merged, &self.inner.facts, &mut warnings)?;
        self.inner.faults.check("update.limits")?;
        if let Some(run) = run {
            let block_devices = block_devices_of(&update.resources)?;
            let mut changed = resources::for_update(&with_pairs(&update.resources, &merged), &block_devices);
            changed.set_devices(None);
            let json = serde_json::to_vec(&changed)
                .map_err(|e| EngineError::internal(format!("cannot encode limits: {e}")))?;
            run.task.update(&json).await.doing(|| format!("cannot update container {}", record.name))?;
            self.inner.faults.pass("update.kernel");
        }
        {
            let mut inner = container.lock();
            let host = Arc::make_mut(&mut inner.record.host);
            host.resources = merged;
            if let Some(policy) = update.restart_policy {
                host.restart_policy = policy;
            }
        }
        self.persist(&container).await?;
        self.inner.faults.pass("update.keep");
        self.emit_container(&container.record(), "update", &[]);
        self.inner.faults.pass("update.told");
        Ok(warnings)
    }
}

/// What is not asked stays.
fn merge(old: &Resources, new: &Resources) -> Resources {
    fn number(old: Option<i64>, new: Option<i64>) -> Option<i64> {
        new.filter(|n| *n != 0).or(old)
    }
    fn text(old: &str, new: &str) -> String {
        if new.is_empty() { old } else { new }.to_owned()
    }
    fn list<T: Clone>(old: &[T], new: &[T]) -> Vec<T> {
        if new.is_empty() { old } else { new }.to_vec()
    }
    // `--cpus` and period with quota are two ways to say one thing: the newer one wins.
    let is_by_quota = new.cpu_quota_us.is_some_and(|q| q != 0) || new.cpu_period_us.is_some_and(|p| p != 0);
    let is_by_cpus = new.nano_cpus.is_some_and(|n| n != 0);
    Resources {
        memory: number(old.memory, new.memory),
        memory_reservation: number(old.memory_reservation, new.memory_reservation),
        memory_swap: number(old.memory_swap, new.memory_swap),
        memory_swappiness: new.memory_swappiness.or(old.memory_swappiness),
        nano_cpus: if is_by_quota { None } else { number(old.nano_cpus, new.nano_cpus) },
        cpu_shares: number(old.cpu_shares, new.cpu_shares),
        cpu_period_us: if is_by_cpus { None } else { number(old.cpu_period_us, new.cpu_period_us) },
        cpu_quota_us: if is_by_cpus { None } else { number(old.cpu_quota_us, new.cpu_quota_us) },
        cpu_rt_period_us: number(old.cpu_rt_period_us, new.cpu_rt_period_us),
        cpu_rt_runtime_us: number(old.cpu_rt_runtime_us, new.cpu_rt_runtime_us),
        cpuset_cpus: text(&old.cpuset_cpus, &new.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, &new.cpuset_mems),
        pids_limit: number(old.pids_limit, new.pids_limit),
        blkio_weight: new.blkio_weight.filter(|w| *w != 0).or(old.blkio_weight),
        blkio_weight_device: list(&old.blkio_weight_device, &new.blkio_weight_device),
        device_read_bps: list(&old.device_read_bps, &new.device_read_bps),
        device_write_bps: list(&old.device_write_bps, &new.device_write_bps),
        device_read_iops: list(&old.device_read_iops, &new.device_read_iops),
        device_write_iops: list(&old.device_write_iops, &new.device_write_iops),
    }
}

/// Values the kernel takes only together: a new memory limit is sent with the swap limit in force.
fn with_pairs(new: &Resources, merged: &Resources) -> Resources {
    let mut sent = new.clone();
    if new.memory.is_some_and(|m| m != 0) && new.memory_swap.is_none_or(|s| s == 0) {
        sent.memory_swap = merged.memory_swap;
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_changes() {
        let old =
            Resources { memory: Some(1 << 30), nano_cpus: Some(500), cpuset_cpus: "0".into(), ..Resources::default() };
        let new = Resources { memory: Some(2 << 30), cpu_quota_us: Some(5000), ..Resources::default() };
        let merged = merge(&old, &new);
        assert_eq!((merged.memory, merged.cpuset_cpus.as_str()), (Some(2 << 30), "0"));
        assert_eq!((merged.nano_cpus, merged.cpu_quota_us), (None, Some(5000)));
        assert_eq!(merge(&old, &Resources::default()), old);
    }
}
