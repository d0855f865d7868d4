//! `config.json` below `DOCKER_CONFIG` or `~/.docker`. What we do not understand of it stays as it is.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{HUB_KEY, Secret, failed, helper, key_of};
use crate::context::Environment;
use crate::failure::{Failure, Outcome};

const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    document: Map<String, Value>,
}

impl ConfigFile {
    /// Reads the file; not there: an empty one.
    pub(crate) fn find(environment: &Environment) -> Outcome<Self> {
        let directory = match environment.get("DOCKER_CONFIG").filter(|text| !text.is_empty()) {
            Some(directory) => PathBuf::from(directory),
            None => Path::new(environment.get("HOME").unwrap_or("/root")).join(".docker"),
        };
        let path = directory.join("config.json");
        let cannot = |error: &io::Error| Failure::new(format!("cannot read {}", path.display())).because(error);
        let text = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::from("{}"),
            Err(error) => return Err(cannot(&error)),
            Ok(found) if found.len() > FILE_BYTES_MAX => {
                return Err(failed(format_args!("{} is larger than {FILE_BYTES_MAX} bytes", path.display())));
            }
            Ok(_) => fs::read_to_string(&path).map_err(|error| cannot(&error))?,
        };
        let document = if text.trim().is_empty() { Ok(Map::new()) } else { serde_json::from_str(&text) };
        let document = document
            .map_err(|error| Failure::new(format!("{} is not a JSON object", path.display())).because(&error))?;
        Ok(Self { path, document })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The helper that keeps the secrets of this registry.
    fn helper(&self, registry: &str) -> Option<&str> {
        let named = self.document.get("credHelpers").and_then(|helpers| {
            helpers.get(key_of(registry)).or_else(|| helpers.get(registry)).and_then(Value::as_str)
        });
        named.or_else(|| self.document.get("credsStore").and_then(Value::as_str)).filter(|name| !name.is_empty())
    }

    pub(crate) fn get(&self, registry: &str) -> Outcome<Option<Secret>> {
        if let Some(name) = self.helper(registry) {
            return helper::get(name, key_of(registry));
        }
        let Some(auths) = self.document.get("auths").and_then(Value::as_object) else { return Ok(None) };
        let Some((_, entry)) = auths.iter().find(|(key, _)| is_for(key, registry)) else { return Ok(None) };
        of_entry(entry).map_err(|why| failed(format_args!("{}: {registry}: {why}", self.path.display())))
    }

    /// Keeps a secret; returns whether that is in the file itself, unencrypted.
    pub(crate) fn store(&mut self, registry: &str, secret: &Secret) -> Outcome<bool> {
        if let Some(name) = self.helper(registry).map(str::to_owned) {
            helper::store(&name, key_of(registry), secret)?;
            self.auths()?.insert(key_of(registry).to_owned(), json!({}));
            self.write()?;
            return Ok(false);
        }
        let entry = match secret {
            Secret::Password { user, password } => json!({ "auth": STANDARD.encode(format!("{user}:{password}")) }),
            Secret::IdentityToken { user, token } => {
                json!({ "auth": STANDARD.encode(format!("{user}:")), "identitytoken": token })
            }
        };
        self.auths()?.insert(key_of(registry).to_owned(), entry);
        self.write()?;
        Ok(true)
    }

    /// Forgets the secret; returns whether there was one.
    pub(crate) fn erase(&mut self, registry: &str) -> Outcome<bool> {
        if let Some(name) = self.helper(registry).map(str::to_owned) {
            helper::erase(&name, key_of(registry))?;
        }
        let auths = self.auths()?;
        let before = auths.len();
        auths.retain(|key, _| !is_for(key, registry));
        let is_changed = auths.len() != before;
        if is_changed {
            self.write()?;
        }
        Ok(is_changed)
    }

    fn auths(&mut self) -> Outcome<&mut Map<String, Value>> {
        let wrong = failed(format_args!("{}: auths is not an object", self.path.display()));
        self.document.entry("auths").or_insert_with(|| json!({})).as_object_mut().ok_or(wrong)
    }

