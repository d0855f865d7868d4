//! The naming rule of shim v2: `io.containerd.<name>.<version>` is the binary `containerd-shim-<name>-<version>`.

use std::path::{Path, PathBuf};

use crate::ShimError;

/// Our own shim's runtime name.
pub const OWN_RUNTIME: &str = "io.containerd.berth.v1";

/// Finds the shim binary of a runtime name in the directories of `search` (the caller's PATH), or takes an absolute path as it is.
///
/// # Errors
/// `InvalidArgument` for a name that follows neither form, `NotFound` when no directory holds the binary.
///
/// # Spec
/// containerd runtime v2, "Runtime Shim: binary naming".
pub fn find_shim(runtime: &str, search: &[PathBuf]) -> Result<PathBuf, ShimError> {
    if Path::new(runtime).is_absolute() {
        return Ok(PathBuf::from(runtime));
    }
    let binary = binary_name(runtime).ok_or_else(|| ShimError::RuntimeName { name: runtime.to_owned() })?;
    search.iter().map(|dir| dir.join(&binary)).find(|path| is_executable(path)).ok_or_else(|| ShimError::NoShim {
        runtime: runtime.to_owned(),
        searched: search.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(":"),
        binary,
    })
}

/// The last two parts of at least three make the name; each must be a plain file name part.
fn binary_name(runtime: &str) -> Option<String> {
    let mut parts = runtime.rsplit('.');
    let (version, name) = (parts.next()?, parts.next()?);
    parts.next()?;
    let is_plain =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    (is_plain(name) && is_plain(version)).then(|| format!("containerd-shim-{name}-{version}"))
}

/// A name without a slash is looked for in these directories; anything else is the file it names. Nothing when that cannot be executed.
pub fn find_executable(binary: &Path, search: &[PathBuf]) -> Option<PathBuf> {
    if binary.components().count() > 1 || binary.is_absolute() {
        return is_executable(binary).then(|| binary.to_owned());
    }
    search.iter().map(|dir| dir.join(binary)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::{Classify, ErrorClass};
    use std::os::unix::fs::PermissionsExt;

    /// S-138: the binary naming rule.
    #[test]
    fn s138_names() {
        for (runtime, binary) in [
            ("io.containerd.berth.v1", Some("containerd-shim-berth-v1")),
            ("io.containerd.runc.v2", Some("containerd-shim-runc-v2")),
            ("io.containerd.kata-qemu.v2", Some("containerd-shim-kata-qemu-v2")),
            ("org.example.deep.name.v9", Some("containerd-shim-name-v9")),
            ("runc", None),
            ("runc.v2", None),
            ("io.containerd..v1", None),
            ("io.containerd.a/b.v1", None),
        ] {
            assert_eq!(binary_name(runtime).as_deref(), binary, "{runtime}");
        }
    }

    #[test]
    fn searches_in_order_and_only_executables() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        for d in [&first, &second] {
            std::fs::create_dir(d).unwrap();
            std::fs::write(d.join("containerd-shim-x-v1"), "").unwrap();
        }
        std::fs::set_permissions(second.join("containerd-shim-x-v1"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let search = [first, second.clone()];
        assert_eq!(find_shim("io.containerd.x.v1", &search).unwrap(), second.join("containerd-shim-x-v1"));
        assert_eq!(find_shim("/opt/shim", &search).unwrap(), PathBuf::from("/opt/shim"));
        assert_eq!(find_shim("io.containerd.y.v1", &search).unwrap_err().class(), ErrorClass::NotFound);
        assert_eq!(find_shim("y", &search).unwrap_err().class(), ErrorClass::InvalidArgument);
    }
}
