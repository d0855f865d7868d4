//! Which runtime a container gets by its name: ours, another OCI runtime's command line, or another shim (S-122, S-137, S-138).
//!
//! | name | what |
//! |---|---|
//! | none, `berth`, `io.containerd.berth.v1` | our own runtime, in our shim |
//! | one of the configuration's `[runtimes.NAME]` | what is written there |
//! | `io.containerd.<name>.<version>` | the shim `containerd-shim-<name>-<version>` of the daemon's directories |
//! | an absolute path | a shim when the file's name begins with `containerd-shim-`, else an OCI runtime |
//! | any other word (`runc`, `crun`) | the OCI runtime of that name in the daemon's directories |

mod options;
mod seccomp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_shim_client::{RuntimeChoice, ShimError, find_executable, find_shim};

use crate::error::{EngineError, Result};
use crate::request::Request;
use crate::request::namespaces::UserNsMode;

pub(crate) use seccomp::document as seccomp_document;

pub(crate) use berth_shim_client::OWN_RUNTIME as OWN;
const OWN_NAMES: [&str; 3] = ["", "berth", OWN];
const SHIM_PREFIX: &str = "containerd-shim-";
/// OCI runtimes that `info` lists where they are installed; any other is found all the same.
const KNOWN: [&str; 5] = ["crun", "runb", "runc", "runsc", "youki"];

/// A runtime of the operator's, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RuntimeEntry {
    /// An OCI runtime's binary.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Arguments before the verb.
    #[serde(default)]
    pub args: Vec<String>,
    /// Instead of a path: a shim, as `io.containerd.<name>.<version>` or by its path.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// For the shim: runc's by their names (`BinaryName`, `Root`, `SystemdCgroup`), else `TypeUrl`, `ConfigPath` and `ConfigBody`.
    #[serde(default)]
    pub options: BTreeMap<String, serde_json::Value>,
}

/// What the operator and the host offer.
#[derive(Debug, Clone, Default)]
pub struct Runtimes {
    entries: BTreeMap<String, RuntimeEntry>,
    default: String,
}

impl Runtimes {
    /// `entries`: `NAME=PATH`, or `NAME={"path": …}` with the keys of [`RuntimeEntry`]; `default`: for containers that name none.
    ///
    /// # Errors
    /// `InvalidArgument` for a text of neither form, or an entry that is both or neither.
    pub fn parse(entries: &[String], default: Option<&str>) -> Result<Self> {
        let entries = entries.iter().map(|text| entry(text)).collect::<Result<_>>()?;
        Ok(Self { entries, default: default.unwrap_or_default().to_owned() })
    }

    /// What a container that names no runtime gets.
    pub(crate) fn default_name(&self) -> &str {
        if OWN_NAMES.contains(&self.default.as_str()) { OWN } else { &self.default }
    }

    /// The name to keep of a container.
    pub(crate) fn name_or_default(&self, name: String) -> String {
        if name.is_empty() { self.default.clone() } else { name }
    }

    /// `None`: our own.
    ///
    /// # Errors
    /// `InvalidArgument` for a name of no form, and for one that nothing is installed for: to Docker's client, what is not found at a create is
    /// the image.
    pub(crate) fn find(&self, name: &str, search: &[PathBuf]) -> Result<Option<RuntimeChoice>> {
        if OWN_NAMES.contains(&name) {
            return Ok(None);
        }
        if let Some(entry) = self.entries.get(name) {
            return choice_of(name, entry, search).map(Some);
        }
        let path = Path::new(name);
        let is_shim_path = path.is_absolute() && is_shim_file(path);
        if is_shim_path || (!path.is_absolute() && name.contains('.')) {
            return shim(name, name, None, search).map(Some);
        }
        command(name, path, Vec::new(), search).map(Some)
    }

    /// Names and where they lead, for `info`: ours, the operator's, and what lies in the directories.
    pub(crate) fn list(&self, search: &[PathBuf]) -> BTreeMap<String, String> {
        let mut all = BTreeMap::from([(OWN.to_owned(), "containerd-shim-berth-v1".to_owned())]);
        for name in KNOWN {
            if let Some(path) = find_executable(Path::new(name), search) {
                all.insert(name.to_owned(), path.display().to_string());
            }
        }
        for dir in search {
            for file in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if let Some(name) = file.file_name().to_str().and_then(runtime_name)
                    && find_executable(&file.path(), &[]).is_some()
                {
                    all.entry(name).or_insert_with(|| file.path().display().to_string());
                }
            }
        }
        for (name, entry) in &self.entries {
            let path = entry.path.as_ref().map(|path| path.display().to_string()).or_else(|| entry.kind.clone());
            all.insert(name.clone(), path.unwrap_or_default());
        }
        all
    }
}

