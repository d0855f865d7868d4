//! What a spec must not say: contradictions and values that mean nothing, found before anything is done.

use std::path::Path;

use berth_oci::runtime::{Linux, Spec};

use crate::error::RuntimeError;
use crate::hooks;
use crate::namespaces::{Namespace, Namespaces};

fn wrong(field: &'static str, problem: impl Into<String>) -> RuntimeError {
    RuntimeError::Spec { field, problem: problem.into() }
}

pub(super) fn check(spec: &Spec, linux: &Linux, namespaces: &Namespaces) -> Result<(), RuntimeError> {
    version(spec.version())?;
    other_platforms(spec)?;
    names(spec, namespaces)?;
    hook_programs(spec)?;
    clocks(linux, namespaces)?;
    let memory = linux.resources().as_ref().and_then(|resources| resources.memory().as_ref());
    if memory.is_some_and(|memory| memory.use_hierarchy() == Some(false)) {
        return Err(wrong(
            "linux.resources.memory.useHierarchy",
            "cannot be false: every kernel counts hierarchically",
        ));
    }
    if spec.annotations().as_ref().is_some_and(|all| all.keys().any(String::is_empty)) {
        return Err(wrong("annotations", "a key is empty"));
    }
    if !namespaces.is_private(Namespace::Mount) {
        host_mounts(spec, namespaces)?;
    }
    for (field, paths) in [("linux.maskedPaths", linux.masked_paths()), ("linux.readonlyPaths", linux.readonly_paths())]
    {
        for path in paths.iter().flatten() {
            if !Path::new(path).is_absolute() || path.contains('\0') {
                return Err(wrong(field, format!("{path:?} is not an absolute path")));
            }
        }
    }
    Ok(())
}

/// In the host's mount namespace the container stands in a copy of its mounts: only who has a right to that namespace comes back to it,
/// and what may not be copied would be missing.
fn host_mounts(spec: &Spec, namespaces: &Namespaces) -> Result<(), RuntimeError> {
    if namespaces.is_private(Namespace::User) {
        let what = "a user namespace without a mount namespace: its root has no right to the host's".to_owned();
        return Err(RuntimeError::Unsupported { what });
    }
    let options = spec.mounts().iter().flatten().flat_map(|mount| mount.options().iter().flatten());
    if options.into_iter().any(|option| option == "unbindable" || option == "runbindable") {
        return Err(wrong(
            "mounts",
            "an unbindable one needs a mount namespace, which the container shares with the host",
        ));
    }
    Ok(())
}

/// runtime-spec config, "Specification version": what is written for a version 1 is for us, whatever its minor number.
fn version(text: &str) -> Result<(), RuntimeError> {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if parts.len() != 3 || !parts.iter().all(is_number) {
        return Err(wrong("ociVersion", format!("{text:?} is not a version such as 1.3.0")));
    }
    if parts.first() == Some(&"1") { Ok(()) } else { Err(wrong("ociVersion", format!("{text} is not a version 1"))) }
}

fn other_platforms(spec: &Spec) -> Result<(), RuntimeError> {
    if let Some(field) = spec.foreign().next() {
        return Err(wrong(field, "is for another platform"));
    }
    let line = spec.process().as_ref().and_then(|process| process.command_line().as_ref());
    if line.is_some_and(|line| !line.is_empty()) {
        return Err(wrong("process.commandLine", "is for another platform; use process.args"));
    }
    Ok(())
}

/// In the host's UTS namespace the names would be the host's.
fn names(spec: &Spec, namespaces: &Namespaces) -> Result<(), RuntimeError> {
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else { continue };
        if !namespaces.is_private(Namespace::Uts) {
            return Err(wrong(field, "needs a UTS namespace, which the container shares with the host"));
        }
        if name.len() > 64 || name.contains('\0') {
            return Err(wrong(field, "is longer than 64 bytes, or holds a NUL"));
        }
    }
    Ok(())
}

fn hook_programs(spec: &Spec) -> Result<(), RuntimeError> {
    let Some(own) = spec.hooks() else { return Ok(()) };
    for stage in hooks::STAGES {
        for hook in stage.of(own) {
            if !hook.path().is_absolute() {
                let problem = format!("{} hook {} is not an absolute path", stage.text(), hook.path().display());
                return Err(wrong("hooks", problem));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                let problem = format!("{} hook {}: its timeout is not positive", stage.text(), hook.path().display());
                return Err(wrong("hooks", problem));
            }
        }
    }
    Ok(())
}

fn clocks(linux: &Linux, namespaces: &Namespaces) -> Result<(), RuntimeError> {
    let field = "linux.timeOffsets";
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else { return Ok(()) };
    if !namespaces.is_new(Namespace::Time) {
        return Err(wrong(field, "needs a new time namespace"));
    }
    for (clock, offset) in offsets {
        if clock != "monotonic" && clock != "boottime" {
            return Err(wrong(field, format!("{clock:?} is not monotonic or boottime")));
        }
        if offset.nanosecs().is_some_and(|nanoseconds| nanoseconds >= 1_000_000_000) {
            return Err(wrong(field, format!("{clock}: nanosecs are a second or more")));
        }
    }
    Ok(())
}
