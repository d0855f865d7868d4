//! Removing names and images, by the rules of Docker's `rmi`, and everything that then belongs to nobody.
//!
//! An image that is removed by force while a stopped container uses it is hidden, not deleted: the container can still be started. It goes
//! with the first `remove` or `collect` after the container is gone.

use std::sync::MutexGuard;

use berth_metadata::{Table, Write};
use berth_types::{Digest, Reference};

use crate::record::{ImageRecord, delete_tag};
use crate::store::{Collected, ImageStore};
use crate::{ImageError, ImageUse, Removed, Result};

/// Whether containers use an image.
type UsedBy<'u> = &'u dyn Fn(&Digest) -> ImageUse;

struct Target {
    id: Digest,
    record: ImageRecord,
    references: Vec<Reference>,
}

impl ImageStore {
    /// Docker's rules: a reference untags and deletes the image when it was the last; an id deletes all, `force` where several references or
    /// stopped containers use it. `used_by(id)` tells whether containers use an image (running ones: never deletable).
    ///
    /// # Errors
    /// `NotFound`, or `FailedPrecondition` when it is in use; then nothing was removed.
    pub fn remove(&self, name_or_id: &str, force: bool, used_by: UsedBy<'_>) -> Result<Removed> {
        let changing = self.lock();
        let (id, record) = self.find(name_or_id)?;
        if record.is_hidden {
            return Err(crate::store::not_found(name_or_id));
        }
        let mut references = self.references_by_id()?.remove(&id).unwrap_or_default();
        references.sort();
        let target = Target { id, record, references };
        let removed = match self.named(name_or_id, &target)? {
            Some(reference) => self.remove_by_name(&target, reference, force, used_by)?,
            None => self.remove_by_id(&target, force, used_by)?,
        };
        self.finish(removed, &changing, used_by)
    }

