//! Which runtime our own shim is to run a container with, as our engine says it in Create: the options' type URL is [`TYPE_URL`], the
//! value JSON.
//!
//! Engines of others say it with `containerd.runc.v1.Options` (`binary_name`, `root`).

use std::path::PathBuf;

pub const TYPE_URL: &str = "dev.berth.runtime-choice";

/// Not our own runtime, but …
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeChoice {
    /// … the command line of an OCI runtime.
    Command {
        binary: PathBuf,
        /// Before the verb.
        #[serde(default)]
        arguments: Vec<String>,
    },
    /// … another shim, behind ours.
    Shim {
        binary: PathBuf,
        /// For the shim's start and its Create: type URL and message.
        #[serde(default)]
        options: Option<(String, Vec<u8>)>,
    },
}
