//! Device rules and their normal form: a default and its exceptions.
//!
//! Both appliers (v1 `devices.allow`/`devices.deny`, the v2 eBPF program) are made from the normal form, so they cannot
//! disagree about what an order of rules means. The normal form is the one the v1 kernel code keeps.

mod program;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use crate::error::PlanError;

pub(crate) use program::program;

/// Which nodes a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// `a`: character and block devices.
    All,
    /// `c` (and `u`)
    Char,
    /// `b`
    Block,
}

/// What may be done: read, write, mknod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Access(u8);

impl Access {
    pub const NONE: Self = Self(0);
    pub const MKNOD: Self = Self(1);
    pub const READ: Self = Self(2);
    pub const WRITE: Self = Self(4);
    pub const ALL: Self = Self(7);

    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The bits as the kernel numbers them (BPF_DEVCG_ACC_*): mknod 1, read 2, write 4.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }
}

impl FromStr for Access {
    type Err = PlanError;

    /// From `r`, `w`, `m` in any order. Empty means all, as in the runtime specification's schema.
    fn from_str(text: &str) -> Result<Self, PlanError> {
        if text.is_empty() {
            return Ok(Self::ALL);
        }
        text.chars().try_fold(Self::NONE, |access, letter| {
            Ok(access.with(match letter {
                'r' => Self::READ,
                'w' => Self::WRITE,
                'm' => Self::MKNOD,
                _ => return Err(bad_rule(text, "access is made of r, w and m")),
            }))
        })
    }
}

impl fmt::Display for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (access, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            if self.contains(access) {
                formatter.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// One rule; a missing number stands for every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceKind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

impl DeviceRule {
    pub const DENY_ALL: Self =
        Self { allow: false, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL };
    pub const ALLOW_ALL: Self = Self { allow: true, ..Self::DENY_ALL };

    const fn allow_char(major: u32, minor: Option<u32>) -> Self {
        Self { allow: true, kind: DeviceKind::Char, major: Some(major), minor, access: Access::ALL }
    }

    /// What every container may use: making any node, and using null, zero, full, random, urandom, tty, ptmx and the
    /// pseudo terminals. The host's console is not among them: a container's `/dev/console` is a pseudo terminal.
    pub const fn container_defaults() -> [Self; 11] {
        const MAKE_NODE: DeviceRule = DeviceRule { access: Access::MKNOD, ..DeviceRule::ALLOW_ALL };
        [
            Self::DENY_ALL,
            Self { kind: DeviceKind::Char, ..MAKE_NODE },
            Self { kind: DeviceKind::Block, ..MAKE_NODE },
            Self::allow_char(1, Some(3)),
            Self::allow_char(1, Some(5)),
            Self::allow_char(1, Some(7)),
            Self::allow_char(1, Some(8)),
            Self::allow_char(1, Some(9)),
            Self::allow_char(5, Some(0)),
            Self::allow_char(5, Some(2)),
            Self::allow_char(136, None),
        ]
    }

    fn same_node(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// Whether every node of `other` is a node of this rule.
    fn covers(&self, other: &Self) -> bool {
        self.kind == other.kind
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meet(self.major, other.major) && meet(self.minor, other.minor)
    }
}

impl fmt::Display for DeviceRule {
    /// As the kernel's `devices.list` and `--device-cgroup-rule` write it: `c 1:3 rwm`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::All => 'a',
            DeviceKind::Char => 'c',
            DeviceKind::Block => 'b',
        };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(formatter, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

impl FromStr for DeviceRule {
    type Err = PlanError;

    /// An allowing rule from `c 1:3 rwm`.
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let form = || bad_rule(text, "write a rule as 'c 1:3 rwm'");
        let mut words = text.split(' ');
        let (Some(kind), Some(node), Some(access), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(form());
        };
        let kind = match kind {
            "a" => DeviceKind::All,
            "c" | "u" => DeviceKind::Char,
            "b" => DeviceKind::Block,
            _ => return Err(form()),
        };
        let number = |digits: &str| match digits {
            "*" => Ok(None),
            _ if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map(Some).map_err(|_| form()),
            _ => Err(form()),
        };
        let (major, minor) = node.split_once(':').ok_or_else(form)?;
        if access.is_empty() {
            return Err(form());
        }
        Ok(Self { allow: true, kind, major: number(major)?, minor: number(minor)?, access: access.parse()? })
    }
}

/// The normal form of a list of rules: one answer for every device, and the exceptions from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFilter {
    pub default_allow: bool,
    /// Rules with the opposite answer, never of kind [`DeviceKind::All`], no two about the same node.
    pub exceptions: Vec<DeviceRule>,
}

impl DeviceFilter {
    /// Brings rules into normal form. Before the first rule everything is denied.
    ///
    /// # Errors
    /// A rule that cuts a piece out of an earlier wildcard has no normal form, and v1 could not express it.
    pub fn from_rules(rules: &[DeviceRule]) -> Result<Self, PlanError> {
        let mut filter = Self { default_allow: false, exceptions: Vec::new() };
        for rule in rules {
            let everything = rule.major.is_none() && rule.minor.is_none() && rule.access == Access::ALL;
            match rule.kind {
                DeviceKind::All if everything => filter = Self { default_allow: rule.allow, exceptions: Vec::new() },
                // The v1 kernel takes any rule of kind `a` for "everything", so it is spelled out.
                DeviceKind::All => {
                    filter.add(DeviceRule { kind: DeviceKind::Char, ..*rule })?;
                    filter.add(DeviceRule { kind: DeviceKind::Block, ..*rule })?;
                }
                DeviceKind::Char | DeviceKind::Block => filter.add(*rule)?,
            }
        }
        Ok(filter)
    }

    fn add(&mut self, rule: DeviceRule) -> Result<(), PlanError> {
        if rule.allow == self.default_allow {
            return self.withdraw(rule);
        }
        match self.exceptions.iter_mut().find(|exception| exception.same_node(&rule)) {
            Some(exception) => exception.access = exception.access.with(rule.access),
            None => self.exceptions.push(rule),
        }
        Ok(())
    }

    /// Takes back exceptions, as far as `rule` covers them.
    fn withdraw(&mut self, rule: DeviceRule) -> Result<(), PlanError> {
        for exception in &mut self.exceptions {
            if rule.covers(exception) {
                exception.access = exception.access.without(rule.access);
            } else if rule.overlaps(exception) && rule.access.overlaps(exception.access) {
                let verb = if rule.allow { "allow" } else { "deny" };
                return Err(bad_rule(
                    &format!("{verb} {rule}"),
                    &format!("it would cut a hole into the earlier rule {exception}; list the devices one by one"),
                ));
            }
        }
        self.exceptions.retain(|exception| exception.access != Access::NONE);
        Ok(())
    }
}

fn bad_rule(value: &str, reason: &str) -> PlanError {
    PlanError::BadValue { limit: "devices", value: value.to_owned(), reason: reason.to_owned() }
}
