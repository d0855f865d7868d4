//! Signal numbers and names (signal(7)), x86-64 and aarch64 numbering.

use std::fmt;
use std::str::FromStr;

/// A signal number, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Signal(i32);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("signal {0:?} is not valid; write a name such as TERM or SIGTERM, or a number from 1 to 64")]
pub struct SignalError(String);

impl crate::Classify for SignalError {
    fn class(&self) -> crate::ErrorClass {
        crate::ErrorClass::InvalidArgument
    }
}

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

impl Signal {
    pub const KILL: Self = Self(9);
    pub const TERM: Self = Self(15);
    pub const CHLD: Self = Self(17);

    /// # Errors
    /// `InvalidArgument` outside 1 to 64.
    pub fn new(number: i32) -> Result<Self, SignalError> {
        if (1..=64).contains(&number) { Ok(Self(number)) } else { Err(SignalError(number.to_string())) }
    }

    pub const fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let wrong = || SignalError(text.chars().take(40).collect());
        if let Ok(number) = text.parse::<i32>() {
            return Self::new(number).map_err(|_| wrong());
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(index) = NAMES.iter().position(|n| *n == name) {
            return i32::try_from(index + 1).map(Self).map_err(|_| wrong());
        }
        let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest[1..].parse::<i32>().ok() };
        match name {
            "IOT" => return Ok(Self(6)),
            "POLL" => return Ok(Self(29)),
            "CLD" => return Ok(Self::CHLD),
            _ => {}
        }
        let number = if let Some(rest) = name.strip_prefix("RTMIN") {
            (rest.is_empty() || rest.starts_with('+')).then(|| offset(rest)).flatten().map(|n| 34 + n)
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            (rest.is_empty() || rest.starts_with('-')).then(|| offset(rest)).flatten().map(|n| 64 - n)
        } else {
            None
        };
        match number {
            Some(n @ 34..=64) => Ok(Self(n)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0).ok().and_then(|n| NAMES.get(n.wrapping_sub(1))) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "SIGRTMIN+{}", self.0 - 34),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("sigterm", 15), ("9", 9), ("SIGRTMIN", 34), ("RTMIN+3", 37), ("RTMAX-1", 63), ("usr1", 10)]
        {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for bad in ["", "0", "65", "-1", "SIGFOO", "RTMIN+40", "RTMIN3", "RTMAX+1", "RTMIN+é"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }
}
