//! Waiting for another's start that is under way: a client may have the first words of a process before its start is noted.
//!
//! A start that joins namespaces waits while it holds its own container's `operation`, so starts that join each other in a ring would wait for
//! ever: each says whom it awaits (`Inner::awaits`) before it looks where that leads, and the last one to come finds itself and is refused.

use std::sync::Arc;

use berth_types::ContainerId;

use crate::config::HostConfig;
use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::error::{EngineError, Result};

impl Engine {
    /// The live run; that of a start under way once it is known. Not for who holds `operation`.
    ///
    /// # Errors
    /// `FailedPrecondition` when the container does not run.
    pub(crate) async fn live(&self, container: &Container) -> Result<Arc<Run>> {
        if let Ok(run) = container.running() {
            return Ok(run);
        }
        self.inner.faults.pass("start.await");
        drop(container.operation.lock().await);
        container.running()
    }

    /// Waits until the containers whose namespaces this one joins are no longer just being started. Whether they run, and whether they exist, is
    /// asked when their namespaces are opened.
    ///
    /// # Errors
    /// `FailedPrecondition` when one of them waits for this one in turn.
    pub(super) async fn await_joined(&self, container: &Container, host: &HostConfig) -> Result<()> {
        for name in joined_names(host) {
            let Ok(other) = self.find(name) else { continue };
            if other.id == container.id {
                continue;
            }
            let awaiting = Awaiting::new(container, &other.id);
            let next = |id: &ContainerId| self.inner.registry.find(id.as_str()).ok()?.lock().awaits.clone();
            if leads_to(&other.id, &container.id, next) {
                return Err(EngineError::conflict(format!(
                    "containers {} and {} join each other's namespaces: neither can be started first",
                    container.name(),
                    other.name()
                )));
            }
            // A container that does not run is told by who opens its namespaces.
            drop(self.live(&other).await);
            drop(awaiting);
        }
        Ok(())
    }
}

/// Said for as long as it lives.
struct Awaiting<'a>(&'a Container);

impl<'a> Awaiting<'a> {
    fn new(container: &'a Container, other: &ContainerId) -> Self {
        container.lock().awaits = Some(other.clone());
        Self(container)
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.lock().awaits = None;
    }
}

fn joined_names(host: &HostConfig) -> impl Iterator<Item = &str> {
    let modes =
        [&host.network_mode, &host.pid_mode, &host.ipc_mode, &host.uts_mode, &host.cgroupns_mode, &host.userns_mode];
    modes.into_iter().filter_map(|mode| mode.strip_prefix("container:"))
}

/// Whether who awaits whom leads from one to another. A ring that others have closed is theirs to be refused.
fn leads_to(from: &ContainerId, to: &ContainerId, next: impl Fn(&ContainerId) -> Option<ContainerId>) -> bool {
    let mut seen = vec![from.clone()];
    while let Some(id) = seen.last().and_then(&next) {
        if id == *to {
            return true;
        }
        if seen.contains(&id) {
            return false;
        }
        seen.push(id);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: char) -> ContainerId {
        String::from(letter).repeat(64).parse().unwrap()
    }

    #[test]
    fn rings_are_found_by_who_closes_them() {
        let check = |pairs: &[(char, char)], from, is_found| {
            let next =
                |asked: &ContainerId| pairs.iter().find(|(who, _)| id(*who) == *asked).map(|(_, whom)| id(*whom));
            assert_eq!(leads_to(&id(from), &id('a'), next), is_found, "{pairs:?} from {from}");
        };
        check(&[('a', 'b')], 'b', false);
        check(&[('a', 'b'), ('b', 'a')], 'b', true);
        check(&[('a', 'b'), ('b', 'c'), ('c', 'a')], 'b', true);
        check(&[('a', 'b'), ('b', 'c')], 'b', false);
        check(&[('a', 'b'), ('b', 'c'), ('c', 'd'), ('d', 'c')], 'b', false);
    }

    #[test]
    fn every_mode_may_name_a_container() {
        let host = HostConfig {
            network_mode: "container:n".to_owned(),
            pid_mode: "host".to_owned(),
            ipc_mode: "container:i".to_owned(),
            uts_mode: "container:u".to_owned(),
            cgroupns_mode: "container:c".to_owned(),
            userns_mode: "container:us".to_owned(),
            ..HostConfig::default()
        };
        assert_eq!(joined_names(&host).collect::<Vec<_>>(), ["n", "i", "u", "c", "us"]);
    }
}
