//! How engines call a shim binary: Go-style flags (`-id x`, `--id=x`), then the verb; some facts come by environment.

use std::path::PathBuf;

use crate::ShimError;

/// Variables that matter to a shim, taken by `main` (a library reads no environment).
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `TTRPC_ADDRESS`: where events go.
    pub events_address: Option<String>,
    pub namespace: Option<String>,
    /// `MAX_SHIM_VERSION`: the newest form of answer the caller understands.
    pub shim_version_max: Option<String>,
    /// `BERTH_EVENTS=oom`: our own daemon, which follows everything else by its open calls.
    pub events: Option<String>,
    /// `BERTH_SOCKET_DIR`: where sockets are made.
    pub socket_dir: Option<String>,
    /// `PATH`: where runtimes named without a path are looked for.
    pub search: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Start,
    Delete,
    Version,
    Info,
}

#[derive(Debug, Clone)]
pub struct Invocation {
    pub verb: Verb,
    pub namespace: String,
    pub id: String,
    pub grpc_address: String,
    /// `None`: the working directory is the bundle.
    pub bundle: Option<String>,
    pub is_debug: bool,
    pub environment: Environment,
}

impl Invocation {
    /// # Errors
    /// `InvalidArgument` for an unknown flag or verb, or a missing id or namespace.
    pub fn parse(arguments: impl Iterator<Item = String>, environment: Environment) -> Result<Self, ShimError> {
        let mut parsed = Self {
            verb: Verb::Start,
            namespace: environment.namespace.clone().unwrap_or_default(),
            id: String::new(),
            grpc_address: String::new(),
            bundle: None,
            is_debug: false,
            environment,
        };
        let mut verb = None;
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix('-') else {
                verb = verb.or(Some(argument));
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, inline) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value.to_owned())));
            match name {
                "v" | "version" => verb = Some("-v".to_owned()),
                "info" => verb = Some("-info".to_owned()),
                "debug" => parsed.is_debug = inline.is_none_or(|value| value != "false"),
                _ => parsed.set(name, inline.or_else(|| arguments.next()))?,
            }
        }
        parsed.verb = verb_of(verb.as_deref())?;
        parsed.check()
    }

    fn set(&mut self, name: &str, value: Option<String>) -> Result<(), ShimError> {
        let value = value.ok_or_else(|| ShimError::Usage { problem: format!("flag -{name} has no value") })?;
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.grpc_address = value,
            "bundle" => self.bundle = Some(value),
            // Events go over ttrpc; the sockets of other shims' own processes do not concern us.
            "publish-binary" => {}
            _ => return Err(ShimError::Usage { problem: format!("unknown flag -{name}") }),
        }
        Ok(())
    }

    fn check(self) -> Result<Self, ShimError> {
        let needs_names = matches!(self.verb, Verb::Start | Verb::Delete);
        for (flag, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            let is_name = !value.is_empty() && value.len() <= 256 && !value.contains(['/', '\0']);
            if needs_names && !is_name {
                return Err(ShimError::Usage { problem: format!("-{flag} {value:?} is missing or not valid") });
            }
        }
        Ok(self)
    }
}

fn verb_of(word: Option<&str>) -> Result<Verb, ShimError> {
    match word {
        Some("start") => Ok(Verb::Start),
        Some("delete") => Ok(Verb::Delete),
        Some("-v") => Ok(Verb::Version),
        Some("-info") => Ok(Verb::Info),
        Some(other) => Err(ShimError::Usage { problem: format!("unknown verb {other:?}") }),
        None => Err(ShimError::Usage { problem: "no verb given".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, ShimError> {
        Invocation::parse(line.split_whitespace().map(str::to_owned), Environment::default())
    }

    /// S-138: as containerd calls it.
    #[test]
    fn s138_calls() {
        let start =
            parse("-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id abc start").unwrap();
        assert_eq!((start.verb, start.namespace.as_str(), start.id.as_str()), (Verb::Start, "k8s.io", "abc"));
        let delete = parse("--namespace=n -debug -id=x -bundle /b delete").unwrap();
        assert_eq!((delete.verb, delete.bundle.as_deref(), delete.is_debug), (Verb::Delete, Some("/b"), true));
        assert_eq!(parse("-v").unwrap().verb, Verb::Version);
        assert_eq!(parse("-info").unwrap().verb, Verb::Info);
    }

    #[test]
    fn refusals() {
        for line in [
            "",
            "start",
            "-id x start",
            "-id a/b -namespace n start",
            "-id x -namespace n stop",
            "-what x start",
            "-id",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
