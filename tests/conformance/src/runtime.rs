//! A runtime under test, and what it says of itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// `Err` is the reason for which a case does not apply to a runtime or host.
pub type Outcome = Result<(), String>;

#[derive(Debug)]
pub struct Runtime {
    path: PathBuf,
    features: OnceLock<Value>,
}

impl Runtime {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), features: OnceLock::new() }
    }

    /// Debian's runc.
    pub fn runc() -> Self {
        Self::new(berth_testkit::peers::peer("usr/sbin/runc"))
    }

    /// What `BERTH_CONFORMANCE_RUNTIME` names, else ours, as `make build` leaves it.
    ///
    /// # Panics
    /// When it is not built.
    pub fn tested() -> Self {
        if let Some(path) = std::env::var_os("BERTH_CONFORMANCE_RUNTIME") {
            return Self::new(PathBuf::from(path));
        }
        let bin = std::env::var_os("BERTH_BIN");
        let bin = bin.map_or_else(|| berth_testkit::peers::workspace().join("target/bin"), PathBuf::from);
        let path = bin.join("runb");
        assert!(path.exists(), "{} is missing: run `make build`", path.display());
        Self::new(path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The binary with its libraries, nothing on standard input.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        // Unpacked, not installed: libseccomp and the like are beside it.
        if let Some(root) = self.path.ancestors().find(|directory| directory.join("usr/lib").exists()) {
            command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
        }
        command.stdin(Stdio::null());
        command
    }

    /// Its features document.
    ///
    /// # Panics
    /// When there is none.
    pub fn features(&self) -> &Value {
        self.features.get_or_init(|| {
            let output = self.command().arg("features").output().unwrap();
            assert!(output.status.success(), "features: {}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice(&output.stdout).unwrap()
        })
    }

    /// Whether a list of the features document has an entry.
    pub fn lists(&self, pointer: &str, entry: &str) -> bool {
        let list = self.features().pointer(pointer).and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|known| known == entry))
    }

    /// # Errors
    /// The reason to skip a case.
    pub fn needs(&self, pointer: &str, entry: &str) -> Outcome {
        if self.lists(pointer, entry) { Ok(()) } else { Err(format!("features {pointer} does not list {entry}")) }
    }

    /// Newest version of the specification it knows, as numbers.
    pub fn spec_version(&self) -> (u32, u32) {
        let text = self.features()["ociVersionMax"].as_str().unwrap_or_default().to_owned();
        let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// # Errors
    /// The reason to skip a case.
    pub fn needs_spec(&self, major: u32, minor: u32) -> Outcome {
        if self.spec_version() >= (major, minor) {
            Ok(())
        } else {
            Err(format!("it is older than spec {major}.{minor}"))
        }
    }

    /// Whether a command has a flag, by its help page.
    ///
    /// # Errors
    /// The reason to skip a case.
    pub fn needs_flag(&self, command: &str, flag: &str) -> Outcome {
        let output = self.command().args([command, "--help"]).output().unwrap();
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        if page.contains(flag) { Ok(()) } else { Err(format!("{command} has no {flag}")) }
    }
}
