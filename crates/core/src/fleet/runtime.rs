//! Which shim a runtime's name means.
//!
//! `io.containerd.berth.v1` is our own, `io.containerd.<name>.<version>` the binary `containerd-shim-<name>-<version>` in the searched
//! directories, an absolute path itself. containerd's clients ask for `io.containerd.runc.v2` when they are told nothing: where that shim is
//! not installed our own takes its place, since it runs the same documents with the same options.

use std::path::{Path, PathBuf};

use berth_proto::protobuf::Message as _;
use berth_proto::runc_options::Options;
use berth_shim_client::{OWN_RUNTIME, ShimError, find_shim};

use super::{FleetError, Result};
use crate::SealedBinary;
use crate::objects::AnyValue;

/// What clients ask for by default.
const COMMON_RUNTIME: &str = "io.containerd.runc.v2";
/// As `shim-binary-path` has it for our own.
const OWN: &str = "berth";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shim {
    Own,
    Binary(PathBuf),
}

impl Shim {
    pub(super) fn executable(&self, own: &SealedBinary) -> PathBuf {
        match self {
            Self::Own => own.path(),
            Self::Binary(path) => path.clone(),
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Own => OWN.to_owned(),
            Self::Binary(path) => path.display().to_string(),
        }
    }

    pub(super) fn from_text(text: &str) -> Self {
        if text == OWN { Self::Own } else { Self::Binary(PathBuf::from(text)) }
    }
}

pub(super) fn find(name: &str, search: &[PathBuf]) -> Result<Shim> {
    let is_own = name == OWN_RUNTIME
        || (Path::new(name).is_absolute()
            && Path::new(name).file_name().is_some_and(|n| n == "containerd-shim-berth-v1"));
    if is_own {
        return Ok(Shim::Own);
    }
    match find_shim(name, search) {
        Ok(path) => Ok(Shim::Binary(path)),
        Err(ShimError::NoShim { .. }) if name == COMMON_RUNTIME => Ok(Shim::Own),
        Err(source) => Err(FleetError::Runtime { source }),
    }
}

/// Our own shim runs the OCI runtime that the options name, with its state where they say; what else they ask for is refused by name
/// rather than ignored.
pub(super) fn check_options(task: Option<&(String, Vec<u8>)>, runtime: Option<&AnyValue>) -> Result<()> {
    let (type_url, value) = match (task, runtime) {
        (Some((type_url, value)), _) => (type_url.as_str(), value.as_slice()),
        (None, Some(any)) => (any.type_url.as_str(), any.value.as_slice()),
        (None, None) => return Ok(()),
    };
    if value.is_empty() {
        return Ok(());
    }
    let refused = |option: &str| Err(FleetError::Option { option: option.to_owned() });
    if !type_url.ends_with("containerd.runc.v1.Options") {
        return refused(type_url);
    }
    let Ok(options) = Options::parse_from_bytes(value) else { return refused("that cannot be read") };
    let asked = [
        // A state directory is another runtime's: ours has none.
        ("root", !options.root.is_empty() && options.binary_name.is_empty()),
    ];
    match asked.into_iter().find(|(_, is_asked)| *is_asked) {
        Some((option, _)) => refused(option),
        None => Ok(()),
    }
}

/// The directory of images that runc's options say a task is to be restored from (`criu_image_path`), as containerd takes it: of the host, and in
/// place of a checkpoint of the content store.
pub fn restore_path(options: Option<&(String, Vec<u8>)>) -> Option<PathBuf> {
    let (_, value) = options.filter(|(type_url, _)| type_url.ends_with("containerd.runc.v1.Options"))?;
    let path = Options::parse_from_bytes(value).ok()?.criu_image_path;
    (!path.is_empty()).then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::{Classify, ErrorClass};

    #[test]
    fn options_are_obeyed_or_refused() {
        let any = |options: &Options| AnyValue {
            type_url: "containerd.runc.v1.Options".to_owned(),
            value: options.write_to_bytes().unwrap(),
        };
        check_options(None, None).unwrap();
        check_options(None, Some(&any(&Options::default()))).unwrap();
        let other = Options { binary_name: "crun".to_owned(), root: "/r".to_owned(), ..Default::default() };
        check_options(None, Some(&any(&other))).unwrap();
        let own = Options { root: "/r".to_owned(), ..Default::default() };
        let task = ("containerd.runc.v1.Options".to_owned(), own.write_to_bytes().unwrap());
        let error = check_options(Some(&task), None).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unimplemented);
        assert!(error.to_string().contains("root"), "{error}");
        let saved = Options { criu_image_path: "/i".to_owned(), criu_work_path: "/w".to_owned(), ..Default::default() };
        let task = ("containerd.runc.v1.Options".to_owned(), saved.write_to_bytes().unwrap());
        check_options(Some(&task), None).unwrap();
        assert_eq!(restore_path(Some(&task)), Some("/i".into()));
        assert_eq!(restore_path(Some(&("other".to_owned(), task.1))), None);
    }

    /// S-138: which shim a name means.
    #[test]
    fn s138_names() {
        let dir = tempfile::tempdir().unwrap();
        let search = [dir.path().to_owned()];
        assert_eq!(find(OWN_RUNTIME, &search).unwrap(), Shim::Own);
        assert_eq!(find(COMMON_RUNTIME, &search).unwrap(), Shim::Own);
        assert_eq!(find("io.containerd.kata.v2", &search).unwrap_err().class(), ErrorClass::NotFound);
        assert_eq!(find("runc", &search).unwrap_err().class(), ErrorClass::InvalidArgument);
        let binary = dir.path().join("containerd-shim-runc-v2");
        std::fs::copy("/bin/true", &binary).unwrap();
        assert_eq!(find(COMMON_RUNTIME, &search).unwrap(), Shim::Binary(binary));
        assert_eq!(Shim::from_text(&Shim::Own.text()), Shim::Own);
    }
}
