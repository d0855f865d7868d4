//! Image names as the containerd API has them: a name leads to the descriptor of a manifest or an index, which may be there or not.

use std::collections::BTreeMap;

use berth_metadata::Table;
use berth_types::label::{self, Labels};
use berth_types::{Digest, Reference, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Tenant, exists, unknown};
use crate::record::delete_tag;
use crate::{ImageError, Result};

const NAME_BYTES_MAX: usize = 2048;

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub media_type: String,
    pub digest: Digest,
    pub size_bytes: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    pub name: String,
    pub target: Target,
    pub labels: Labels,
    pub created: Timestamp,
    pub updated: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NameRecord {
    pub(super) target: Target,
    pub(super) labels: Labels,
    created_ns: i64,
    updated_ns: i64,
}

impl NameRecord {
    fn image(self, name: &str) -> NamedImage {
        NamedImage {
            name: name.to_owned(),
            target: self.target,
            labels: self.labels,
            created: Timestamp(self.created_ns),
            updated: Timestamp(self.updated_ns),
        }
    }
}

impl Tenant<'_> {
    /// # Errors
    /// `NotFound`.
    pub fn image(&self, name: &str) -> Result<NamedImage> {
        self.find_image(name)?.ok_or_else(|| unknown("image", name))
    }

    /// All, by name.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn images(&self) -> Result<Vec<NamedImage>> {
        let mut found: BTreeMap<String, NamedImage> = BTreeMap::new();
        for (name, record) in self.load_all::<NameRecord>(Table::Names)? {
            found.insert(name.clone(), record.image(&name));
        }
        if self.is_docker() {
            for reference in self.store.references_by_id()?.into_values().flatten() {
                let name = reference.to_string();
                if !found.contains_key(&name)
                    && let Some(image) = self.docker_image(&reference)?
                {
                    found.insert(name, image);
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for a name that is empty or too long.
    pub fn create_image(&self, name: &str, target: Target, labels: &Labels) -> Result<NamedImage> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(ImageError::Invalid { what: "image", why: "its name is empty or too long".to_owned() });
        }
        label::check(labels)?;
        let _changing = self.store.lock();
        if self.find_image(name)?.is_some() {
            return Err(exists("image", name));
        }
        let now = Timestamp::now().0;
        self.put_image(name, NameRecord { target, labels: labels.clone(), created_ns: now, updated_ns: now })
    }

    /// Changes by field paths `target`, `labels`, `labels.<key>`; none: all of them.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for other fields.
    pub fn update_image(&self, name: &str, target: Target, labels: &Labels, fields: &[String]) -> Result<NamedImage> {
        let _changing = self.store.lock();
        let current = self.image(name)?;
        let of_labels: Vec<String> = fields.iter().filter(|field| *field != "target").cloned().collect();
        let takes_target = fields.is_empty() || of_labels.len() < fields.len();
        let labels = match of_labels.is_empty() && !fields.is_empty() {
            true => current.labels,
            false => label::updated(current.labels, labels, &of_labels)?,
        };
        self.put_image(
            name,
            NameRecord {
                target: if takes_target { target } else { current.target },
                labels,
                created_ns: current.created.0,
                updated_ns: Timestamp::now().0,
            },
        )
    }

    /// What the name alone kept can be collected from now on; `is_synchronous`: is, before this returns. Containers keep what they run on.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete_image(
        &self,
        name: &str,
        is_synchronous: bool,
        used_by: &dyn Fn(&Digest) -> crate::ImageUse,
    ) -> Result<()> {
        self.image(name)?;
        if let (true, Ok(reference)) = (self.is_docker(), name.parse::<Reference>())
            && self.store.tag_target(&reference)?.is_some()
        {
            // By the Docker face's rules: a container's image is hidden, not gone.
            self.store.remove(name, true, used_by)?;
        }
        let changing = self.store.lock();
        self.write(vec![self.delete(Table::Names, name)])?;
        if is_synchronous {
            self.store.collect_unreferenced(&changing)?;
        }
        Ok(())
    }

    fn find_image(&self, name: &str) -> Result<Option<NamedImage>> {
        if let Some(record) = self.load::<NameRecord>(Table::Names, name)? {
            return Ok(Some(record.image(name)));
        }
        match name.parse::<Reference>() {
            Ok(reference) if self.is_docker() && reference.to_string() == name => self.docker_image(&reference),
            _ => Ok(None),
        }
    }

    /// An image the Docker face has under that name.
    fn docker_image(&self, reference: &Reference) -> Result<Option<NamedImage>> {
        let Some(id) = self.store.tag_target(reference)? else { return Ok(None) };
        let Some(record) = self.store.record(&id)? else { return Ok(None) };
        let tagged = record.last_tagged.unwrap_or_default();
        let target = Target {
            media_type: record.manifest_media_type,
            digest: record.manifest,
            size_bytes: self.store.content.size(&record.manifest).unwrap_or(0),
            annotations: BTreeMap::new(),
        };
        Ok(Some(NamedImage {
            name: reference.to_string(),
            target,
            labels: Labels::new(),
            created: tagged,
            updated: tagged,
        }))
    }

    fn put_image(&self, name: &str, record: NameRecord) -> Result<NamedImage> {
        let mut writes = vec![self.put(Table::Names, name, &record)?];
        if let (true, Ok(reference)) = (self.is_docker(), name.parse::<Reference>())
            && reference.tag().is_some()
        {
            match self.adopt(&record.target, &reference) {
                Ok(adopted) => writes.splice(0..0, adopted).for_each(drop),
                // Not complete, or nothing the Docker face could run: a name of the containerd API only.
                Err(error) => {
                    tracing::debug!(name, error = berth_types::report(&error), "not an image of the Docker face");
                    writes.splice(0..0, delete_tag(&reference)).for_each(drop);
                }
            }
        }
        self.write(writes)?;
        Ok(record.image(name))
    }
}
