//! An image in containerd's sense: a name for a descriptor. What the descriptor points at is in the content store.

use berth_metadata::Table;
use berth_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Labels, Object, ObjectError, Result, check_labels};
use crate::filter::{Fields, map_field, text_field};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageName {
    pub name: String,
    #[serde(default)]
    pub labels: Labels,
    pub target: Descriptor,
    #[serde(default)]
    pub created_at: Timestamp,
    #[serde(default)]
    pub updated_at: Timestamp,
}

/// A pointer into the content store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    /// In bytes.
    pub size: i64,
    #[serde(default)]
    pub annotations: Labels,
}

impl Object for ImageName {
    const TABLE: Table = Table::ImageNames;
    const KIND: &'static str = "image";

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<()> {
        let invalid = |what, rule| Err(ObjectError::invalid(what, self.name.clone(), rule));
        if self.name.is_empty() {
            return invalid("image name", "it may not be empty");
        }
        check_labels(&self.labels)?;
        if self.target.digest.parse::<berth_types::Digest>().is_err() {
            return invalid("target of image", "it needs a digest, sha256:<64 hex digits>");
        }
        if self.target.size == 0 || self.target.media_type.is_empty() {
            return invalid("target of image", "it needs a size and a media type");
        }
        Ok(())
    }
}

impl ImageName {
    /// Takes the named fields of `new`; without names, labels and target.
    ///
    /// # Errors
    /// `InvalidArgument` for a field that cannot change.
    pub fn change(&mut self, new: &Self, paths: &[String]) -> Result<()> {
        let all = ["labels".to_owned(), "target".to_owned()];
        for path in if paths.is_empty() { &all[..] } else { paths } {
            if let Some(key) = path.strip_prefix("labels.") {
                self.labels.insert(key.to_owned(), new.labels.get(key).cloned().unwrap_or_default());
            } else if let Some(key) = path.strip_prefix("annotations.") {
                let value = new.target.annotations.get(key).cloned().unwrap_or_default();
                self.target.annotations.insert(key.to_owned(), value);
            } else {
                match path.as_str() {
                    "labels" => self.labels.clone_from(&new.labels),
                    "target" => self.target.clone_from(&new.target),
                    "annotations" => self.target.annotations.clone_from(&new.target.annotations),
                    other => {
                        return Err(ObjectError::invalid("field", other, "it cannot be changed in an image"));
                    }
                }
            }
        }
        self.updated_at = Timestamp::now();
        Ok(())
    }
}

impl Fields for ImageName {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] => text_field(&self.name),
            ["target", "digest"] => text_field(&self.target.digest),
            ["target", "mediatype"] => text_field(&self.target.media_type),
            ["labels", key @ ..] => map_field(key, &self.labels),
            ["annotations", key @ ..] => map_field(key, &self.target.annotations),
            _ => None,
        }
    }
}
