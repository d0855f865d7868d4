//! What a Create or Exec request says about standard I/O, parsed; nothing is opened here.
//!
//! Ours: `json-file:///path?max-size=BYTES&max-file=N`, `attach://`, `attach://?once=1`, `null://`, empty.
//! Of other engines: a plain path (FIFO), `file:///path`, and `binary:///path?key=value`.

use std::path::PathBuf;

use berth_types::{Classify, ErrorClass};

use super::json_file::LogTarget;
use super::log_binary::{Program, Subject};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum UriError {
    #[error(
        "{stream} {uri:?} is not an I/O address: give json-file://, file://, binary://, attach://, null:// or the path of a FIFO"
    )]
    Unknown { stream: &'static str, uri: String },
    #[error("{stream} {uri:?}: the path must be absolute")]
    Relative { stream: &'static str, uri: String },
    #[error("{stream} {uri:?}: option {option:?} is unknown or has no valid value")]
    Parameter { stream: &'static str, uri: String, option: String },
    #[error("stdout and stderr name two different log files, {first:?} and {second:?}")]
    TwoLogs { first: PathBuf, second: PathBuf },
}

impl Classify for UriError {
    fn class(&self) -> ErrorClass {
        ErrorClass::InvalidArgument
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    Null,
    /// From attached clients; with `once` the first end of input closes it.
    Attach {
        once: bool,
    },
    Fifo(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    Null,
    /// Only to attached clients.
    Attach,
    Log(LogTarget),
    Fifo(PathBuf),
    File(PathBuf),
    Binary(Program),
}

/// The three streams of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IoRequest {
    pub(crate) terminal: bool,
    pub(crate) stdin: Input,
    pub(crate) stdout: Output,
    /// Not used with a terminal: all output of a terminal is stdout.
    pub(crate) stderr: Output,
    /// What a logger is told.
    pub(crate) subject: Subject,
    pub(crate) owner: Owner,
}

/// Whose the pipes of a process are, as the host counts users and groups; 0 is left as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl IoRequest {
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn parse(terminal: bool, stdin: &str, stdout: &str, stderr: &str) -> Result<Self, UriError> {
        let stdout = output("stdout", stdout)?;
        let mut stderr = if terminal { Output::Null } else { output("stderr", stderr)? };
        if let (Output::Binary(_), Output::Null, false) = (&stdout, &stderr, terminal) {
            // A logger takes both, as the field's shims have it.
            stderr = stdout.clone();
        }
        if let (Output::Binary(a), Output::Binary(b)) = (&stdout, &stderr)
            && a != b
        {
            return Err(UriError::TwoLogs { first: a.path.clone(), second: b.path.clone() });
        }
        if let (Output::Log(a), Output::Log(b)) = (&stdout, &stderr)
            && a != b
        {
            return Err(UriError::TwoLogs { first: a.path.clone(), second: b.path.clone() });
        }
        Ok(Self {
            terminal,
            stdin: input(stdin)?,
            stdout,
            stderr,
            subject: Subject::default(),
            owner: Owner::default(),
        })
    }

    pub(crate) fn log(&self) -> Option<&LogTarget> {
        [&self.stdout, &self.stderr].into_iter().find_map(|output| match output {
            Output::Log(target) => Some(target),
            _ => None,
        })
    }
}

fn input(uri: &str) -> Result<Input, UriError> {
    const STREAM: &str = "stdin";
    if uri.is_empty() || uri == "null://" {
        return Ok(Input::Null);
    }
    match split(uri) {
        Some(("attach", rest)) => {
            let mut once = false;
            for (key, value) in parameters(rest.strip_prefix('?').unwrap_or(rest)) {
                once = match (key, value) {
                    ("once", "0") => false,
                    ("once", "1") => true,
                    _ => {
                        return Err(UriError::Parameter {
                            stream: STREAM,
                            uri: uri.to_owned(),
                            option: key.to_owned(),
                        });
                    }
                };
            }
            Ok(Input::Attach { once })
        }
        None if uri.starts_with('/') => Ok(Input::Fifo(PathBuf::from(uri))),
        _ => Err(UriError::Unknown { stream: STREAM, uri: uri.to_owned() }),
    }
}

fn output(stream: &'static str, uri: &str) -> Result<Output, UriError> {
    if uri.is_empty() || uri == "null://" {
        return Ok(Output::Null);
    }
    match split(uri) {
        Some(("attach", "")) => Ok(Output::Attach),
        Some(("json-file", rest)) => log_target(stream, uri, rest).map(Output::Log),
        Some(("file", path)) if path.starts_with('/') => Ok(Output::File(PathBuf::from(path))),
        Some(("file", _)) => Err(UriError::Relative { stream, uri: uri.to_owned() }),
        Some(("fifo", path)) if path.starts_with('/') => Ok(Output::Fifo(PathBuf::from(path))),
        Some(("binary", rest)) => binary(stream, uri, rest).map(Output::Binary),
        None if uri.starts_with('/') => Ok(Output::Fifo(PathBuf::from(uri))),
        _ => Err(UriError::Unknown { stream, uri: uri.to_owned() }),
    }
}

/// Key and value of each pair become arguments, in their order.
fn binary(stream: &'static str, uri: &str, rest: &str) -> Result<Program, UriError> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let wrong = |option: &str| UriError::Parameter { stream, uri: uri.to_owned(), option: option.to_owned() };
    let path = decoded(path, false).ok_or_else(|| wrong("path"))?;
    if !path.starts_with('/') {
        return Err(UriError::Relative { stream, uri: uri.to_owned() });
    }
    let mut arguments = Vec::new();
    for (key, value) in parameters(query) {
        for word in [key, value] {
            arguments.push(decoded(word, true).ok_or_else(|| wrong(key))?);
        }
    }
    Ok(Program { path: PathBuf::from(path), arguments })
}

/// RFC 3986 section 2.1; in a query a plus is a space.
fn decoded(text: &str, is_query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok().filter(|byte| *byte != 0)?
            }
            b'+' if is_query => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn log_target(stream: &'static str, uri: &str, rest: &str) -> Result<LogTarget, UriError> {
    let (path, query) = rest.rsplit_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return Err(UriError::Relative { stream, uri: uri.to_owned() });
    }
    let mut target = LogTarget { path: PathBuf::from(path), size_bytes_max: None, files_max: 1 };
    for (key, value) in parameters(query) {
        let wrong = || UriError::Parameter { stream, uri: uri.to_owned(), option: key.to_owned() };
        let number = value.parse::<u64>().map_err(|_| wrong())?;
        match key {
            "max-size" => target.size_bytes_max = (number > 0).then_some(number),
            "max-file" => {
                target.files_max = u32::try_from(number).ok().filter(|n| (1..=1000).contains(n)).ok_or_else(wrong)?;
            }
            _ => return Err(wrong()),
        }
    }
    Ok(target)
}

fn split(uri: &str) -> Option<(&str, &str)> {
    uri.split_once("://")
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(path: &str, size_bytes_max: Option<u64>, files_max: u32) -> Output {
        Output::Log(LogTarget { path: PathBuf::from(path), size_bytes_max, files_max })
    }

    #[test]
    fn accepted() {
        for (uri, expected) in [
            ("", Output::Null),
            ("null://", Output::Null),
            ("attach://", Output::Attach),
            ("json-file:///a/b.log", log("/a/b.log", None, 1)),
            ("json-file:///a?max-size=10&max-file=5", log("/a", Some(10), 5)),
            ("json-file:///a?b?max-file=2", log("/a?b", None, 2)),
            ("file:///x", Output::File("/x".into())),
            ("/run/fifo", Output::Fifo("/run/fifo".into())),
            ("binary:///bin/l%20g", Output::Binary(Program { path: "/bin/l g".into(), arguments: Vec::new() })),
            (
                "binary:///l?_KEY=/a%3Db+c&x",
                Output::Binary(Program {
                    path: "/l".into(),
                    arguments: ["_KEY", "/a=b c", "x", ""].map(str::to_owned).to_vec(),
                }),
            ),
            ("fifo:///run/fifo", Output::Fifo("/run/fifo".into())),
        ] {
            assert_eq!(output("stdout", uri), Ok(expected), "{uri}");
        }
        for (uri, expected) in [
            ("", Input::Null),
            ("attach://", Input::Attach { once: false }),
            ("attach://?once=1", Input::Attach { once: true }),
            ("/f", Input::Fifo("/f".into())),
        ] {
            assert_eq!(input(uri), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn refused() {
        for uri in [
            "x",
            "attach://?once=1",
            "json-file://rel",
            "json-file:///a?max-file=0",
            "json-file:///a?size=1",
            "file://x",
        ] {
            assert_eq!(output("stdout", uri).unwrap_err().class(), ErrorClass::InvalidArgument, "{uri}");
        }
        for uri in ["binary://x", "binary:///x%0", "binary:///x?a=%zz", "binary:///x%00"] {
            assert_eq!(output("stdout", uri).unwrap_err().class(), ErrorClass::InvalidArgument, "{uri}");
        }
        assert!(IoRequest::parse(false, "", "binary:///a", "binary:///b").is_err());
        assert!(input("attach://?once=2").is_err() && input("json-file:///a").is_err());
        assert!(IoRequest::parse(false, "", "json-file:///a", "json-file:///b").is_err());
        assert!(IoRequest::parse(true, "", "json-file:///a", "json-file:///b").is_ok());
    }
}