    /// Removes images with all their names, except those that a container uses or that are gone by now; then collects, once.
    ///
    /// # Errors
    /// When records cannot be read or written.
    pub fn remove_unused(&self, ids: &[Digest], used_by: UsedBy<'_>) -> Result<(Vec<Removed>, Collected)> {
        let changing = self.lock();
        let mut names = self.references_by_id()?;
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(record) = self.record(id)?.filter(|_| used_by(id) == ImageUse::Unused) else { continue };
            let references = names.remove(id).unwrap_or_default();
            all.push(self.remove_by_id(&Target { id: *id, record, references }, true, used_by)?);
        }
        self.delete_hidden(used_by)?;
        Ok((all, self.collect_unreferenced(&changing)?))
    }

    /// Removes images without a name that no container uses.
    ///
    /// # Errors
    /// When records cannot be read or written.
    pub fn prune_dangling(&self, used_by: UsedBy<'_>, is_wanted: &dyn Fn(&Digest) -> bool) -> Result<Removed> {
        let changing = self.lock();
        let named = self.references_by_id()?;
        let mut removed = Removed::default();
        let mut writes = Vec::new();
        for (id, record) in self.records()? {
            let is_tagged = named.get(&id).is_some_and(|names| names.iter().any(|name| name.tag().is_some()));
            if !record.is_hidden && !is_tagged && used_by(&id) == ImageUse::Unused && is_wanted(&id) {
                writes.push(delete_record(&id));
                writes.extend(named.get(&id).into_iter().flatten().flat_map(delete_tag));
                removed.deleted.push(id);
            }
        }
        if !writes.is_empty() {
            self.write(writes)?;
        }
        self.finish(removed, &changing, used_by)
    }

    /// Deletes what nobody needs any more: call it after a container was removed whose image may have been removed before.
    ///
    /// # Errors
    /// When records cannot be read or written.
    pub fn collect(&self, used_by: UsedBy<'_>) -> Result<Collected> {
        let changing = self.lock();
        self.delete_hidden(used_by)?;
        self.collect_unreferenced(&changing)
    }

    /// The reference the text means; `None` when it is an id or the beginning of one.
    fn named(&self, text: &str, target: &Target) -> Result<Option<Reference>> {
        let is_id = text.strip_prefix("sha256:").unwrap_or(text) == target.id.hex();
        let Some(reference) = text.parse::<Reference>().ok().filter(|_| !is_id) else {
            return Ok(None);
        };
        if reference.digest().is_some() {
            let mut of_repository = target.references.iter().filter(|r| r.repository() == reference.repository());
            let tag = of_repository.clone().find(|r| r.tag().is_some());
            return Ok(tag.or_else(|| of_repository.find(|r| r.digest() == reference.digest())).cloned());
        }
        let reference = reference.with_default_tag();
        Ok((self.tag_target(&reference)? == Some(target.id)).then_some(reference))
    }

    fn remove_by_name(&self, target: &Target, name: Reference, force: bool, used_by: UsedBy<'_>) -> Result<Removed> {
        let doomed = with_digests(&target.references, name);
        let (is_last, name) = (doomed.len() >= target.references.len(), &doomed[0]);
        let use_of = if is_last { used_by(&target.id) } else { ImageUse::Unused };
        if let (ImageUse::Stopped(container) | ImageUse::Running(container), false) = (&use_of, force) {
            let why = format!(
                "unable to remove repository reference {:?} (must force) - container {} is using its referenced image {}",
                name.familiar(),
                short(container),
                target.id.short()
            );
            return Err(ImageError::Conflict { why });
        }
        let mut writes: Vec<Write> = doomed.iter().flat_map(delete_tag).collect();
        let mut removed = Removed { untagged: doomed, ..Removed::default() };
        match use_of {
            // A running container keeps its image, without a name from now on.
            ImageUse::Running(_) => {}
            ImageUse::Stopped(_) => writes.push(hidden(target)?),
            ImageUse::Unused if is_last => {
                writes.push(delete_record(&target.id));
                removed.deleted.push(target.id);
            }
            ImageUse::Unused => {}
        }
        self.write(writes)?;
        Ok(removed)
    }

    fn remove_by_id(&self, target: &Target, force: bool, used_by: UsedBy<'_>) -> Result<Removed> {
        let conflict = |why: &str, must: &str| {
            let why = format!("unable to delete {} ({must} be forced) - {why}", target.id.short());
            Err(ImageError::Conflict { why })
        };
        let use_of = used_by(&target.id);
        match &use_of {
            ImageUse::Running(container) => {
                return conflict(&format!("image is being used by running container {}", short(container)), "cannot");
            }
            ImageUse::Stopped(container) if !force => {
                return conflict(&format!("image is being used by stopped container {}", short(container)), "must");
            }
            ImageUse::Stopped(_) | ImageUse::Unused => {}
        }
        if !force && !is_one_name(&target.references) {
            return conflict("image is referenced in multiple repositories", "must");
        }
        let mut writes: Vec<Write> = target.references.iter().flat_map(delete_tag).collect();
        writes.push(match use_of {
            ImageUse::Stopped(_) => hidden(target)?,
            ImageUse::Unused | ImageUse::Running(_) => delete_record(&target.id),
        });
        self.write(writes)?;
        Ok(Removed { untagged: target.references.clone(), deleted: vec![target.id], reclaimed_bytes: 0 })
    }

    fn finish(&self, removed: Removed, changing: &MutexGuard<'_, ()>, used_by: UsedBy<'_>) -> Result<Removed> {
        self.delete_hidden(used_by)?;
        let collected = self.collect_unreferenced(changing)?;
        Ok(Removed { reclaimed_bytes: collected.bytes, ..removed })
    }

    fn delete_hidden(&self, used_by: UsedBy<'_>) -> Result<()> {
        let is_over = |(id, record): &(Digest, ImageRecord)| record.is_hidden && used_by(id) == ImageUse::Unused;
        let writes: Vec<Write> =
            self.records()?.iter().filter(|r| is_over(r)).map(|(id, _)| delete_record(id)).collect();
        if writes.is_empty() { Ok(()) } else { self.write(writes) }
    }
}

/// At most one tag: an id then means the same as the name.
fn is_one_name(references: &[Reference]) -> bool {
    references.iter().filter(|r| r.tag().is_some()).count() <= 1
}

/// A name, and with the last tag of a repository also the digests the repository had it under.
fn with_digests(references: &[Reference], name: Reference) -> Vec<Reference> {
    let of_repository = |r: &&Reference| **r != name && r.repository() == name.repository();
    let has_other_tag = references.iter().filter(of_repository).any(|r| r.tag().is_some());
    let digests = references.iter().filter(of_repository).filter(|r| !has_other_tag && r.digest().is_some());
    let digests: Vec<Reference> = digests.cloned().collect();
    std::iter::once(name).chain(digests).collect()
}

fn hidden(target: &Target) -> Result<Write> {
    ImageRecord { is_hidden: true, ..target.record.clone() }.put(&target.id)
}

fn delete_record(id: &Digest) -> Write {
    Write::Delete { table: Table::Images, key: id.to_string() }
}

fn short(container_id: &str) -> &str {
    container_id.get(..12).unwrap_or(container_id)
}