fn entry(text: &str) -> Result<(String, RuntimeEntry)> {
    let wrong = |problem: String| {
        EngineError::invalid(format!("runtime {text:?} {problem}"))
            .with_hint("as in crun=/usr/bin/crun, or a table [runtimes.crun] in the configuration file")
    };
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty() && !name.contains('/')) else {
        return Err(wrong("is not of the form NAME=PATH".to_owned()));
    };
    if OWN_NAMES.contains(&name) {
        return Err(wrong("is the name of our own".to_owned()));
    }
    let entry: RuntimeEntry = if value.starts_with('{') {
        serde_json::from_str(value).map_err(|error| wrong(format!("cannot be understood: {error}")))?
    } else {
        RuntimeEntry { path: Some(PathBuf::from(value)), ..RuntimeEntry::default() }
    };
    match (&entry.path, &entry.kind) {
        (Some(path), None) if path.is_absolute() && entry.options.is_empty() => {}
        (Some(path), None) if path.is_absolute() => return Err(wrong("has options, which are a shim's".to_owned())),
        (Some(_), None) => return Err(wrong("has a path that is not absolute".to_owned())),
        (None, Some(_)) if entry.args.is_empty() => options::encode(&entry.options).map(drop)?,
        (None, Some(_)) => return Err(wrong("has args, which are an OCI runtime's".to_owned())),
        _ => return Err(wrong("needs a path or a type, and not both".to_owned())),
    }
    Ok((name.to_owned(), entry))
}

fn choice_of(name: &str, entry: &RuntimeEntry, search: &[PathBuf]) -> Result<RuntimeChoice> {
    match (&entry.path, &entry.kind) {
        (Some(path), _) => command(name, path, entry.args.clone(), search),
        (None, Some(kind)) => shim(name, kind, options::encode(&entry.options)?, search),
        (None, None) => Err(EngineError::internal(format!("runtime {name:?} is nothing"))),
    }
}

fn shim(name: &str, kind: &str, options: Option<(String, Vec<u8>)>, search: &[PathBuf]) -> Result<RuntimeChoice> {
    let binary = find_shim(kind, search).map_err(|error| match error {
        ShimError::NoShim { .. } => missing(name, &berth_types::report(&error)),
        other => {
            EngineError::invalid(format!("unknown or invalid runtime name: {name}: {}", berth_types::report(&other)))
        }
    })?;
    if find_executable(&binary, &[]).is_none() {
        return Err(missing(name, &format!("no executable file {}", binary.display())));
    }
    Ok(RuntimeChoice::Shim { binary, options })
}

fn command(name: &str, binary: &Path, arguments: Vec<String>, search: &[PathBuf]) -> Result<RuntimeChoice> {
    if name.is_empty() || name.contains('\0') || (!binary.is_absolute() && name.contains('/')) {
        return Err(EngineError::invalid(format!("unknown or invalid runtime name: {name}"))
            .with_hint("give a name, io.containerd.<name>.<version>, or an absolute path"));
    }
    match find_executable(binary, search) {
        Some(binary) => Ok(RuntimeChoice::Command { binary, arguments }),
        None => Err(missing(name, &format!("no executable {} in {}", binary.display(), joined(search)))),
    }
}

fn missing(name: &str, why: &str) -> EngineError {
    EngineError::invalid(format!("runtime {name:?} is not installed: {why}"))
        .with_hint("berth info lists the runtimes there are; name others in [runtimes.NAME] of berthd's configuration")
}

fn joined(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":")
}

fn is_shim_file(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(SHIM_PREFIX))
}

/// The naming rule backwards: `containerd-shim-runc-v2` is `io.containerd.runc.v2`.
fn runtime_name(file: &str) -> Option<String> {
    let (name, version) = file.strip_prefix(SHIM_PREFIX)?.rsplit_once('-')?;
    let is_version = version.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    (is_version && !name.is_empty()).then(|| format!("io.containerd.{name}.{version}"))
}

