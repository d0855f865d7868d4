//! All containers by id and name. One lock, held for look-ups only; a name is reserved before the work of create begins.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use berth_types::ContainerId;
use parking_lot::RwLock;

use crate::container::Container;
use crate::error::{EngineError, Result};

#[derive(Debug, Default)]
pub(crate) struct Registry {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<String, Arc<Container>>,
    names: HashMap<String, ContainerId>,
}

/// A name that is taken for a container being created; freed again unless the container is added.
#[derive(Debug)]
pub(crate) struct NameReservation<'a> {
    registry: &'a Registry,
    name: String,
    is_kept: bool,
}

impl Drop for NameReservation<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.registry.inner.write().names.remove(&self.name);
        }
    }
}

impl NameReservation<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

pub(crate) fn conflict(name: &str, owner: impl std::fmt::Display) -> EngineError {
    EngineError::new(
        berth_types::ErrorClass::AlreadyExists,
        format!("Conflict. The container name \"/{name}\" is already in use by container \"{owner}\""),
    )
    .with_hint(format!("remove or rename that container, or choose another name: berth rm {name}"))
}

impl Registry {
    /// # Errors
    /// `AlreadyExists`, naming the owner.
    pub(crate) fn reserve(&self, name: &str, id: &ContainerId) -> Result<NameReservation<'_>> {
        let mut inner = self.inner.write();
        if let Some(owner) = inner.names.get(name) {
            return Err(conflict(name, owner));
        }
        inner.names.insert(name.to_owned(), id.clone());
        Ok(NameReservation { registry: self, name: name.to_owned(), is_kept: false })
    }

    pub(crate) fn add(&self, container: &Arc<Container>, mut reservation: NameReservation<'_>) {
        reservation.is_kept = true;
        self.inner.write().by_id.insert(container.id.to_string(), Arc::clone(container));
    }

    /// A container of an earlier daemon.
    ///
    /// # Errors
    /// `AlreadyExists` when its name is taken (a damaged store).
    pub(crate) fn restore(&self, container: &Arc<Container>) -> Result<()> {
        let reservation = self.reserve(&container.name(), &container.id)?;
        self.add(container, reservation);
        Ok(())
    }

    pub(crate) fn rename(&self, container: &Container, new_name: &str) -> Result<()> {
        let mut inner = self.inner.write();
        match inner.names.get(new_name) {
            Some(owner) if *owner != container.id => return Err(conflict(new_name, owner)),
            Some(_) => {
                return Err(EngineError::invalid("Renaming a container with the same name as its current name"));
            }
            None => {}
        }
        let old_name = container.name();
        inner.names.remove(&old_name);
        inner.names.insert(new_name.to_owned(), container.id.clone());
        new_name.clone_into(&mut container.lock().record.name);
        Ok(())
    }

    pub(crate) fn remove(&self, container: &Container) {
        let name = container.name();
        let mut inner = self.inner.write();
        inner.by_id.remove(container.id.as_str());
        inner.names.remove(&name);
    }

    /// Whether one has exactly this id or name, not one that only begins so.
    pub(crate) fn is_exact(&self, container_ref: &str) -> bool {
        let inner = self.inner.read();
        let name = container_ref.strip_prefix('/').unwrap_or(container_ref);
        inner.by_id.contains_key(container_ref) || inner.names.contains_key(name)
    }

    pub(crate) fn contains(&self, id: &ContainerId) -> bool {
        self.inner.read().by_id.contains_key(id.as_str())
    }

    /// Whether this is the full id of a container, or of one being created.
    pub(crate) fn knows(&self, id: &str) -> bool {
        let inner = self.inner.read();
        inner.by_id.contains_key(id) || inner.names.values().any(|owner| owner.as_str() == id)
    }

    pub(crate) fn is_name_free(&self, name: &str) -> bool {
        !self.inner.read().names.contains_key(name)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.inner.read().by_id.values().cloned().collect()
    }

    /// By full id, name, or unambiguous id prefix, in this order.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when a prefix fits several.
    pub(crate) fn find(&self, container_ref: &str) -> Result<Arc<Container>> {
        let inner = self.inner.read();
        let missing = || EngineError::not_found(format!("No such container: {container_ref}"));
        if container_ref.is_empty() {
            return Err(EngineError::invalid("no container is named: expected a name or id"));
        }
        if let Some(found) = inner.by_id.get(container_ref) {
            return Ok(Arc::clone(found));
        }
        let name = container_ref.strip_prefix('/').unwrap_or(container_ref);
        if let Some(id) = inner.names.get(name) {
            // A reserved name without a container: its create has not finished.
            return inner.by_id.get(id.as_str()).cloned().ok_or_else(missing);
        }
        let mut fits =
            inner.by_id.range(container_ref.to_owned()..).take_while(|(id, _)| id.starts_with(container_ref));
        match (fits.next(), fits.next()) {
            (Some((_, found)), None) => Ok(Arc::clone(found)),
            (Some(_), Some(_)) => {
                Err(EngineError::invalid(format!("container id prefix {container_ref} is ambiguous: give more digits")))
            }
            (None, _) => Err(missing()),
        }
    }
}
