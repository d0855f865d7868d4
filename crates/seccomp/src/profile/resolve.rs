//! From a profile to the rules that count here.

use super::{Condition, Profile, ProfileArg, SyscallRule};
use crate::action::Action;
use crate::arch::Arch;
use crate::error::SeccompError;
use crate::filter::{ArgTest, Comparison, Filter, Flags, Rule};

/// What conditions are about.
struct Host<'a> {
    arch: Arch,
    capabilities: &'a [&'a str],
    kernel: (u32, u32),
}

pub(super) fn resolve(
    profile: &Profile,
    native: Arch,
    capabilities: &[&str],
    kernel: (u32, u32),
) -> Result<Filter, SeccompError> {
    fit(profile, native, capabilities, kernel).map(|(_, filter)| filter)
}

/// The profile with what counts here, and nothing conditional in it; and what it says.
pub(super) fn fit(
    profile: &Profile,
    native: Arch,
    capabilities: &[&str],
    kernel: (u32, u32),
) -> Result<(Profile, Filter), SeccompError> {
    let host = Host { arch: native, capabilities, kernel };
    let (mut rules, mut syscalls) = (Vec::new(), Vec::new());
    for rule in &profile.syscalls {
        if host.counts(rule)? {
            let converted = convert(rule)?;
            let (names, args) = (converted.names.clone(), rule.args.clone());
            let (action, errno_ret) = (rule.action.clone(), rule.errno_ret);
            syscalls.push(SyscallRule { names, action, errno_ret, args, ..SyscallRule::default() });
            rules.push(converted);
        }
    }
    let filter = Filter {
        default_action: Action::parse(&profile.default_action, profile.default_errno_ret)?,
        arches: arches(profile, native)?,
        rules,
        flags: Flags::parse(profile.flags.iter().map(String::as_str))?,
    };
    let architectures = filter.arches.iter().map(|arch| arch.profile_name().to_owned()).collect();
    let fitted = Profile { architectures, arch_map: Vec::new(), syscalls, ..profile.clone() };
    Ok((fitted, filter))
}

/// The native architecture, and what the profile names with it.
fn arches(profile: &Profile, native: Arch) -> Result<Vec<Arch>, SeccompError> {
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(SeccompError::Contradiction { what: "use either architectures or archMap" });
    }
    let mapped = profile.arch_map.iter().find(|map| map.architecture == native.profile_name());
    let names = profile.architectures.iter().chain(mapped.into_iter().flat_map(|map| &map.sub_architectures));
    let mut arches = vec![native];
    for name in names {
        if let Some(arch) = Arch::parse(name)?
            && !arches.contains(&arch)
        {
            arches.push(arch);
        }
    }
    Ok(arches)
}

impl Host<'_> {
    fn counts(&self, rule: &SyscallRule) -> Result<bool, SeccompError> {
        let Condition { arches, caps, min_kernel } = &rule.includes;
        if !arches.is_empty() && !self.is_among(arches) || !caps.iter().all(|name| self.has(name)) {
            return Ok(false);
        }
        if let Some(version) = min_kernel
            && !self.is_at_least(version)?
        {
            return Ok(false);
        }
        let Condition { arches, caps, min_kernel } = &rule.excludes;
        if self.is_among(arches) || caps.iter().any(|name| self.has(name)) {
            return Ok(false);
        }
        match min_kernel {
            Some(version) => Ok(!self.is_at_least(version)?),
            None => Ok(true),
        }
    }

    fn is_among(&self, arches: &[String]) -> bool {
        arches.iter().any(|name| name == self.arch.docker_name())
    }

    fn has(&self, capability: &str) -> bool {
        let bare = |name: &str| name.strip_prefix("CAP_").unwrap_or(name).to_ascii_uppercase();
        let capability = bare(capability);
        self.capabilities.iter().any(|own| bare(own) == capability)
    }

    fn is_at_least(&self, version: &str) -> Result<bool, SeccompError> {
        let wrong = || SeccompError::KernelVersion { text: version.to_owned() };
        let (major, minor) = version.split_once('.').ok_or_else(wrong)?;
        let minor = minor.split('.').next().unwrap_or_default();
        let asked: (u32, u32) = (major.parse().map_err(|_| wrong())?, minor.parse().map_err(|_| wrong())?);
        Ok(self.kernel >= asked)
    }
}

fn convert(rule: &SyscallRule) -> Result<Rule, SeccompError> {
    let names = match (rule.name.as_str(), rule.names.as_slice()) {
        ("", names) => names.to_vec(),
        (name, []) => vec![name.to_owned()],
        _ => return Err(SeccompError::Contradiction { what: "use either name or names" }),
    };
    let args: Result<Vec<ArgTest>, SeccompError> = rule.args.iter().map(|arg| convert_arg(arg, &names)).collect();
    Ok(Rule { action: Action::parse(&rule.action, rule.errno_ret)?, args: args?, names })
}

fn convert_arg(arg: &ProfileArg, names: &[String]) -> Result<ArgTest, SeccompError> {
    /// System calls have six arguments.
    const INDEX_MAX: u32 = 5;
    let index = u8::try_from(arg.index).ok().filter(|_| arg.index <= INDEX_MAX).ok_or_else(|| {
        let syscall = names.first().cloned().unwrap_or_default();
        SeccompError::ArgIndex { syscall, index: arg.index }
    })?;
    let (comparison, value) = match arg.op.as_str() {
        "SCMP_CMP_EQ" => (Comparison::Equal, arg.value),
        "SCMP_CMP_NE" => (Comparison::NotEqual, arg.value),
        "SCMP_CMP_LT" => (Comparison::Less, arg.value),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, arg.value),
        "SCMP_CMP_GT" => (Comparison::Greater, arg.value),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, arg.value),
        // For this one `value` is the mask, and `valueTwo` what must remain.
        "SCMP_CMP_MASKED_EQ" => (Comparison::MaskedEqual { mask: arg.value }, arg.value_two),
        other => return Err(SeccompError::UnknownComparison { name: other.to_owned() }),
    };
    Ok(ArgTest { index, comparison, value })
}
