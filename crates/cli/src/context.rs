//! What every verb gets: the client, the output, the environment. Nothing below `main` reads the process's environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::client::Client;
use crate::output::Output;

/// The environment as data.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    pub(crate) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(variables.into_iter().collect())
    }

    /// The value when the variable is set and is text.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(OsStr::new(name)).and_then(|value| value.to_str())
    }
}

/// The state of one invocation.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) out: Output,
    pub(crate) environment: Environment,
}
