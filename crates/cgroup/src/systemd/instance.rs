//! Which systemd is asked: the machine's, or a user's own.

use std::path::{Path, PathBuf};

/// A service manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    /// Process 1.
    System,
    /// `systemd --user`, by the user's runtime directory (`$XDG_RUNTIME_DIR`, `/run/user/<uid>`).
    User { runtime_dir: PathBuf },
}

impl Instance {
    /// The instance that manages a control group: a user's below `user@<uid>.service`, else the machine's.
    pub(crate) fn of_control_group(path: &str) -> Self {
        let uid = path.split('/').find_map(|name| name.strip_prefix("user@")?.strip_suffix(".service"));
        match uid.filter(|uid| !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_digit())) {
            Some(uid) => Self::User { runtime_dir: Path::new("/run/user").join(uid) },
            None => Self::System,
        }
    }

    /// Where it listens itself, without a bus between. Only its own user and root are let in.
    pub(crate) fn own_socket(&self) -> PathBuf {
        match self {
            Self::System => "/run/systemd/private".into(),
            Self::User { runtime_dir } => runtime_dir.join("systemd/private"),
        }
    }

    pub(crate) fn bus_socket(&self) -> PathBuf {
        match self {
            Self::System => "/run/dbus/system_bus_socket".into(),
            Self::User { runtime_dir } => runtime_dir.join("bus"),
        }
    }

    /// Where containers go that name no slice.
    pub(crate) fn default_slice(&self) -> &'static str {
        match self {
            Self::System => "system.slice",
            Self::User { .. } => "user.slice",
        }
    }
}