    /// Beside it and then over it, so that a crash leaves one of the two; readable by its owner alone.
    fn write(&self) -> Outcome<()> {
        let cannot = |error: &io::Error| Failure::new(format!("cannot write {}", self.path.display())).because(error);
        // A link to the file stays a link.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(|error| cannot(&error))?;
        let draft = directory.join(format!(".config.json.{}", std::process::id()));
        let text = serde_json::to_string_pretty(&self.document).map_err(|error| cannot(&error.into()))?;
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &path));
        written.map_err(|error| {
            fs::remove_file(&draft).unwrap_or_default();
            cannot(&error)
        })
    }
}

/// Whether a key of `auths` means this registry: a host, or an URL on it.
fn is_for(key: &str, registry: &str) -> bool {
    if registry == "docker.io" {
        return matches!(key, HUB_KEY | "docker.io" | "index.docker.io" | "https://index.docker.io/v1");
    }
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    host.split('/').next() == Some(registry)
}

fn of_entry(entry: &Value) -> Result<Option<Secret>, &'static str> {
    let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let (auth, token) = (text("auth"), text("identitytoken"));
    let (mut user, mut password) = (text("username"), text("password"));
    if !auth.is_empty() {
        let bytes = STANDARD.decode(&auth).map_err(|_| "auth is not base64")?;
        let pair = String::from_utf8(bytes).map_err(|_| "auth is not text")?;
        let (first, second) = pair.split_once(':').ok_or("auth is not user:password")?;
        (user, password) = (first.to_owned(), second.trim_end_matches('\0').to_owned());
    }
    if !token.is_empty() {
        return Ok(Some(Secret::IdentityToken { user, token }));
    }
    Ok((!user.is_empty()).then_some(Secret::Password { user, password }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(directory: &Path) -> Environment {
        Environment::new([("DOCKER_CONFIG".into(), directory.as_os_str().to_owned())])
    }

    fn password(user: &str, password: &str) -> Secret {
        Secret::Password { user: user.to_owned(), password: password.to_owned() }
    }

    fn found(directory: &Path, registry: &str) -> Option<Secret> {
        let environment = environment(directory);
        ConfigFile::find(&environment).unwrap().get(registry).unwrap()
    }

    #[test]
    fn keeps_what_it_does_not_understand() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        fs::write(&file, r#"{"psFormat":"x","auths":{"old:5000":{"auth":"dTpw"}}}"#).unwrap();
        let mut config = ConfigFile::find(&environment(directory.path())).unwrap();
        assert!(config.store("docker.io", &password("me", "a:b")).unwrap());
        assert!(config.store("r:1", &Secret::IdentityToken { user: "me".into(), token: "t".into() }).unwrap());
        let document: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(document["psFormat"], "x");
        assert_eq!(document["auths"][HUB_KEY]["auth"], "bWU6YTpi");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(found(directory.path(), "docker.io") == Some(password("me", "a:b")));
        assert!(found(directory.path(), "old:5000") == Some(password("u", "p")));
        assert!(found(directory.path(), "r:1").is_some_and(|s| matches!(s, Secret::IdentityToken { .. })));
        assert!(found(directory.path(), "old").is_none());
        assert!(config.erase("docker.io").unwrap() && !config.erase("docker.io").unwrap());
        assert!(found(directory.path(), "docker.io").is_none());
    }

    /// CVE-2021-41092: a helper that is missing is an error, and no other secret is used in its place.
    #[test]
    fn a_missing_helper_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"{"credsStore":"not-there-at-all","auths":{"r:1":{"auth":"dTpw"}}}"#;
        fs::write(directory.path().join("config.json"), text).unwrap();
        let environment = environment(directory.path());
        let error = ConfigFile::find(&environment).unwrap().get("r:1").err().unwrap();
        assert_eq!(error.message, "cannot run the credential helper docker-credential-not-there-at-all");
    }
}
