//! The container as containerd's API knows it: a document and what runs it; no process.

use std::collections::BTreeMap;

use berth_types::Timestamp;
use berth_types::label::{self, Labels};
use serde::{Deserialize, Serialize};

use super::{AnyValue, Object, ObjectError, Result, check_identifier};
use crate::filter::{Fields, map_field, text_field};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerObject {
    pub id: String,
    #[serde(default)]
    pub labels: Labels,
    /// An image's name; nothing checks that it exists.
    #[serde(default)]
    pub image: String,
    pub runtime: RuntimeChoice,
    /// The OCI document, as its maker packed it.
    pub spec: Option<AnyValue>,
    #[serde(default)]
    pub snapshotter: String,
    #[serde(default)]
    pub snapshot_key: String,
    #[serde(default)]
    pub created_at: Timestamp,
    #[serde(default)]
    pub updated_at: Timestamp,
    #[serde(default)]
    pub extensions: BTreeMap<String, AnyValue>,
    /// Its pod's, or empty.
    #[serde(default)]
    pub sandbox: String,
}

/// Which shim, and what to tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeChoice {
    pub name: String,
    #[serde(default)]
    pub options: Option<AnyValue>,
}

impl Object for ContainerObject {
    const FOLDER: &'static str = "containers";
    const KIND: &'static str = "container";

    fn name(&self) -> &str {
        &self.id
    }

    fn check(&self) -> Result<()> {
        check_identifier("container id", &self.id)?;
        label::check(&self.labels)?;
        let invalid = |what, rule| Err(ObjectError::invalid(what, self.id.clone(), rule));
        if self.extensions.contains_key("") {
            return invalid("extension of container", "a key may not be empty");
        }
        if self.runtime.name.is_empty() {
            return invalid("runtime of container", "a runtime must be named");
        }
        if self.spec.is_none() {
            return invalid("spec of container", "a spec must be given");
        }
        if !self.snapshot_key.is_empty() && self.snapshotter.is_empty() {
            return invalid("snapshot of container", "a snapshot key needs a snapshotter");
        }
        Ok(())
    }
}

impl ContainerObject {
    /// Whether its document asks for a terminal.
    pub fn wants_terminal(&self) -> bool {
        let document = self.spec.as_ref().map(|spec| serde_json::from_slice::<serde_json::Value>(&spec.value));
        document.is_some_and(|document| document.is_ok_and(|document| document["process"]["terminal"] == true))
    }

    /// Takes the named fields of `new`; without names, all that may change.
    ///
    /// # Errors
    /// `InvalidArgument` for a field that cannot change.
    pub fn change(&mut self, new: &Self, paths: &[String]) -> Result<()> {
        const ALL: [&str; 5] = ["labels", "spec", "extensions", "image", "snapshotkey"];
        let fixed = |field: &str| Err(ObjectError::invalid("field", field, "it cannot be changed in a container"));
        if paths.is_empty() {
            if self.snapshotter != new.snapshotter {
                return fixed("snapshotter");
            }
            if self.runtime.name != new.runtime.name {
                return fixed("runtime.name");
            }
        }
        let all = ALL.map(str::to_owned);
        for path in if paths.is_empty() { &all[..] } else { paths } {
            if let Some(key) = path.strip_prefix("labels.") {
                // An empty value is how a label is taken away.
                match new.labels.get(key).filter(|value| !value.is_empty()) {
                    Some(value) => drop(self.labels.insert(key.to_owned(), value.clone())),
                    None => drop(self.labels.remove(key)),
                }
            } else if let Some(key) = path.strip_prefix("extensions.") {
                self.extensions.insert(key.to_owned(), new.extensions.get(key).cloned().unwrap_or_default());
            } else {
                match path.as_str() {
                    "labels" => self.labels.clone_from(&new.labels),
                    "spec" => self.spec.clone_from(&new.spec),
                    "extensions" => self.extensions.clone_from(&new.extensions),
                    "image" => self.image.clone_from(&new.image),
                    "snapshotkey" | "snapshot_key" => self.snapshot_key.clone_from(&new.snapshot_key),
                    other => return fixed(other),
                }
            }
        }
        self.updated_at = Timestamp::now();
        Ok(())
    }
}

impl Fields for ContainerObject {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => text_field(&self.id),
            ["runtime", "name"] => text_field(&self.runtime.name),
            ["image"] => text_field(&self.image),
            ["labels", key @ ..] => map_field(key, &self.labels),
            _ => None,
        }
    }
}
