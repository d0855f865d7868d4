//! A seccomp profile as `linux.seccomp` of the specification, for runtimes that do not take a compiled program: the rules that count for
//! this container's capabilities, architecture and kernel, conditions taken out.

use berth_oci::runtime::LinuxSeccomp;
use berth_seccomp::{Arch, Condition, Profile, SyscallRule};
use serde_json::{Value, json};

use crate::error::{EngineError, Result};

pub(crate) fn document(profile: &Profile, capabilities: &[&str], kernel: (u32, u32)) -> Result<LinuxSeccomp> {
    let wrong = |detail: String| EngineError::invalid(format!("the seccomp profile cannot be given on: {detail}"));
    let native = Arch::native().map_err(|error| wrong(berth_types::report(&error)))?;
    let host = Host { native, capabilities, kernel };
    let rules: Vec<Value> = profile.syscalls.iter().filter(|rule| host.counts(rule)).map(rule).collect();
    let mut value = json!({ "defaultAction": profile.default_action, "syscalls": rules });
    let architectures = host.architectures(profile);
    if !architectures.is_empty() {
        value["architectures"] = json!(architectures);
    }
    for (key, field) in [("listenerPath", &profile.listener_path), ("listenerMetadata", &profile.listener_metadata)] {
        if !field.is_empty() {
            value[key] = json!(field);
        }
    }
    if let Some(errno) = profile.default_errno_ret {
        value["defaultErrnoRet"] = json!(errno);
    }
    if !profile.flags.is_empty() {
        value["flags"] = json!(profile.flags);
    }
    serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
}

fn rule(rule: &SyscallRule) -> Value {
    let names = if rule.names.is_empty() { vec![rule.name.clone()] } else { rule.names.clone() };
    let mut value = json!({ "names": names, "action": rule.action });
    if let Some(errno) = rule.errno_ret {
        value["errnoRet"] = json!(errno);
    }
    if !rule.args.is_empty() {
        value["args"] = json!(rule.args);
    }
    value
}

struct Host<'a> {
    native: Arch,
    /// Without `CAP_`.
    capabilities: &'a [&'a str],
    kernel: (u32, u32),
}

impl Host<'_> {
    fn counts(&self, rule: &SyscallRule) -> bool {
        self.all(&rule.includes) && !self.any(&rule.excludes)
    }

    fn has_capability(&self, name: &str) -> bool {
        self.capabilities.iter().any(|has| name.strip_prefix("CAP_").unwrap_or(name) == *has)
    }

    fn is_arch(&self, name: &str) -> bool {
        let native = match self.native {
            Arch::X86_64 => ["amd64", "x86_64"],
            Arch::Aarch64 => ["arm64", "aarch64"],
            _ => return false,
        };
        native.contains(&name)
    }

    fn has_kernel(&self, least: &str) -> bool {
        let mut numbers = least.splitn(2, '.').map(|part| part.parse::<u32>().unwrap_or(u32::MAX));
        self.kernel >= (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or_default())
    }

    fn all(&self, wanted: &Condition) -> bool {
        (wanted.arches.is_empty() || wanted.arches.iter().any(|name| self.is_arch(name)))
            && wanted.caps.iter().all(|name| self.has_capability(name))
            && wanted.min_kernel.as_deref().is_none_or(|least| self.has_kernel(least))
    }

    fn any(&self, unwanted: &Condition) -> bool {
        unwanted.arches.iter().any(|name| self.is_arch(name))
            || unwanted.caps.iter().any(|name| self.has_capability(name))
            || unwanted.min_kernel.as_deref().is_some_and(|least| self.has_kernel(least))
    }

    fn architectures(&self, profile: &Profile) -> Vec<String> {
        let is_native = |name: &str| Arch::parse(name).ok().flatten() == Some(self.native);
        let mapped = profile.arch_map.iter().find(|map| is_native(&map.architecture));
        match mapped {
            Some(map) => std::iter::once(&map.architecture).chain(&map.sub_architectures).cloned().collect(),
            None => profile.architectures.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(capabilities: &[&str]) -> Vec<String> {
        let document = document(&berth_seccomp::default_profile(), capabilities, (6, 1)).unwrap();
        document.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn conditions_are_taken_out() {
        let plain = names(&[]);
        assert!(plain.iter().any(|name| name == "read"));
        assert!(!plain.iter().any(|name| name == "mount"));
        assert!(names(&["SYS_ADMIN"]).iter().any(|name| name == "mount"));
    }
}
