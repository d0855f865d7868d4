//! Before a container is entered, this process becomes one whose executable no container can write (CVE-2019-5736).

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

use berth_oci::runtime::{LinuxNamespaceType, Spec};
use berth_sys::process::{StringArray, execute_fd};

use crate::error::CommandError;
use crate::log::Log;

/// Executes the sealed form of this program with the same arguments; returns when this is it already, or when no container of these
/// mappings (lines as in `/proc/PID/uid_map`) could write it. Nothing that must not happen twice may have happened before.
pub(crate) fn enter_only_sealed(maps: Option<&str>, log: &Log) -> Result<(), CommandError> {
    let Some(executable) = berth_runtime::sealed_executable(maps)? else {
        log.debug(|| {
            "the executable cannot be written from the container (what runc says: runc exeseal: using overlayfs for sealed \
             /proc/self/exe, runc exeseal: using /proc/self/exe clone)"
                .to_owned()
        });
        return Ok(());
    };
    let text = |words: Vec<std::ffi::OsString>| -> Vec<CString> {
        words.into_iter().filter_map(|word| CString::new(word.into_vec()).ok()).collect()
    };
    let arguments = StringArray::new(text(std::env::args_os().collect()));
    let environment = std::env::vars_os().map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    });
    let environment = StringArray::new(text(environment.collect()));
    let source = execute_fd(&executable, &arguments, &environment);
    Err(berth_runtime::RuntimeError::Kernel { what: "execute the sealed runtime", source }.into())
}

/// The mappings of a user namespace that is to be made, as `/proc/PID/uid_map` will show them; `None` when the container's root is ours,
/// or that of a namespace nobody has looked at yet.
pub(crate) fn maps_of(spec: &Spec) -> Option<String> {
    let linux = spec.linux().as_ref()?;
    let is_new = linux.namespaces().iter().flatten().any(|namespace| {
        let has_path = namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
        namespace.typ() == LinuxNamespaceType::User && !has_path
    });
    let line = |mapping: &berth_oci::runtime::LinuxIdMapping| {
        format!("{} {} {}\n", mapping.container_id(), mapping.host_id(), mapping.size())
    };
    is_new.then(|| linux.uid_mappings().iter().flatten().map(line).collect())
}
