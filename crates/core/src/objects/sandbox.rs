//! A sandbox (pod) as containerd's sandbox store keeps it.

use std::collections::BTreeMap;

use berth_types::Timestamp;
use berth_types::label::{self, Labels};
use serde::{Deserialize, Serialize};

use super::{AnyValue, Object, ObjectError, Result, RuntimeChoice, check_identifier};
use crate::filter::{Fields, map_field, text_field};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sandbox {
    pub id: String,
    #[serde(default)]
    pub runtime: RuntimeChoice,
    #[serde(default)]
    pub spec: Option<AnyValue>,
    #[serde(default)]
    pub labels: Labels,
    #[serde(default)]
    pub created_at: Timestamp,
    #[serde(default)]
    pub updated_at: Timestamp,
    #[serde(default)]
    pub extensions: BTreeMap<String, AnyValue>,
    /// Name of the controller.
    #[serde(default)]
    pub sandboxer: String,
}

impl Object for Sandbox {
    const FOLDER: &'static str = "sandboxes";
    const KIND: &'static str = "sandbox";

    fn name(&self) -> &str {
        &self.id
    }

    fn check(&self) -> Result<()> {
        check_identifier("sandbox id", &self.id)?;
        Ok(label::check(&self.labels)?)
    }
}

impl Sandbox {
    /// Takes the named fields of `new`; without names, all that may change.
    ///
    /// # Errors
    /// `InvalidArgument` for a field that cannot change.
    pub fn change(&mut self, new: &Self, paths: &[String]) -> Result<()> {
        let all = ["labels", "extensions", "spec", "runtime"].map(str::to_owned);
        for path in if paths.is_empty() { &all[..] } else { paths } {
            if let Some(key) = path.strip_prefix("labels.") {
                self.labels.insert(key.to_owned(), new.labels.get(key).cloned().unwrap_or_default());
            } else if let Some(key) = path.strip_prefix("extensions.") {
                self.extensions.insert(key.to_owned(), new.extensions.get(key).cloned().unwrap_or_default());
            } else {
                match path.as_str() {
                    "labels" => self.labels.clone_from(&new.labels),
                    "extensions" => self.extensions.clone_from(&new.extensions),
                    "runtime" => self.runtime.clone_from(&new.runtime),
                    "spec" => self.spec.clone_from(&new.spec),
                    other => return Err(ObjectError::invalid("field", other, "it cannot be changed in a sandbox")),
                }
            }
        }
        self.updated_at = Timestamp::now();
        Ok(())
    }
}

impl Fields for Sandbox {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => text_field(&self.id),
            ["labels", key @ ..] => map_field(key, &self.labels),
            _ => None,
        }
    }
}