/// What a shim's binary is called as a runtime; one that follows no rule is its own name.
pub(crate) fn runtime_of_shim(binary: &str) -> String {
    let file = Path::new(binary).file_name().and_then(|name| name.to_str());
    file.and_then(runtime_name).unwrap_or_else(|| binary.to_owned())
}

/// What only our own runtime does.
///
/// # Errors
/// `Unimplemented`, with the flag.
pub(crate) fn check_request(name: &str, request: &Request) -> Result<()> {
    if request.namespaces.user != UserNsMode::Host && !matches!(request.namespaces.user, UserNsMode::Joined(_)) {
        return Err(EngineError::unimplemented(format!(
            "runtime {name:?} with --userns: mapped root file systems are our own runtime's alone"
        ))
        .with_hint("leave out --userns or --runtime"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use berth_types::ErrorClass;

    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn executable(dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// S-122, S-138: what each form of a name means.
    #[test]
    fn s122_names() {
        let dir = tempfile::tempdir().unwrap();
        let search = [dir.path().to_owned()];
        let crun = executable(dir.path(), "crun");
        let shim = executable(dir.path(), "containerd-shim-kata-v2");
        let table = r#"gvisor={"path":"/bin/true","args":["--platform=ptrace"]}"#;
        let kata = r#"kata={"type":"io.containerd.kata.v2","options":{"ConfigPath":"/k.toml"}}"#;
        let runtimes = Runtimes::parse(&[table.to_owned(), kata.to_owned()], Some("crun")).unwrap();
        let find = |name: &str| runtimes.find(name, &search);
        let command = |binary: &Path| RuntimeChoice::Command { binary: binary.to_owned(), arguments: Vec::new() };
        let by_shim = |options| RuntimeChoice::Shim { binary: shim.clone(), options };
        for name in OWN_NAMES {
            assert_eq!(find(name).unwrap(), None);
        }
        assert_eq!(find("crun").unwrap(), Some(command(&crun)));
        assert_eq!(find(crun.to_str().unwrap()).unwrap(), Some(command(&crun)));
        assert_eq!(find("io.containerd.kata.v2").unwrap(), Some(by_shim(None)));
        assert_eq!(find(shim.to_str().unwrap()).unwrap(), Some(by_shim(None)));
        let options = ("runtimeoptions.v1.Options".to_owned(), b"\x12\x07/k.toml".to_vec());
        assert_eq!(find("kata").unwrap(), Some(by_shim(Some(options))));
        let arguments = vec!["--platform=ptrace".to_owned()];
        assert_eq!(find("gvisor").unwrap(), Some(RuntimeChoice::Command { binary: "/bin/true".into(), arguments }));
        assert_eq!(runtimes.name_or_default(String::new()), "crun");
        assert_eq!(runtimes.default_name(), "crun");
        let listed = runtimes.list(&search);
        let names: Vec<&str> = listed.keys().map(String::as_str).collect();
        assert_eq!(names, ["crun", "gvisor", "io.containerd.berth.v1", "io.containerd.kata.v2", "kata"]);
    }

    #[test]
    fn refusals_name_what_is_missing() {
        let runtimes = Runtimes::default();
        let search = [PathBuf::from("/nowhere")];
        for (name, class, words) in [
            ("youki", ErrorClass::InvalidArgument, "no executable youki in /nowhere"),
            ("io.containerd.kata.v2", ErrorClass::InvalidArgument, "containerd-shim-kata-v2"),
            ("/nowhere/containerd-shim-x-v1", ErrorClass::InvalidArgument, "/nowhere/containerd-shim-x-v1"),
            ("/nowhere/runc", ErrorClass::InvalidArgument, "/nowhere/runc"),
            ("a/b", ErrorClass::InvalidArgument, "invalid runtime name"),
            ("x.y", ErrorClass::InvalidArgument, "invalid runtime name"),
        ] {
            let error = runtimes.find(name, &search).unwrap_err();
            assert_eq!(error.class, class, "{name}");
            assert!(error.message.contains(words), "{name}: {}", error.message);
        }
        for bad in ["crun", "=x", "crun=bin/crun", "berth=/x", r#"x={"path":"/x","type":"y"}"#, "x={}", r#"x={"no":1}"#]
        {
            assert!(Runtimes::parse(&[bad.to_owned()], None).is_err(), "{bad}");
        }
    }
}
