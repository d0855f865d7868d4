//! Labels of the security modules: an AppArmor profile or an SELinux context that the container's program gets at exec.
//!
//! Written to the kernel by init itself through a checked procfs (CVE-2019-16884, CVE-2019-19921). What the host does not have is an
//! error that says so: a label that is not applied must never look as if it were.
//!
//! # Spec
//! runtime-spec config, "Linux Process", apparmorProfile and selinuxLabel.

use std::path::Path;

use rustix::fs::OFlags;
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

    /// What is written for the next exec of the calling process, and where: the first of the files that is there. Since Linux 5.8 AppArmor
    /// has a directory of its own; before that it shares the common file, which with both modules is SELinux's.
    fn for_exec(&self) -> (&'static [&'static str], String) {
        match self {
            Self::AppArmor(name) => (&["thread-self/attr/apparmor/exec", COMMON], format!("exec {name}")),
            Self::SeLinux(label) => (&[COMMON], label.clone()),
        }
    }

    /// For the next exec of the calling process.
    pub(crate) fn apply(&self) -> Result<(), Errno> {
        let proc = Procfs::open()?;
        let (files, content) = self.for_exec();
        let is_there = |file: &&&str| !matches!(proc.file(file, OFlags::WRONLY), Err(Errno::NOENT));
        let file = files.iter().find(is_there).ok_or(Errno::NOENT)?;
        proc.write(file, content.as_bytes())
    }

    /// What the kernel's answer to it means.
    pub(crate) fn refusal(&self, errno: Errno) -> &'static str {
        match (self, errno) {
            (Self::AppArmor(_), Errno::NOENT) => "no profile of this name is loaded",
            (Self::SeLinux(_), Errno::INVAL) => "the policy has no such context",
            _ => "the security module refuses it",
        }
    }

    /// For keys the calling thread makes from here on.
    pub(crate) fn label_keys(&self) -> Result<(), Errno> {
        Procfs::open()?.write(KEYS, self.text().as_bytes())
    }

    /// Nothing written is no label.
    pub(crate) fn unlabel_keys() -> Result<(), Errno> {
        Procfs::open()?.write(KEYS, b"")
    }
}

const COMMON: &str = "thread-self/attr/exec";
const KEYS: &str = "thread-self/attr/keycreate";

fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y'))
}

fn has_selinux() -> bool {
    rustix::fs::statfs(Path::new("/sys/fs/selinux"))
        .is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| kind & 0xffff_ffff == SELINUX_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each module reads its own file in its own form (proc_pid_attr(5)); a profile that is confused with a context is refused, or worse.
    #[test]
    fn what_is_written_and_where() {
        let profile = Label::AppArmor("berth-default".to_owned());
        let expected =
            (&["thread-self/attr/apparmor/exec", "thread-self/attr/exec"][..], "exec berth-default".to_owned());
        assert_eq!(profile.for_exec(), expected);
        let context = Label::SeLinux("system_u:system_r:container_t:s0:c1,c2".to_owned());
        let text = "system_u:system_r:container_t:s0:c1,c2".to_owned();
        assert_eq!(context.for_exec(), (&["thread-self/attr/exec"][..], text));
        assert_eq!(profile.refusal(Errno::NOENT), "no profile of this name is loaded");
        assert_eq!(context.refusal(Errno::INVAL), "the policy has no such context");
    }

    #[test]
    fn what_is_no_label() {
        let label = |text: &str| Label::new(Label::SeLinux, Some(&text.to_owned()));
        assert_eq!(label("").unwrap(), None);
        assert_eq!(label("u:r:t:s0").unwrap(), Some(Label::SeLinux("u:r:t:s0".to_owned())));
        for wrong in ["a\nb", "a\0b", &"x".repeat(LABEL_MAX + 1)] {
            assert!(label(wrong).is_err());
        }
    }

    /// Without the module the field is named (where it is there, nothing is asserted).
    #[test]
    fn a_host_without_it_is_told() {
        for (label, has_it, said) in [
            (Label::AppArmor("x".to_owned()), has_apparmor(), "process.apparmorProfile needs AppArmor"),
            (Label::SeLinux("x".to_owned()), has_selinux(), "process.selinuxLabel needs SELinux"),
        ] {
            match label.check_host() {
                Ok(()) => assert!(has_it),
                Err(error) => assert!(!has_it && error.to_string().starts_with(said), "{error}"),
            }
        }
    }
}
