//! Labels of the security modules: an AppArmor profile or an SELinux context that the container's program gets at exec.
//!
//! Written to the kernel by init itself through a checked procfs (CVE-2019-16884, CVE-2019-19921). What the host does not have is an
//! error that says so: a label that is not applied must never look as if it were.
//!
//! # Spec
//! runtime-spec config, "Linux Process", apparmorProfile and selinuxLabel.

use std::path::Path;

use rustix::io::Errno;

use crate::error::RuntimeError;
use crate::procfs::Procfs;

/// `SELINUX_MAGIC`, linux/magic.h.
const SELINUX_MAGIC: u64 = 0xf97c_ff8c;
/// Longer than any label the kernel takes.
const LABEL_MAX: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    AppArmor(String),
    SeLinux(String),
}

impl Label {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::AppArmor(name) | Self::SeLinux(name) => name,
        }
    }

    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::AppArmor(_) => "process.apparmorProfile",
            Self::SeLinux(_) => "process.selinuxLabel",
        }
    }

    /// The label of a field that is set.
    pub(crate) fn new(kind: fn(String) -> Self, text: Option<&String>) -> Result<Option<Self>, RuntimeError> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
        let label = kind(text.clone());
        if text.len() > LABEL_MAX || text.contains(['\n', '\0']) {
            let problem = "is not a label".to_owned();
            return Err(RuntimeError::Spec { field: label.field(), problem });
        }
        Ok(Some(label))
    }

    /// Whether this host has the security module.
    ///
    /// # Errors
    /// [`RuntimeError::HostLacks`] by name when it does not.
    pub(crate) fn check_host(&self) -> Result<(), RuntimeError> {
        let (has_it, what) = match self {
            Self::AppArmor(_) => (has_apparmor(), "AppArmor"),
            Self::SeLinux(_) => (has_selinux(), "SELinux"),
        };
        if has_it { Ok(()) } else { Err(RuntimeError::HostLacks { wanted_by: self.field(), what }) }
    }

    /// For the next exec of the calling process.
    pub(crate) fn apply(&self) -> Result<(), Errno> {
        let proc = Procfs::open()?;
        match self {
            Self::AppArmor(name) => {
                let content = format!("exec {name}");
                // Since Linux 5.8 each module has a directory of its own; before that AppArmor shares the common file.
                match proc.write("thread-self/attr/apparmor/exec", content.as_bytes()) {
                    Err(Errno::NOENT) => proc.write("thread-self/attr/exec", content.as_bytes()),
                    written_or_failed => written_or_failed,
                }
            }
            Self::SeLinux(label) => proc.write("thread-self/attr/exec", label.as_bytes()),
        }
    }
}

fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y'))
}

fn has_selinux() -> bool {
    rustix::fs::statfs(Path::new("/sys/fs/selinux"))
        .is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| kind & 0xffff_ffff == SELINUX_MAGIC))
}
