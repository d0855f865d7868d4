//! `FORM[:TARGET]` of `--trace` and `berth trace`.

use std::path::PathBuf;

use crate::failure::{Failure, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Json,
    /// Trace events for chrome://tracing and Perfetto.
    Chrome,
    /// OTLP/JSON, as collectors take it.
    Otlp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Stderr,
    Stdout,
    File(PathBuf),
    Collector(Collector),
}

/// `http://HOST[:PORT][/PATH]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Collector {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

/// What a timeline is written as, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub(super) kind: Kind,
    pub(super) target: Target,
}

const FORMS: &str =
    "the form is text, json, chrome or otlp, with :FILE after it if it shall go there, or otlp:http://HOST:PORT";
const OTLP_PORT: u16 = 4318;
const OTLP_PATH: &str = "/v1/traces";

impl Form {
    /// As the value of `flag`.
    pub(crate) fn parse(flag: &str, text: &str) -> Outcome<Self> {
        let refused = || Failure::new(format!("invalid {flag}: {FORMS}"));
        let (kind, target) = text.split_once(':').map_or((text, None), |(kind, target)| (kind, Some(target)));
        let kind = match kind {
            "text" => Kind::Text,
            "json" => Kind::Json,
            "chrome" => Kind::Chrome,
            "otlp" => Kind::Otlp,
            _ => return Err(refused()),
        };
        let target = match target {
            None => Target::Stderr,
            Some("") => return Err(refused()),
            Some("-") => Target::Stdout,
            Some(url) if url.starts_with("http://") && kind == Kind::Otlp => Target::Collector(collector(flag, url)?),
            Some(url) if url.starts_with("https://") => {
                return Err(Failure::new(format!("invalid {flag}: {url}: only http:// collectors are supported"))
                    .hint("run a collector on this machine, it can send on with TLS"));
            }
            Some(file) => Target::File(file.into()),
        };
        Ok(Self { kind, target })
    }

    /// Where nothing else is said, a recalled trace goes to stdout.
    #[must_use]
    pub(crate) fn or_stdout(mut self) -> Self {
        if self.target == Target::Stderr {
            self.target = Target::Stdout;
        }
        self
    }
}

fn collector(flag: &str, url: &str) -> Outcome<Collector> {
    let refused = || Failure::new(format!("invalid {flag}: {url:?} is no URL of the form http://HOST[:PORT][/PATH]"));
    let rest = url.strip_prefix("http://").ok_or_else(refused)?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) => (host, port.parse().map_err(|_| refused())?),
        None => (authority, OTLP_PORT),
    };
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if host.is_empty() || !is_plain(host) || !is_plain(path) {
        return Err(refused());
    }
    let path = if matches!(path, "" | "/") { OTLP_PATH } else { path };
    Ok(Collector { host: host.trim_matches(['[', ']']).to_owned(), port, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_targets() {
        let parse = |text| Form::parse("--trace", text).map(|form| (form.kind, form.target));
        assert_eq!(parse("text").unwrap(), (Kind::Text, Target::Stderr));
        assert_eq!(parse("chrome:/tmp/x.json").unwrap(), (Kind::Chrome, Target::File("/tmp/x.json".into())));
        assert_eq!(parse("json:-").unwrap(), (Kind::Json, Target::Stdout));
        let to = |host: &str, port, path: &str| {
            (Kind::Otlp, Target::Collector(Collector { host: host.to_owned(), port, path: path.to_owned() }))
        };
        assert_eq!(parse("otlp:http://c").unwrap(), to("c", 4318, "/v1/traces"));
        assert_eq!(parse("otlp:http://[::1]:99/x").unwrap(), to("::1", 99, "/x"));
        for bad in ["", "xml", "json:", "otlp:http://", "otlp:http://h:port", "otlp:http://a b", "otlp:https://c"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
