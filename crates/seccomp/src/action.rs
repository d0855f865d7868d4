//! What the kernel does with a call.

use crate::error::SeccompError;

/// The verdict on a system call. The order is the kernel's precedence between filters, strictest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    KillProcess,
    KillThread,
    Trap,
    /// Fail with this errno.
    Errno(u16),
    /// Ask the listener (user notification).
    Notify,
    /// Tell the tracer, with this message.
    Trace(u16),
    Log,
    Allow,
}

impl Action {
    /// From the name in a profile (`SCMP_ACT_ERRNO`) and its `errnoRet`; without one, EPERM.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown name, an errno the kernel would cut off, or one for an action that returns none.
    pub fn parse(name: &str, errno: Option<u32>) -> Result<Self, SeccompError> {
        const EPERM: u32 = 1;
        /// The kernel's MAX_ERRNO; larger values are silently reduced to it.
        const ERRNO_MAX: u32 = 4095;
        let takes_errno = matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
        if errno.is_some_and(|errno| errno != 0) && !takes_errno && name.starts_with("SCMP_ACT_") {
            return Err(SeccompError::ErrnoUnused { action: name.to_owned() });
        }
        let data = errno.unwrap_or(EPERM);
        let number = || u16::try_from(data).map_err(|_| SeccompError::ErrnoRange { value: data });
        Ok(match name {
            "SCMP_ACT_KILL_PROCESS" => Self::KillProcess,
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Self::KillThread,
            "SCMP_ACT_TRAP" => Self::Trap,
            "SCMP_ACT_ERRNO" if data > ERRNO_MAX => return Err(SeccompError::ErrnoRange { value: data }),
            "SCMP_ACT_ERRNO" => Self::Errno(number()?),
            "SCMP_ACT_NOTIFY" => Self::Notify,
            "SCMP_ACT_TRACE" => Self::Trace(number()?),
            "SCMP_ACT_LOG" => Self::Log,
            "SCMP_ACT_ALLOW" => Self::Allow,
            _ => return Err(SeccompError::UnknownAction { name: name.to_owned() }),
        })
    }

    /// The value a filter returns for it (`SECCOMP_RET_*` with its data).
    pub const fn to_return_value(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | errno as u32,
            Self::Notify => 0x7fc0_0000,
            Self::Trace(message) => 0x7ff0_0000 | message as u32,
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }
}
